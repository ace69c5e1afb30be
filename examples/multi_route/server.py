"""One model, three routes, each with a format of its own; and one worker behind two paths.

    python examples/multi_route/server.py
    curl -d '[1, 2, 3]' http://127.0.0.1:8000/v1/json
    curl -d '1,2,3' http://127.0.0.1:8000/v1/csv
    curl http://127.0.0.1:8000/v1/version -d '?'

The stage in the middle is one `Runtime` in all three routes: one set of processes and one queue, so that requests of
different formats go through the model in the same batch.
"""

import numpy as np
import numpy.typing as npt

import mosec_cy
from mosec_cy import ClientError, DecodingError, Runtime, Server, ValidationError, Worker
from mosec_cy.mixin import TypedJSONMixin

Vector = npt.NDArray[np.float32]
MAX_BATCH_SIZE = 16


def checked(values: Vector) -> Vector:
    """What the model takes: one dimension, at least one value."""
    if values.ndim != 1 or not values.size:
        raise ValidationError(f"send at least one number in one dimension, not an array of shape {values.shape}")
    return values


class FromJSON(TypedJSONMixin, Worker):
    """`[1, 2, 3]`"""

    def forward(self, data: list[float]) -> Vector:
        return checked(np.asarray(data, np.float32))


class FromCSV(Worker):
    """`1,2,3`"""

    def deserialize(self, data: bytearray) -> list[str]:
        try:
            return data.decode().split(",")
        except UnicodeDecodeError as error:
            raise DecodingError(str(error)) from error

    def forward(self, data: list[str]) -> Vector:
        try:
            return checked(np.asarray(data, np.float32))
        except ValueError as error:
            raise ClientError(f"send numbers with commas between them: {error}") from error


class FromBytes(Worker):
    """Little-endian float32, one after the other."""

    zero_copy = True  # `deserialize` looks into the request where it arrived

    def deserialize(self, data: memoryview) -> Vector:
        if len(data) % 4:
            raise ClientError(f"send 4 bytes for each float32: {len(data)} bytes are no whole number of them")
        return np.frombuffer(data, "<f4")

    def forward(self, data: Vector) -> Vector:
        return checked(data)


class Softmax(Worker):
    """Stands for a model that is too large to be loaded once for each route."""

    multi_examples = [[np.ones(3, np.float32)], [np.ones(3, np.float32)] * MAX_BATCH_SIZE]

    def forward(self, data: list[Vector]) -> list[Vector]:
        exponents = [np.exp(values - values.max()) for values in data]
        return [values / values.sum() for values in exponents]


class ToJSON(Worker):
    def forward(self, data: Vector) -> Vector:
        return data  # arrays become JSON as they are


class ToCSV(Worker):
    resp_mime_type = "text/csv"

    def forward(self, data: Vector) -> Vector:
        return data

    def serialize(self, data: Vector) -> bytes:
        return ",".join(f"{value:.6f}" for value in data).encode()


class ToBytes(Worker):
    resp_mime_type = "application/octet-stream"

    def forward(self, data: Vector) -> Vector:
        return data

    def serialize(self, data: Vector) -> memoryview:
        return np.ascontiguousarray(data, "<f4").data.cast("B")


class Version(Worker):
    resp_mime_type = "text/plain"

    def deserialize(self, data: bytearray) -> None:
        """Whatever was sent."""

    def forward(self, data: None) -> str:
        return mosec_cy.__version__

    def serialize(self, data: str) -> bytes:
        return data.encode()


if __name__ == "__main__":
    server = Server()
    model = Runtime(Softmax, max_batch_size=MAX_BATCH_SIZE)
    server.register_runtime(
        {
            "/v1/json": [Runtime(FromJSON), model, Runtime(ToJSON)],
            "/v1/csv": [Runtime(FromCSV), model, Runtime(ToCSV)],
            "/v1/binary": [Runtime(FromBytes), model, Runtime(ToBytes)],
        }
    )
    server.append_worker(Version, route=["/version", "/v1/version"])
    server.run()
