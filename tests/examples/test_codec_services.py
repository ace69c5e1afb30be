"""The examples of codecs, each with its client."""

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.service import ROOT, Service
from tests.tools import require

EXAMPLES = ROOT / "examples"


def run_client(example: str, service: Service, *arguments: str, path: str = "") -> list[str]:
    """The lines that the client of an example prints."""
    program = [sys.executable, str(EXAMPLES / example / "client.py"), "--url", f"http://{service.address}{path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*program, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_validation(serve: Any) -> None:
    service = serve(EXAMPLES / "validation" / "server.py").wait_ready()
    accepted = "200 {'red': 0.0, 'green': 255.0, 'blue': 0.0}"
    misfit = "is not what the annotation asks for: "
    begins = [
        accepted,
        accepted,
        f'422 request validation error: the field "width" {misfit}',
        f'422 request validation error: the field "height" {misfit}',
        f"422 request validation error: the body {misfit}",
        f"422 request validation error: the body {misfit}",
        "422 request validation error: 18 bytes are not (3, 3, 3) - at `$.pixels`",
        "400 decoding error: the body is not MessagePack that can be read: ",
    ]
    answers = run_client("validation", service)
    assert [answer[: len(begin)] for answer, begin in zip(answers, begins, strict=True)] == begins
    with service.client() as client:
        answer = client.post("/json", json={"width": 1, "height": 1, "pixels": "AAA="})
    assert (answer.status_code, answer.text) == (
        422,
        "request validation error: 2 bytes are not (1, 1, 3) - at `$.pixels`",
    )


def test_arrays_between_stages_by_each_way(serve: Any, redis_url: str) -> None:
    pytest.importorskip("numbin", reason="needs the extra 'numbin'")
    pytest.importorskip("redis", reason="needs the extra 'redis'")
    service = serve(EXAMPLES / "shm_ipc" / "server.py", env={"MOSEC_REDIS_URL": redis_url}).wait_ready()
    title, *rows = run_client("shm_ipc", service, "--requests", "3", "1024", "4194304")
    assert title.split() == ["KiB", "alone", "pickle", "numbin", "redis"]
    assert [row.split()[0] for row in rows] == ["1", "4096"]
    assert all(float(time) > 0 for row in rows for time in row.split()[1:])
    with service.client() as client:
        refused = client.post("/pickle", json={"bytes": 1000})
    assert refused.status_code == 422


def test_redis_between_stages(serve: Any) -> None:
    pytest.importorskip("redis", reason="needs the extra 'redis'")
    require("redis-server")
    service = serve(EXAMPLES / "redis_ipc" / "server.py").wait_ready()
    assert run_client("redis_ipc", service, "3", "1", "2", path="/inference") == [
        "{'sorted': [1.0, 2.0, 3.0], 'sum': 6.0}"
    ]
    with service.client() as client:
        assert client.post("/inference", json=[1]).status_code == 422
        assert client.post("/inference", json={"values": ["x"]}).status_code == 422
