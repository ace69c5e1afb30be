"""A task's way through the stages: hand-over, batches, capacity, clients that leave."""

from typing import Any

import pytest

from tests.engine import CONTENT_TYPES
from tests.http_client import Client, clients
from tests.interop.slots import BYTES, JSON, TEXT, running, stopped

FULL = b"too many request: task queue is full"


def test_a_result_goes_on_to_the_next_stage() -> None:
    with running(stages=3) as engine, Client(engine) as client:
        first, second, third = (engine.channel(slot) for slot in (1, 2, 3))
        client.send_post(b"question")
        [item] = first.take()
        assert bytes(item) == b"question"
        assert (item.is_first, item.is_last) == (True, False)
        first.publish_pickle(item, {"n": 1})
        [item] = second.take()
        assert second.load_pickle(item) == {"n": 1}
        assert (item.is_first, item.is_last) == (False, False)
        second.publish(item, [b"as it is"], 0, TEXT)
        [item] = third.take()
        assert bytes(item) == b"as it is"
        assert (item.is_first, item.is_last) == (False, True)
        third.publish(item, [b"answer"], 0, JSON)
        assert client.outcome() == (200, b"answer")


def test_an_empty_result_goes_on_too() -> None:
    with running(stages=2) as engine, Client(engine) as client:
        first, second = engine.channel(1), engine.channel(2)
        client.send_post(b"x")
        first.publish(first.take()[0], [b""], 0, TEXT)
        [item] = second.take()
        assert (len(item), bytes(item)) == (0, b"")
        second.publish(item, [b""], 0, BYTES)
        assert client.outcome() == (200, b"")


def test_an_error_skips_the_stages_that_are_left() -> None:
    with running(stages=2) as engine, Client(engine) as client:
        first, second = engine.channel(1), engine.channel(2)
        client.send_post(b"wrong")
        first.answer(first.take()[0], 422, b"no")
        assert client.outcome() == (422, b"no")
        client.send_post(b"right")
        first.publish(first.take()[0], [b"on"], 0, TEXT)
        [item] = second.take()
        assert bytes(item) == b"on"
        second.publish(item, [b"done"], 0, TEXT)
        assert client.outcome() == (200, b"done")


@pytest.mark.parametrize("content_type", [TEXT, JSON, BYTES])
def test_content_types(content_type: int) -> None:
    with running() as engine, engine.worker(lambda channel, item: channel.publish(item, [b"x"], 0, content_type)):
        _, headers, _ = engine.post(b"x")
        assert headers["content-type"] == CONTENT_TYPES[content_type]


def test_what_waits_together_is_one_batch() -> None:
    stage = {"max_batch_size": 4, "max_wait_ns": 10_000_000_000}
    with running(stage=stage) as engine, clients(engine, 4) as four:
        channel = engine.channel()
        for number, client in enumerate(four):
            client.send_post(b"%d" % number)
        items = channel.take()
        assert sorted(bytes(item) for item in items) == [b"0", b"1", b"2", b"3"]
        for item in reversed(items):  # in any order
            channel.publish(item, [b"re: " + bytes(item)], 0, TEXT)
        assert [client.outcome() for client in four] == [(200, b"re: %d" % number) for number in range(4)]


def test_a_lone_request_waits_no_longer_than_it_must() -> None:
    stage = {"max_batch_size": 4, "max_wait_ns": 20_000_000}
    with running(stage=stage) as engine, Client(engine) as client:
        channel = engine.channel()
        client.send_post(b"alone")
        [item] = channel.take()
        channel.publish(item, [b"x"], 0, TEXT)
        assert client.outcome() == (200, b"x")
        assert engine.segment.stats()["slots"][1]["batch_size"]["buckets"][0] == 1


