"""Results that go to the next stage by way of Redis, with a Redis that starts and ends with the service.

    python examples/redis_ipc/server.py
    python examples/redis_ipc/client.py

Only keys pass through the service itself. With MOSEC_REDIS_URL in the environment that Redis is used instead; the
program `redis-server` is not needed then.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mosec_cy import Server, ValidationError, Worker
from mosec_cy.mixin import RedisShmIPCMixin


class Preprocess(RedisShmIPCMixin, Worker):
    redis_ttl = 60  # s; a result that is not fetched until then, since its client has left, is removed

    def forward(self, data: Any) -> Any:
        try:
            return np.asarray(data["values"], np.float64)
        except (TypeError, ValueError, KeyError) as error:
            raise ValidationError('send {"values": [numbers]}') from error


class Inference(RedisShmIPCMixin, Worker):
    def forward(self, data: list[Any]) -> list[dict[str, Any]]:
        return [{"sorted": np.sort(values, axis=None), "sum": values.sum()} for values in data]


def redis_in(folder: str) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a Redis that keeps everything in memory; gives it, and its URL, once it is there."""
    path = Path(folder) / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    while process.poll() is None and not path.is_socket():
        time.sleep(0.01)
    return process, f"unix://{path}"


def serve(server: Server) -> None:
    server.append_worker(Preprocess)
    server.append_worker(Inference, max_batch_size=8)
    server.run()


if __name__ == "__main__":
    server = Server()
    if "MOSEC_REDIS_URL" in os.environ:
        serve(server)
    else:
        with tempfile.TemporaryDirectory() as folder:
            redis, url = redis_in(folder)
            RedisShmIPCMixin.set_redis_url(url)
            server.register_daemon("redis", redis)
            serve(server)
