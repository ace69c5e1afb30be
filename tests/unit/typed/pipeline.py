"""What a service may look like to a type checker."""

from typing import Any, TypedDict

from mosec_cy import Runtime, Server, ValidationError, Worker, get_logger

logger = get_logger()


class Request(TypedDict):
    x: int


class Scale(Worker):
    example = {"x": 1}
    multi_examples = [{"x": 1}, {"x": 2}]
    zero_copy = True

    def __init__(self) -> None:
        super().__init__()
        self.factor = self.max_batch_size * self.worker_id

    def deserialize(self, data: memoryview) -> Request:
        value: Request = super().deserialize(data)
        if "x" not in value:
            raise ValidationError("x is missing")
        return value

    def forward(self, data: Request) -> int:
        logger.info("stage %s", self.stage)
        return data["x"] * self.factor

    def serialize_ipc(self, data: int) -> bytes:
        return data.to_bytes(8, "little")


class Sum(Worker):
    example: int = 3
    resp_mime_type = "application/octet-stream"

    def deserialize_ipc(self, data: Any) -> int:
        return int.from_bytes(data, "little")

    def forward(self, numbers: list[int]) -> list[int]:  # its own name for the argument
        return [number + 1 for number in numbers]

    def serialize(self, data: int) -> memoryview:
        buffer = self.new_buffer(8)
        buffer[:] = data.to_bytes(8, "little")
        return buffer


class Untyped(Worker):
    def forward(self, data: Any) -> Any:
        return data


server = Server(timeout=500, port=8080)
server.append_worker(Scale, num=2, env=[{"DEVICE": "0"}, {"DEVICE": "1"}], start_method="fork", route=["/a", "/b"])
server.append_worker(Sum, max_batch_size=8, max_wait_time=10, timeout=1.5)
shared = Runtime(Untyped, num=2, max_batch_size=4)
Server().register_runtime({"/inference": [Runtime(Scale), shared], "/other": [shared]})
server.run()
