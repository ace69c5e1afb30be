"""The services that are compared: one source, run with Mosec or with mosec_cy.

BENCH_API names the module to import, BENCH_SERVICE the service to serve. Only the two zero-copy
services need mosec_cy: they use what Mosec does not have.
"""

import importlib
import os

import numpy as np

api = importlib.import_module(os.environ["BENCH_API"])

ARRAY_ITEMS = 2 * 1024 * 1024  # float32: 8 MiB
EMBEDDING_SHAPE = (16, 384)


class Echo(api.Worker):
    """JSON in, the same JSON out."""

    def forward(self, data):
        return data


class First(Echo):
    pass


class Second(Echo):
    pass


class Third(Echo):
    pass


class RawEcho(api.Worker):
    """Bytes in, the same bytes out, with the codec hooks that every Mosec user overrides."""

    resp_mime_type = "application/octet-stream"

    def deserialize(self, data):
        return data

    def forward(self, data):
        return data

    def serialize(self, data):
        return data


class ZeroCopyEcho(RawEcho):
    """The body is read where it was received; the answer is written where it is sent from."""

    zero_copy = True

    def serialize(self, data):
        answer = self.new_buffer(len(data))
        answer[:] = data
        return answer


class MakeArray(api.Worker):
    """A few bytes in, an 8 MiB array to the next stage."""

    def __init__(self):
        self.array = np.arange(ARRAY_ITEMS, dtype=np.float32) % 7

    def forward(self, data):
        return self.array


class MeanOfArray(api.Worker):
    def forward(self, data):
        return {"mean": float(data.mean())}


class Embed(api.Worker):
    """Answers 16 embeddings of 384 float32 as lists, as a model that knows nothing of its server would."""

    def __init__(self):
        self.embeddings = np.random.default_rng(7).standard_normal(EMBEDDING_SHAPE).astype(np.float32)

    def forward(self, data):
        return {"embeddings": self.embeddings.tolist()}


class BatchSize(api.Worker):
    """Answers each item with the size of the batch that it was in."""

    def forward(self, data):
        return [len(data)] * len(data)


SERVICES = {
    "echo": [(Echo, {})],
    "batch": [(Echo, {"max_batch_size": 32, "max_wait_time": 1})],
    "pipeline": [(First, {}), (Second, {"max_batch_size": 32, "max_wait_time": 1}), (Third, {})],
    "raw": [(RawEcho, {})],
    "raw-zero-copy": [(ZeroCopyEcho, {})],
    "array": [(MakeArray, {}), (MeanOfArray, {})],
    "embedding": [(Embed, {})],
    "bursts": [(BatchSize, {"num": 4, "max_batch_size": 8, "max_wait_time": 10})],
}


def main() -> None:
    server = api.Server()
    for worker, arguments in SERVICES[os.environ["BENCH_SERVICE"]]:
        server.append_worker(worker, **arguments)
    server.run()


if __name__ == "__main__":
    main()
