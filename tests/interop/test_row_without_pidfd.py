"""A worker that core cannot watch yet, because it has no descriptor left for that."""

from __future__ import annotations

import os
import resource
import signal
from typing import Any

from tests.engine import ROW_DEAD, ROW_KILLED, ROW_OVERDUE
from tests.http_client import Client
from tests.interop.rows import TEXT, Worker, running

MS = 1_000_000


def serve(channel: Any, say: Any) -> None:
    """Answers, but for `hang`: that keeps it in `forward`, deaf to the signal of its overrun."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while (items := channel.take()) is not None:
        channel.begin_forward()
        while bytes(items[0]) == b"hang":
            signal.pause()
        channel.end_forward()
        channel.publish(items[0], [b"done"], 0, TEXT)


def test_a_worker_that_hangs_is_killed_once_there_is_a_descriptor_for_it() -> None:
    with running(stage={"timeout_ns": 50 * MS}, kill_grace_ns=50 * MS) as engine, Client(engine) as client:
        assert client.send_post(b"x", "/nowhere").answer().status == 404  # it is accepted
        soft, hard = resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, (3, hard))
        hanging = Worker(engine, serve)
        assert client.post(b"hang").status == 408
        assert [engine.news()[:3] for _ in range(2)] == [(ROW_OVERDUE, 1, 1), (ROW_KILLED, 1, 1)]
        assert os.waitid(os.P_PID, hanging.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert engine.news()[:3] == (ROW_DEAD, 1, 1)
        hanging.reap()
        again = Worker(engine, serve, incarnation=2)
        assert client.post(b"x").outcome == (200, b"done")
        again.stop()
