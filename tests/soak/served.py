"""The service that is soaked: a route for each way through the engine."""

import os
import signal
import time
from typing import Any

import numpy as np

from mosec_cy import Runtime, Server, SSEWorker, Worker
from mosec_cy.mixin import MsgpackMixin


class Echo(Worker):
    def forward(self, data: list[Any]) -> list[Any]:
        return data


class Retried(Echo):
    """Another one takes over what a dead one had begun."""


class Make(Worker):
    def forward(self, data: list[Any]) -> list[Any]:
        return [{"id": item["id"], "array": np.full(3000, item["id"])} for item in data]


class Double(Worker):
    def forward(self, data: Any) -> Any:
        return {"id": data["id"], "array": data["array"] * 2}

    def cost(self, result: Any) -> int:
        return 1 + result["id"] % 100


class Sum(Worker):
    """Keeps the last ones, so that leases outlive their tasks."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def forward(self, data: list[Any]) -> list[Any]:
        self.kept = [*self.kept, *data][-20:]
        return [{"id": item["id"], "sum": int(item["array"].sum())} for item in data]


class Raw(Worker):
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


class Packed(MsgpackMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


class Count(SSEWorker):
    def forward(self, data: list[Any]) -> None:
        for step in range(20):
            for index, item in enumerate(data):
                self.send_stream_event(f"{item['id']}:{step}", index=index)


class Faulty(Worker):
    def forward(self, data: Any) -> Any:
        if data["do"] == "raise":
            raise RuntimeError("as asked")
        if data["do"] == "exit":
            os._exit(3)
        if data["do"] == "hang":
            time.sleep(60)
        return data


def main() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs this may ignore it
    server = Server(timeout=30_000, capacity=10_000, compression=True)
    batch = {"max_batch_size": 8, "max_wait_time": 1}
    by_cost = {"max_batch_size": 8, "cost": "previous", "max_batch_cost": 300, "pad": True}
    server.register_runtime(
        {
            "/echo": [Runtime(Echo, num=2, max_batch_size=8)],
            "/pipeline": [Runtime(Make, **batch), Runtime(Double, num=2), Runtime(Sum, start_method="fork", **by_cost)],
            "/raw": [Runtime(Raw)],
            "/retried": [Runtime(Retried, num=2, retry=1, max_batch_size=8, cost="bytes", pad=True)],
            "/packed": [Runtime(Packed, start_method="fork")],
            "/stream": [Runtime(Count, **batch)],
            "/faulty": [Runtime(Faulty, num=2, timeout=0.5)],
        }
    )
    server.run()


if __name__ == "__main__":
    main()
