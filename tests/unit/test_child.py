"""Processes that the master starts."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

from mosec_cy._master import child


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


def children() -> set[str]:
    """Zombies among them."""
    return {pid for thread in Path("/proc/self/task").glob("*/children") for pid in thread.read_text().split()}


def sleep() -> NoReturn:
    while True:
        time.sleep(60)


def test_a_process_that_cannot_be_watched_is_ended() -> None:
    """It would serve a slot that is given to another one."""
    before = children()
    with no_descriptor_free(), pytest.raises(OSError) as caught:
        child.fork(sleep)
    assert caught.value.errno == errno.EMFILE
    assert children() == before


def test_a_process_is_watched_and_reaped_once() -> None:
    process = child.fork(sleep)
    try:
        assert process.reap() is None and not process.reaped
        process.kill()
        assert process.reap(block=True) == process.reap() == -signal.SIGKILL
        process.kill()
    finally:
        process.close()
    assert str(process.pid) not in children()
