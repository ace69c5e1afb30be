"""The smallest pipeline: three stages, each in a process of its own, the one in the middle in batches.

    python examples/echo.py
    curl -d '{"x": 2}' http://127.0.0.1:8000/inference      ->  {"echo":{"x":2},"batch_size":1}

The first stage gets what the client's JSON says, the last one's answer becomes JSON again; in between, Python objects
pass through shared memory.
"""

from typing import Any

from mosec_cy import Server, ValidationError, Worker


class Preprocess(Worker):
    example = {"x": 1}  # shown to `forward` before the first request is

    def forward(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise ValidationError("send a JSON object")  # the client gets 422; later stages do not see it
        return data


class Inference(Worker):
    def forward(self, data: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
        return [(item, len(data)) for item in data]


class Postprocess(Worker):
    def forward(self, data: tuple[dict[str, Any], int]) -> dict[str, Any]:
        echo, batch_size = data
        return {"echo": echo, "batch_size": batch_size}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Preprocess)
    server.append_worker(Inference, max_batch_size=32)  # how long it pays to wait for others is learnt
    server.append_worker(Postprocess)
    server.run()
