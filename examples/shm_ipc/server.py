"""NumPy arrays from one stage to the next, in three ways, to see what each costs.

    MOSEC_REDIS_URL=redis://127.0.0.1:6379 python examples/shm_ipc/server.py
    python examples/shm_ipc/client.py

`/pickle` is the default: pickle 5, the array written into shared memory once and looked into by the next stage.
`/numbin` is `NumBinIPCMixin`, `/redis` is `RedisShmIPCMixin` (only where MOSEC_REDIS_URL says which Redis). `/alone`
has no second stage: what the others take longer is the way between two. What the client printed on two shared cores:

     KiB      alone     pickle     numbin      redis
       1      0.283      0.447      0.436      0.907
      16      0.227      0.363      0.410      0.805
     256      0.221      0.348      0.370      0.953
    1024      0.292      0.560      0.578      2.134
    4096      0.343      0.898      0.910      5.428
   16384      0.391      2.263      2.282     78.415

A second stage costs 0.1 ms, and from a megabyte on the writing of the array. So the default is the one to take; NumBin
is for stages that are to speak a format that others know, and Redis for results that others read too.
"""

import os
from functools import cache
from typing import Any

import numpy as np

from mosec_cy import Server, ValidationError, Worker
from mosec_cy.mixin import NumBinIPCMixin, RedisShmIPCMixin

Array = np.ndarray[Any, np.dtype[np.float32]]

LARGEST = 32 << 20  # bytes


@cache
def array(size: int) -> Array:
    """So many bytes of float32, made once: the making shall not be measured."""
    return np.ones((size // 1024, 256), np.float32)


def produce(request: Any) -> Array:
    match request:
        case {"bytes": int(size)} if size % 1024 == 0 and 1024 <= size <= LARGEST:
            return array(size)
    raise ValidationError(f'send {{"bytes": a multiple of 1024, at most {LARGEST}}}')


def consume(data: Array) -> dict[str, float]:
    return {"bytes": data.nbytes, "last": float(data[-1, -1])}


class Produce(Worker):
    def forward(self, data: Any) -> Array:
        return produce(data)


class Consume(Worker):
    def forward(self, data: Array) -> dict[str, float]:
        return consume(data)


class Alone(Worker):
    def forward(self, data: Any) -> dict[str, float]:
        return consume(produce(data))


class ProduceNumBin(NumBinIPCMixin, Produce):
    pass


class ConsumeNumBin(NumBinIPCMixin, Consume):
    pass


class ProduceRedis(RedisShmIPCMixin, Produce):
    pass


class ConsumeRedis(RedisShmIPCMixin, Consume):
    pass


if __name__ == "__main__":
    server = Server()
    server.append_worker(Alone, route="/alone")
    pipelines: dict[str, list[type[Worker]]] = {
        "/pickle": [Produce, Consume],
        "/numbin": [ProduceNumBin, ConsumeNumBin],
    }
    if "MOSEC_REDIS_URL" in os.environ:
        pipelines["/redis"] = [ProduceRedis, ConsumeRedis]
    for route, stages in pipelines.items():
        for stage in stages:
            server.append_worker(stage, route=route)
    server.run()
