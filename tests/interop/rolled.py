"""A service that is restarted worker by worker, under a load that notices each lost request."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from tests.load import Exchange, drive, exchange
from tests.service import Service

REPLICAS = """
    import os, signal, sys
    from prometheus_client import Counter
    from mosec_cy import Server, Worker

    ITEMS = Counter("items", "items of forward", ["stage"])

    class First(Worker):
        def seen(self, data):
            ITEMS.labels(self.stage).inc()
            path = [*data.get("path", []), [self.stage, self.worker_id, os.environ["WHO"], os.getpid()]]
            return {"number": data["number"], "path": path}

        def forward(self, data):
            return self.seen(data)

    class Middle(First):
        def forward(self, data):
            return [self.seen(item) for item in data]

    class Last(First):
        pass

    if __name__ == "__main__":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may ignore it
        num, method = int(sys.argv[1]), sys.argv[2]
        server = Server()
        env = [{"WHO": chr(ord("a") + i)} for i in range(num)]
        server.append_worker(First, num=num, start_method=method, env=env)
        server.append_worker(Middle, num=num, start_method=method, env=env, max_batch_size=4, max_wait_time=1)
        server.append_worker(Last, num=num, start_method=method, env=env)
        server.run()
"""


class Load:
    """Clients on connections that stay open, each with one request after the other until the end of the context.

    Attributes:
        answers: what was answered, in order.
        counts: answers by status, after the end. Anything but the right answer is an error there.
        in_flight: as many of the next answers may have been given already, and lie in sockets.
    """

    def __init__(self, service: Service, connections: int = 8) -> None:
        self.answers: list[Any] = []
        self.counts: Counter[int] = Counter()
        self.in_flight = 2 * connections  # each has one; whose turn it is in that round is open
        self._port = service.port
        self._connections = connections
        self._over = threading.Event()
        self._more = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._drive)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def wait_for(self, more: int) -> int:
        """Wait until so many answers have come from now on; how many there are then."""
        with self._more:
            goal = len(self.answers) + more
            self._more.wait_for(lambda: self._error is not None or len(self.answers) >= goal)
            return len(self.answers)

    def _drive(self) -> None:
        try:
            self.counts = drive(self._port, self._exchanges(), self._connections)
        except BaseException as error:
            self._error = error
        with self._more:
            self._more.notify_all()

    def _exchanges(self) -> Iterator[Exchange]:
        number = 0
        while not self._over.is_set():
            yield exchange("/inference", json.dumps({"number": number}).encode(), self._expecting(number))
            number += 1

    def _expecting(self, number: int) -> Any:
        def check(status: int, body: bytes) -> bool:
            if status != 200:
                return False
            answer = json.loads(body)
            with self._more:
                self.answers.append(answer)
                self._more.notify_all()
            return bool(answer["number"] == number)

        return check


def roll(service: Service, times: int = 1) -> None:
    """Have all workers replaced, and wait until it is done for the `times`-th time in this service's life."""
    service.signal(signal.SIGHUP)
    service.wait_outputs("rolling restart done", times)


def replaced(service: Service) -> dict[str, tuple[int, int]]:
    """Old and new pid of each replica that the log says was replaced last."""
    found = {}
    for message in service.messages:
        words = message.split()
        if words[1:3] == ["replaced:", "process"]:
            found[words[0]] = (int(words[3]), int(words[5]))
    return found


def troubles(service: Service) -> list[str]:
    """Warnings and errors in its log so far."""
    return [record["fields"]["message"] for record in service.records if record["level"] in ("WARNING", "ERROR")]
