"""Workers that hang outside of `forward`: killed once nobody can wait for them any more, and others serve on."""

from __future__ import annotations

import hashlib
import os
import select
import signal
from typing import Any

import pytest

from mosec_cy import Worker as UserWorker
from mosec_cy._process.loop import serve
from tests.engine import RUNNING, SLOT_DEAD, SLOT_KILLED
from tests.http_client import Client, clients
from tests.interop.slots import JSON, TEXT, Worker, running

MS = 1_000_000
EXPIRED = (408, b"inference timeout")
STAGE = {"timeout_ns": 50 * MS}
LIMITS = {"service_timeout_ns": 150 * MS, "kill_grace_ns": 50 * MS}


def hang() -> None:
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # hours in C, where no signal handler runs


class Hanging(UserWorker):
    """Hangs where its request says."""

    def deserialize(self, data: Any) -> Any:
        if data == b"decode":
            hang()
        return data.decode()

    def forward(self, data: Any) -> Any:
        return data

    def serialize(self, data: Any) -> Any:
        if data == "encode":
            hang()
        return data.encode()


def behave(channel: Any, say: Any) -> None:
    serve(channel, Hanging(), is_first=True, is_last=True, content_type=JSON)


def expect_kill(engine: Any, slot: int = 1) -> None:
    assert [engine.news()[:3] for _ in range(2)] == [(SLOT_KILLED, slot, 1), (SLOT_DEAD, slot, 1)]


@pytest.mark.parametrize("where", [b"decode", b"encode"])
def test_a_worker_that_hangs_in_a_codec_is_killed(where: bytes) -> None:
    with running(stage=STAGE, **LIMITS) as engine, Client(engine) as client:
        hanging = Worker(engine, behave)
        assert client.post(b"before").outcome == (200, b"before")
        assert client.post(where).outcome == EXPIRED
        expect_kill(engine)
        hanging.reap()
        again = Worker(engine, behave, incarnation=2)
        assert client.post(b"after").outcome == (200, b"after")
        again.stop()


@pytest.mark.parametrize("slots", [1, 2])
def test_a_stopped_process_is_killed(slots: int) -> None:
    """Its request was never started: another worker serves it, or it expires."""
    limits = {**LIMITS, "service_timeout_ns": 1500 * MS}  # a busy machine may need long to take it to another
    with running(stage=STAGE, slots=slots, **limits) as engine, Client(engine) as client:
        first = Worker(engine, behave)
        assert client.post(b"before").outcome == (200, b"before")
        others = [Worker(engine, behave, slot=slot) for slot in range(2, slots + 1)]
        os.kill(first.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        for _ in range(slots):  # idle slots take turns
            assert client.post(b"x").outcome == ((200, b"x") if others else EXPIRED)
        expect_kill(engine)
        first.reap()
        again = Worker(engine, behave, incarnation=2)
        assert client.post(b"after").outcome == (200, b"after")
        again.stop()
        for other in others:
            other.stop()


def test_requests_that_come_and_go_keep_no_stopped_process() -> None:
    with running(stage=STAGE, **LIMITS) as engine, clients(engine, 2) as two:
        stopped = Worker(engine, behave)
        assert two[0].post(b"before").outcome == (200, b"before")
        os.kill(stopped.pid, signal.SIGSTOP)
        assert engine.control.recv(64)[0] == RUNNING
        engine.control.settimeout(0)
        two[0].send_post(b"x")
        for turn in range(200):  # never without one that waits
            two[1 - turn % 2].send_post(b"x")
            try:
                message = engine.control.recv(64)
            except BlockingIOError:
                assert two[turn % 2].outcome() == EXPIRED
            else:
                break
        assert int.from_bytes(message[:4], "little") == SLOT_KILLED
        assert engine.news()[:3] == (SLOT_DEAD, 1, 1)
        stopped.reap()
        for client in two:
            assert client.outcome() == EXPIRED


def test_a_batch_that_waited_long_before_it_was_taken_has_its_time_to_be_decoded() -> None:
    """Its slot was stopped, say: what it does counts from when it began it."""
    limits = {"service_timeout_ns": 1500 * MS, "kill_grace_ns": 50 * MS}
    with running(stage=STAGE, **limits) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(b"x").socket.settimeout(1)
        with pytest.raises(TimeoutError):
            client.answer()
        [item] = channel.take()  # now it decodes
        client.socket.settimeout(20)
        assert client.outcome() == EXPIRED
        assert engine.control.recv(64)[0] == RUNNING
        assert select.select([engine.control], [], [], 0.3)[0] == []  # nobody is reported as killed
        channel.publish(item, [b"late"], 0, TEXT)
        client.send_post(b"y")
        [item] = channel.take()
        channel.publish(item, [b"y"], 0, TEXT)
        assert client.outcome() == (200, b"y")
