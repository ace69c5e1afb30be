"""A real Redis for tests, on a socket in a directory of theirs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools import environment, require


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Runs a Redis that writes nothing down; gives its URL. Its end is waited for, and must be an orderly one."""
    path = directory / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    command = [require("redis-server"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "ready to accept connections" in line.lower():
                    break
            else:
                raise AssertionError("Redis did not start:\n" + "".join(lines))
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.stdout.read()  # it must not wait for a reader
    assert process.returncode == 0
    assert list(directory.iterdir()) == []
