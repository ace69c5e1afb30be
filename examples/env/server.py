"""Each replica with an environment of its own: here, a GPU for each.

    GPUS=0,1 python examples/env/server.py
    curl -d '{}' http://127.0.0.1:8000/inference      ->  {"worker_id":1,"gpu":"0"}

`CUDA_VISIBLE_DEVICES` is set before the replica imports anything, so that a framework which it imports sees only
that one GPU, as its first.
"""

import os
from typing import Any

from mosec_cy import Server, Worker, get_logger

logger = get_logger()


class OnItsGPU(Worker):
    def __init__(self) -> None:
        self.gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        logger.info("replica %d has GPU %s", self.worker_id, self.gpu)
        # Here a model would be loaded: to "cuda:0", which is another GPU in each replica.

    def forward(self, data: Any) -> dict[str, int | str]:
        return {"worker_id": self.worker_id, "gpu": self.gpu}


if __name__ == "__main__":
    gpus = os.environ.get("GPUS", "0,1").split(",")
    server = Server()
    server.append_worker(OnItsGPU, num=len(gpus), env=[{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus])
    server.run()
