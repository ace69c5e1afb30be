"""What the core process has loaded, and to whom it gives what there is to do."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.core_deaths import wait_workers
from tests.service import Service

REPLICAS = 4
SOURCE = f"""
import os

from mosec_cy import Runtime, Server, Worker


class Who(Worker):
    def forward(self, data):
        return os.getpid()


class Batches(Worker):
    def forward(self, data):
        return [os.getpid()] * len(data)


if __name__ == "__main__":
    server = Server()
    server.register_runtime(
        {{
            "/who": [Runtime(Who, num={REPLICAS})],
            "/batches": [Runtime(Batches, num={REPLICAS}, max_batch_size=4)],
        }}
    )
    server.run()
"""


@pytest.fixture(scope="module")
def service(serve_module: Callable[..., Service]) -> Service:
    return wait_workers(serve_module(SOURCE), 2 * REPLICAS)


def mapped(pid: int) -> set[str]:
    """Names of the files that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {Path(fields[5]).name for line in lines if len(fields := line.split(maxsplit=5)) == 6}


def extensions(pid: int) -> set[str]:
    """Those of them that are extensions, without the version of Python in their names."""
    return {name.partition(".")[0] for name in mapped(pid) if re.search(r"\.(cpython|abi3)[^/]*\.so$", name)}


def test_core_maps_nothing_that_is_for_workers(service: Service) -> None:
    """Its memory is small, and nothing of it has a hook in `fork`."""
    (core,) = service.pids("mosec_cy: core")
    loaded = extensions(core)
    assert {"core", "dispatch", "service", "http1"} <= loaded
    assert "worker" not in loaded
    assert not {name for name in mapped(core) if re.search("numpy|msgpack|msgspec|prometheus", name)}


@pytest.mark.parametrize("path", ["/who", "/batches"])
def test_idle_replicas_go_round(service: Service, path: str) -> None:
    """All stay warm. (On a busy machine one that has answered may be idle again only after others have had several.)"""
    with service.client() as client:
        pids = [client.post(path, json=0).json() for _ in range(20 * REPLICAS)]
    counts = collections.Counter(pids)
    assert len(counts) == REPLICAS and min(counts.values()) >= 10, counts
