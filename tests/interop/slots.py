"""A core that the test steers, worker processes that say what they do, and the accounting that must balance then."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from collections.abc import Iterator
from typing import Any, ClassVar

from tests.engine import SLOT_DEAD, Engine

TEXT, JSON, BYTES = 0, 1, 2  # places in CONTENT_TYPES


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Engine]:
    """An engine; when the test is through, no task, charged byte or claimed block may be left in it."""
    engine = Engine(**options)
    try:
        yield engine
        assert blocks_at_rest(engine) == (0, 0)
    except BaseException:
        engine.process.kill()
        engine.process.wait()
        for worker in Worker.alive:
            worker.kill()
        engine.release()
        raise
    finally:
        for worker in list(Worker.alive):
            worker.reap()
    engine.close()


def blocks_at_rest(engine: Engine) -> tuple[int, int]:
    """Blocks that core holds and that slots lease, when no request is under way."""
    engine.wait_until(lambda stats: stats["remaining"] == 0 and stats["charged"] == 0)
    return engine.segment.blocks()


@contextlib.contextmanager
def stopped(engine: Engine) -> Iterator[None]:
    """Core stands still meanwhile; afterwards it finds all that happened at once."""
    pid = engine.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def shared_memory(engine: Engine) -> mmap.mmap:
    """All of the service's memory, as any of its processes may write it."""
    return mmap.mmap(engine.segment.fd, engine.segment.layout()["size"])


def ring_core(engine: Engine) -> None:
    """Have core look at its slots."""
    os.eventfd_write(engine.core_bell, 1)


class Worker:
    """A process in a slot, which says over a pipe what it does: `said` waits for its next word."""

    alive: ClassVar[set[Worker]] = set()

    def __init__(self, engine: Engine, serve: Any, slot: int = 1, incarnation: int = 1) -> None:
        reader, writer = os.pipe()

        def work(channel: Any) -> None:
            os.close(reader)
            serve(channel, lambda word: os.write(writer, word + b"\n"))

        self.slot = slot
        self.engine = engine
        self.pid = engine.fork_worker(work, slot, incarnation)
        os.close(writer)
        self._words = open(reader, "rb")  # noqa: PTH123, SIM115
        Worker.alive.add(self)

    def said(self) -> bytes:
        word = self._words.readline()
        assert word, "the worker has ended"
        return word[:-1]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> int:
        """Waits for core's report of its death; how many requests were failed by that."""
        while (message := self.engine.news())[0] != SLOT_DEAD:
            pass
        assert message[1] == self.slot
        self.reap()
        return message[4]

    def reap(self) -> None:
        """Waits for its end."""
        os.waitpid(self.pid, 0)
        self._words.close()
        Worker.alive.remove(self)

    def stop(self) -> None:
        """Ask it to finish, and wait until it has."""
        self.engine.segment.stop_slot(self.slot)
        assert self.ended() == 0
