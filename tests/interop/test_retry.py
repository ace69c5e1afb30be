"""`retry`: a request whose worker has died under it is run once more, alone, unless its client has heard something."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

from mosec_cy import SSEWorker
from mosec_cy import Worker as UserWorker
from mosec_cy._process.loop import serve
from tests.http_client import Client, clients, receive_all, request
from tests.interop.slots import JSON, TEXT, Worker, blocks_at_rest, running

DIED = (500, b"inference internal error: the worker process died")
RETRY = {"retry": 1}
FOUR = {"retry": 1, "max_batch_size": 4, "max_wait_ns": 1 << 50}


def careful(channel: Any, say: Any) -> None:
    """Says each batch that it takes; dies of `poison` and of `hold`, of that when it is killed."""
    while (items := channel.take()) is not None:
        bodies = [bytes(item) for item in items]
        say(b" ".join(bodies))
        if b"poison" in bodies:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"hold" in bodies:
            signal.pause()
        for item, body in zip(items, bodies, strict=True):
            channel.publish(item, [body], 0, TEXT)


def test_mates_of_a_poisonous_request_survive_it() -> None:
    with running(stage=FOUR) as engine, clients(engine, 4) as four:
        worker = Worker(engine, careful)
        for number, body in enumerate((b"a", b"poison", b"b", b"c"), 1):
            four[number - 1].send_post(body)
            engine.wait_until(lambda stats, number=number: stats["remaining"] == number)
        assert worker.said() == b"a poison b c"
        assert worker.ended() == 0  # nobody was failed by that
        again = Worker(engine, careful, incarnation=2)
        assert [again.said(), again.said()] == [b"a", b"poison"]
        assert again.ended() == 1
        last = Worker(engine, careful, incarnation=3)
        assert [last.said(), last.said()] == [b"b", b"c"]
        assert [client.outcome() for client in four] == [(200, b"a"), DIED, (200, b"b"), (200, b"c")]
        last.stop()


def test_two_slots_share_what_is_run_again() -> None:
    with running(stage=FOUR, slots=2) as engine, clients(engine, 4) as four:
        first = Worker(engine, careful, slot=1)
        for number, client in enumerate(four, 1):
            client.send_post(b"hold")
            engine.wait_until(lambda stats, number=number: stats["remaining"] == number)
        assert first.said() == b"hold hold hold hold"
        first.kill()
        assert first.ended() == 0
        others = [Worker(engine, careful, slot=2), Worker(engine, careful, slot=1, incarnation=2)]
        for worker in others:
            assert worker.said() == b"hold"
        for worker in others:
            worker.kill()
            assert worker.engine.news()[4] == 1
            worker.reap()
        for incarnation in (3, 4):
            worker = Worker(engine, careful, slot=1, incarnation=incarnation)
            assert worker.said() == b"hold"
            worker.kill()
            assert worker.ended() == 1
        assert [client.outcome() for client in four] == 4 * [DIED]


def test_an_expired_request_is_not_run_again() -> None:
    with running(stage=RETRY, service_timeout_ns=100_000_000) as engine, Client(engine) as client:
        worker = Worker(engine, careful)
        client.send_post(b"hold")
        assert worker.said() == b"hold"
        worker.kill()
        assert worker.ended() == 0
        assert client.outcome() == (408, b"inference timeout")  # it had waited for another process
        again = Worker(engine, careful, incarnation=2)
        assert client.post(b"next").outcome == (200, b"next")
        assert again.said() == b"next"
        again.stop()


@pytest.mark.parametrize("left", [True, False])
def test_what_nobody_waits_for_is_not_run_again(left: bool) -> None:
    with running(stage=RETRY, service_timeout_ns=200_000_000) as engine, Client(engine) as other:
        client = Client(engine)
        worker = Worker(engine, careful)
        client.send_post(b"hold")
        assert worker.said() == b"hold"
        if left:
            client.reset()
        else:
            assert client.outcome() == (408, b"inference timeout")
            client.leave()
        engine.wait_until(lambda stats: stats["remaining"] == 0)
        worker.kill()
        assert worker.ended() == 0
        again = Worker(engine, careful, incarnation=2)
        assert other.post(b"next").outcome == (200, b"next")
        assert again.said() == b"next"
        again.stop()


class Overwriter(UserWorker):
    """Writes over its input, then dies of it the first time."""

    first_life = True

    def deserialize(self, data: Any) -> Any:
        return data

    def deserialize_ipc(self, data: Any) -> Any:
        return data

    def forward(self, data: Any) -> Any:
        seen = bytes(data).decode()
        data[:] = bytes(len(data))
        if self.first_life:
            os.kill(os.getpid(), signal.SIGKILL)
        return seen


class ZeroCopyOverwriter(Overwriter):
    zero_copy = True


class ArrayOverwriter(Overwriter):
    deserialize_ipc = UserWorker.deserialize_ipc

    def forward(self, data: Any) -> Any:
        assert data.flags.writeable
        return super().forward(data.data.cast("B"))


def lives(worker_class: type[Overwriter], **place: Any) -> tuple[Any, Any]:
    """What its first process does, and its second."""

    def live(first: bool) -> Any:
        def run(channel: Any, say: Any) -> None:
            worker = worker_class()
            worker.first_life = first
            serve(channel, worker, is_last=True, content_type=JSON, **place)

        return run

    return live(True), live(False)


@pytest.mark.parametrize("worker_class", [Overwriter, ZeroCopyOverwriter])
def test_the_second_run_sees_what_the_first_one_saw(worker_class: type[Overwriter]) -> None:
    first_life, second_life = lives(worker_class, is_first=True)
    with running(stage=RETRY) as engine, Client(engine) as client:
        first = Worker(engine, first_life)
        client.send_post(b"the body")
        assert first.ended() == 0
        second = Worker(engine, second_life, incarnation=2)
        assert client.outcome() == (200, b'"the body"')
        second.stop()


def test_between_stages_too() -> None:
    """The array lies beside its pickle, where a stage without `retry` would look into the block itself."""
    first_life, second_life = lives(ArrayOverwriter, is_first=False)
    with running(stages=2, stage=RETRY) as engine, Client(engine) as client:
        channel = engine.channel(1)
        first = Worker(engine, first_life, slot=2)
        client.send_post(b"x")
        channel.publish_pickle(channel.take()[0], np.frombuffer(b"the array" * 1000, np.uint8).copy())
        assert first.ended() == 0
        second = Worker(engine, second_life, slot=2, incarnation=2)
        assert client.outcome() == (200, b'"%s"' % (b"the array" * 1000))
        second.stop()
        assert blocks_at_rest(engine) == (0, 0)


class Streamer(SSEWorker):
    def forward(self, data: Any) -> Any:
        if data == "speak":
            self.send_stream_event("first")
        self.tell(b"in forward")
        signal.pause()


def stream(channel: Any, say: Any) -> None:
    worker = Streamer()
    worker.tell = say  # type: ignore[attr-defined]
    serve(channel, worker, is_first=True, is_last=True, content_type=TEXT)


def test_a_stream_is_not_begun_again_after_its_first_event() -> None:
    """It ends with an event that says so, for there is no status any more; one that is still silent is run again."""
    with running(stage=RETRY, streams=True) as engine, Client(engine) as client:
        worker = Worker(engine, stream)
        client.send(request(b'"speak"', headers="connection: close\r\n"))
        assert worker.said() == b"in forward"
        worker.kill()
        assert worker.ended() == 1
        body = receive_all(client.socket)
        assert b"data: first\n\n" in body
        assert b"event: error\n" in body[body.index(b"first") :]
        assert b"the worker process died" in body


def test_a_stream_that_has_said_nothing_is_run_again() -> None:
    with running(stage=RETRY, streams=True) as engine, Client(engine) as client:
        worker = Worker(engine, stream)
        client.send(request(b'"silent"', headers="connection: close\r\n"))
        assert worker.said() == b"in forward"
        worker.kill()
        assert worker.ended() == 0
        again = Worker(engine, stream, incarnation=2)
        assert again.said() == b"in forward"
        again.kill()
        assert again.ended() == 1
        assert b"the worker process died" in receive_all(client.socket)