def test_capacity_counts_what_waits_and_not_what_runs() -> None:
    with running(capacity=3) as engine, clients(engine, 4) as accepted, Client(engine) as refused:
        channel = engine.channel()
        accepted[0].send_post(b"runs")
        [running_item] = channel.take()
        for client in accepted[1:]:
            client.send_post(b"waits")
        engine.wait_until(lambda stats: stats["remaining"] == 4)
        # At the head: the body of a mebibyte is never sent.
        refused.send(b"POST /inference HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n")
        assert refused.outcome() == (429, FULL)
        channel.publish(running_item, [b"done"], 0, TEXT)
        for _ in range(3):
            [item] = channel.take()
            channel.publish(item, [b"done"], 0, TEXT)
        assert [client.outcome() for client in accepted] == 4 * [(200, b"done")]
        with Client(engine) as late:  # there is room again
            late.send_post(b"x")
            channel.publish(channel.take()[0], [b"y"], 0, TEXT)
            assert late.outcome() == (200, b"y")


def test_capacity_when_bodies_come_late() -> None:
    """Both were let in at the head, but only one can wait: the other is told when its body is complete."""
    with running(capacity=1) as engine, clients(engine, 2) as two:
        for client in two:
            client.send(b"POST /inference HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
        engine.wait_until(lambda stats: stats["charged"] == 2 * 1024)
        for client in two:
            client.send(b"cd")
            engine.wait_until(lambda stats: stats["remaining"] == 1)
        assert two[1].outcome() == (429, FULL)
        channel = engine.channel()
        channel.publish(channel.take()[0], [b"x"], 0, TEXT)
        assert two[0].outcome() == (200, b"x")


def test_who_leaves_the_queue_is_never_run() -> None:
    with running(capacity=2) as engine, clients(engine, 3) as three:
        for number, client in enumerate(three[:2]):
            client.send_post(b"%d" % number)
            engine.wait_until(lambda stats, number=number: stats["remaining"] == number + 1)
        three[0].reset()
        engine.wait_until(lambda stats: stats["remaining"] == 1)
        three[2].send_post(b"2")  # its place is free
        channel = engine.channel()
        for number in (1, 2):
            [item] = channel.take()
            assert bytes(item) == b"%d" % number
            channel.publish(item, [b"x"], 0, TEXT)
            assert three[number].outcome() == (200, b"x")
        assert engine.segment.stats()["late"] == 0


@pytest.mark.parametrize("stages", [1, 2])
def test_who_leaves_while_it_runs_is_flagged_and_its_result_dropped(stages: int) -> None:
    with running(stages=stages) as engine, Client(engine) as stays:
        channel = engine.channel(1)
        leaves = Client(engine).send_post(b"leaves")
        [item] = channel.take()
        assert not channel.is_cancelled(item)
        leaves.reset()
        engine.wait_until(lambda stats: channel.is_cancelled(item))
        assert engine.segment.blocks()[0] == 1  # the slot may still look
        channel.publish(item, [b"late"], 0, TEXT)
        engine.wait_until(lambda stats: stats["late"] == 1)
        stays.send_post(b"stays")
        [item] = channel.take()
        assert not channel.is_cancelled(item)
        channel.publish(item, [b"x"], 0, TEXT)
        if stages == 2:
            second = engine.channel(2)
            [item] = second.take()  # nothing of the one who left came this far
            assert bytes(item) == b"x"
            second.publish(item, [b"x"], 0, TEXT)
        assert stays.outcome() == (200, b"x")


def test_no_slot_for_another_task() -> None:
    with running(max_tasks=2) as engine, clients(engine, 2) as two, Client(engine) as third:
        for client in two:
            client.send_post(b"x")
        engine.wait_until(lambda stats: stats["remaining"] == 2)
        assert third.post(b"x").status == 503
        channel = engine.channel()
        for _ in two:
            channel.publish(channel.take()[0], [b"y"], 0, TEXT)
        assert [client.outcome() for client in two] == 2 * [(200, b"y")]


def test_answers_never_outnumber_their_ring() -> None:
    """However fast a slot is while core looks elsewhere: what core dispatches fits the ring of answers."""

    def echo(channel: Any, item: Any) -> None:
        channel.publish(item, [bytes(item)], 0, BYTES)

    with running(capacity=4096) as engine, clients(engine, 600) as many, engine.worker(echo):
        for _ in range(3):
            with stopped(engine):  # so that it finds them all at once
                for number, client in enumerate(many):
                    client.send_post(b"%d" % number)
            for number, client in enumerate(many):
                assert client.outcome() == (200, b"%d" % number)
