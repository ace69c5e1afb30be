"""A service of many kinds of routes, for tests that load it."""

import os
import signal
import time
from typing import Any

import numpy as np

from mosec_cy import Runtime, Server, ValidationError, Worker


class Echo(Worker):
    """Batches."""

    def forward(self, data: list[Any]) -> list[Any]:
        return data


class First(Worker):
    def forward(self, data: Any) -> Any:
        if data["id"] % 50 == 49:
            raise ValidationError(str(data["id"]))
        return [data["id"], 1]


class Middle(Worker):
    def forward(self, data: list[Any]) -> list[Any]:
        return [[*item, 2] for item in data]


class Last(Worker):
    def forward(self, data: Any) -> Any:
        return [*data, 3]


class Raw(Worker):
    """Written in place."""

    zero_copy = True
    resp_mime_type = "application/octet-stream"

    def deserialize(self, data: memoryview) -> memoryview:
        return data

    def forward(self, data: memoryview) -> memoryview:
        return data

    def serialize(self, data: memoryview) -> memoryview:
        buffer = self.new_buffer(len(data))
        buffer[:] = data
        return buffer


class MakeArray(Worker):
    def forward(self, data: Any) -> Any:
        return np.full(3000, data["id"])


class UseArray(Worker):
    """Keeps the last ones."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def forward(self, data: list[Any]) -> list[Any]:
        self.kept = [*self.kept, *data][-20:]
        return [{"id": int(array[0]), "sum": int(array.sum())} for array in data]


class Slow(Worker):
    """Every other request overruns."""

    def forward(self, data: Any) -> Any:
        if data["id"] % 2:
            time.sleep(60)
        return data


class Mortal(Worker):
    def forward(self, data: list[Any]) -> list[Any]:
        if any(item.get("die") for item in data):
            os.kill(os.getpid(), signal.SIGKILL)
        return data


def main() -> None:
    server = Server(timeout=20_000, capacity=10_000)
    batch = {"max_batch_size": 8, "max_wait_time": 1}
    server.register_runtime(
        {
            "/echo": [Runtime(Echo, num=2, **batch)],
            "/pipeline": [Runtime(First, num=2), Runtime(Middle, num=2, **batch), Runtime(Last)],
            "/raw": [Runtime(Raw)],
            "/arrays": [Runtime(MakeArray), Runtime(UseArray, start_method="fork", **batch)],
            "/slow": [Runtime(Slow, timeout=0.02)],
            "/mortal": [Runtime(Mortal, num=2, **batch)],
        }
    )
    server.run()


if __name__ == "__main__":
    main()
