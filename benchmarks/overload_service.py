"""The service that `overload.py` drives: batches that take a known time, and counts of work that nobody waited for.

Arguments before the server's own: ms a batch, items a batch, replicas.
"""

import sys
import time

from prometheus_client import Counter

from mosec_cy import Server, Worker

BATCH_S = float(sys.argv[1]) / 1000
ITEMS = Counter("overload_items", "Items that were run.")
EXPIRED = Counter("overload_expired", "Items that nobody waited for any more when they were started.")
WASTED = Counter("overload_wasted", "Items that nobody waited for any more when they were done.")


class Sleeper(Worker):
    def forward(self, data: list[object]) -> list[object]:
        ITEMS.inc(len(data))
        EXPIRED.inc(sum(map(self.is_cancelled, range(len(data)))))
        time.sleep(BATCH_S)
        WASTED.inc(sum(map(self.is_cancelled, range(len(data)))))
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(Sleeper, num=int(sys.argv[3]), max_batch_size=int(sys.argv[2]), max_wait_time=1)
    server.run()
