"""A process gone wild fills the counter of core's eventfd: nobody can ring any more, and yet answers arrive."""

from __future__ import annotations

import contextlib
import os

from tests.accounting import wait_asleep
from tests.http_client import Client
from tests.interop.slots import TEXT, running

FULL = 0xFFFFFFFFFFFFFFFE


def test_a_silenced_bell_holds_up_no_answer() -> None:
    with running() as engine, Client(engine) as client:
        channel = engine.channel()
        for number in range(3):
            client.send_post(b"%d" % number)
            [item] = channel.take()
            with contextlib.suppress(BlockingIOError):  # it has been rung
                os.eventfd_read(engine.core_bell)
            os.eventfd_write(engine.core_bell, FULL)
            wait_asleep(engine.process.pid)  # after that last ring
            channel.publish(item, [b"x"], 0, TEXT)
            assert client.outcome() == (200, b"x")
