"""Requests join a running batch and leave it one by one, in a real service. Tests let each step go on."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.accounting import memory_of
from tests.http_client import Client, clients
from tests.interop.core_deaths import BACK, kill_core
from tests.interop.stepped import PATIENT, Stepped, answered, start, stepped
from tests.interop.streams import Reader
from tests.service import Serve, Service

DIED = (500, b"inference internal error: the worker process died")
INTERNAL = (500, b"inference internal error")
FOREVER = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def service(serve_module: Serve, folder: Path) -> Service:
    return start(serve_module, folder)


def error(text: str) -> bytes:
    return f"event: error\ndata: SSE inference error: {text}\n\n".encode()


def invalid(text: str) -> tuple[int, bytes]:
    return 422, f"request validation error: {text}".encode()


def test_a_short_request_overtakes_a_long_one(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Steps", 2) as (stage, (long, short)):
        stage.send(long, "long", 5)
        stage.steps("long:0")
        stage.send(short, "short", 1)
        stage.step(2)
        stage.steps("long:1 short:0", "long:2")
        assert short.outcome() == answered("short")
        assert not long.readable()
        stage.step(3)
        assert long.outcome() == answered("long")
        stage.steps("long:3", "long:4")


def test_a_free_place_is_filled(service: Service, folder: Path) -> None:
    """Before the next step, or before the one after: core hears of the place while the next one begins."""
    with stepped(service, folder, "Steps", 6) as (stage, some):
        stage.send(some[0], "a", FOREVER)
        begun = [stage.next()]
        for client, (name, steps) in zip(some[1:], zip("bcdef", (1, 2, 1, 1, 1), strict=True), strict=True):
            stage.send(client, name, steps)
        while "f:0" not in begun[-1]:
            stage.step()
            begun.append(stage.next())
        stage.step()
        stage.next()
        assert [client.outcome() for client in some[1:]] == [answered(name) for name in "bcdef"]
        stage.end(some[0])
        assert begun[:2] == ["a:0", "a:1 b:0 c:0"]
        started = [place for step in begun for place in step.split() if place.endswith(":0")]
        assert started == [f"{name}:0" for name in "abcdef"]
        assert max(len(step.split()) for step in begun) == 3
        assert len(begun) <= 8


def test_a_stage_of_one_place(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Single", 2) as (stage, (first, second)):
        stage.send(first, "first", 2)
        stage.send(second, "second", 1)
        stage.step(3)
        stage.steps("first:0", "first:1", "second:0")
        assert (first.outcome(), second.outcome()) == (answered("first"), answered("second"))


@pytest.mark.parametrize("bad", ["start", "output", "encode"])
def test_one_item_fails_alone(service: Service, folder: Path, bad: str) -> None:
    with stepped(service, folder, "Steps", 3) as (stage, (good, failing, another)):
        stage.send(good, "good", 3)
        stage.steps("good:0")
        stage.send(failing, "failing", 1, bad=bad)
        stage.send(another, "another", 2)
        stage.step(3)
        status, text = failing.outcome()
        if bad == "encode":
            assert (status, text.startswith(b"encoding error: ")) == (500, True)
        else:
            assert (status, text) == invalid(bad)
        both = "good:1 another:0" if bad == "start" else "good:1 failing:0 another:0"
        stage.steps(both, "good:2 another:1")
        assert (good.outcome(), another.outcome()) == (answered("good"), answered("another"))


def test_one_item_cannot_be_decoded(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Steps", 2) as (stage, (good, failing)):
        stage.send(good, "good", 2)
        stage.steps("good:0")
        failing.send_post(b"{", stage.route)
        stage.wait_inside(2)
        stage.step(2)
        status, text = failing.outcome()
        assert (status, text.startswith(b"decoding error: ")) == (400, True)
        assert good.outcome() == answered("good")
        stage.steps("good:1")


WRONG = {"list": "step returned dict", "pair": "step returned bool", "states": "step has left 3 of 2 states"}


@pytest.mark.parametrize("bad", ["step", "broken step", "length", *WRONG])
def test_a_step_that_fails_is_everybodys(service: Service, folder: Path, bad: str) -> None:
    with stepped(service, folder, "Steps", 4) as (stage, (good, failing, waiting, last)):
        stage.send(good, "good", 3)
        stage.steps("good:0")
        stage.send(failing, "failing", 2, bad=bad)
        stage.step()
        stage.steps("good:1 failing:0")
        stage.send(waiting, "waiting", 1)
        stage.step()
        for client in (good, failing):
            status, text = client.outcome()
            if bad == "step":
                assert (status, text) == invalid("step")
            elif bad in WRONG:
                assert (status, WRONG[bad].encode() in text) == (500, True)
            else:
                assert (status, text) == INTERNAL
        if bad == "length":
            service.wait_output("<Steps_1.1> step returned 1 results for 2 states")
        stage.steps("waiting:0")  # the worker goes on, without them
        stage.step()
        assert waiting.outcome() == answered("waiting")
        stage.send(last, "last", 1)
        stage.step()
        stage.steps("last:0")
        assert last.outcome() == answered("last")


@pytest.mark.parametrize("how", ["leave", "reset"])
def test_who_leaves_is_in_no_further_step(service: Service, folder: Path, how: str) -> None:
    with stepped(service, folder, "Steps", 5) as (stage, (good, gone, third, fourth, fifth)):
        stage.send(good, "good", FOREVER)
        stage.steps("good:0")
        stage.send(gone, "gone", FOREVER)
        stage.send(third, "third", 2)
        stage.send(fourth, "fourth", 1)  # has no place yet
        stage.send(fifth, "fifth", 1)
        stage.step()
        stage.steps("good:1 gone:0 third:0")
        getattr(fifth, how)()  # waits
        getattr(gone, how)()
        stage.wait_inside(3)
        stage.step()
        assert stage.next() in ("good:2 third:1", "good:2 third:1 fourth:0")
        while not (third.readable(0.01) and fourth.readable(0.01)):
            stage.step()
            assert "gone" not in stage.next()
        assert (third.outcome(), fourth.outcome()) == (answered("third"), answered("fourth"))
        stage.end(good)


@pytest.mark.parametrize("route", ["Steps", "Retried"])
def test_a_worker_dies_in_a_step(service: Service, folder: Path, route: str) -> None:
    with stepped(service, folder, route, 4) as (stage, (good, deadly, third, waiting)):
        stage.send(good, "good", 2)
        stage.steps("good:0")
        stage.send(deadly, "deadly", 2, bad="dies")
        stage.send(third, "third", 5)
        stage.send(waiting, "waiting", 1)
        stage.step()
        stage.steps("good:1 deadly:0 third:0")
        stage.step()
        if route == "Retried":  # each alone, in the order in which they came
            stage.steps("good:0")
            stage.step(2)
            assert good.outcome() == answered("good")
            stage.steps("good:1", "deadly:0")
            stage.step()
            assert deadly.outcome() == DIED
            stage.steps("third:0")
            stage.step(5)
            assert third.outcome() == answered("third")
            stage.steps("third:1", "third:2", "third:3", "third:4")
        else:
            assert [client.outcome() for client in (good, deadly, third)] == [DIED] * 3
        stage.steps("waiting:0")
        stage.step()
        assert waiting.outcome() == answered("waiting")


def test_a_step_that_overruns_is_everybodys(service: Service, folder: Path) -> None:
    """The time-out is that of one step, and no item's whole life."""
    with stepped(service, folder, "Overdue", 5) as (stage, (lives, first, second, hanging, waiting)):
        stage.post(lives, "lives", 1500)  # longer than the time-out
        assert lives.outcome() == answered("lives")
        stage.send(first, "first", FOREVER)
        stage.send(second, "second", FOREVER)
        stage.send(hanging, "hanging", FOREVER, bad="step hangs")
        stage.send(waiting, "waiting")  # there is no place
        overdue = (408, b"mosec timeout error: `step` timeout")
        assert [client.outcome() for client in (first, second, hanging)] == [overdue] * 3
        assert waiting.outcome() == answered("waiting")


def test_a_start_that_overruns_is_its_items(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Overdue", 3) as (stage, (good, hanging, last)):
        stage.send(good, "good", 2000)
        stage.send(hanging, "hanging", bad="start hangs")
        assert hanging.outcome() == (408, b"mosec timeout error: `start` timeout")
        assert good.outcome() == answered("good")
        stage.post(last, "last")
        assert last.outcome() == answered("last")


def test_the_time_of_a_request_is_bounded(serve: Serve, tmp_path: Path) -> None:
    service = start(serve, tmp_path, "--timeout", "500")
    with stepped(service, tmp_path, "Overdue", 2) as (stage, (first, second)):
        stage.send(first, "first", FOREVER)
        assert first.outcome() == (408, b"inference timeout")
        stage.post(second, "second")
        assert second.outcome() == answered("second")


def test_a_stage_in_the_middle_of_a_pipeline(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Middle", 3) as (stage, (long, short, another)):
        stage.route = "/pipeline"
        stage.send(long, "long", FOREVER)
        stage.steps("long+:0")
        stage.send(short, "short", 1)
        while not short.readable(0.01):  # the stage before has to do its part first
            stage.step()
            stage.next()
        assert short.outcome() == answered("<short+>")
        stage.end(long)
        stage.send(another, "another", 2)
        stage.step(2)
        assert another.outcome() == answered("<another+>")


def test_a_body_that_is_checked_by_the_annotation_of_start(service: Service) -> None:
    with service.client() as client:
        answer = client.post("/typed", json={"count": 5})
        assert (answer.status_code, answer.json()) == (200, 1)
        answer = client.post("/typed", json={"count": "5"})
        assert (answer.status_code, "count" in answer.text) == (422, True)
        schema = client.get("/openapi/metadata.json").json()
        body = schema["paths"]["/typed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/Count"}


# ---- streams ---------------------------------------------------------------------------------------


def events(client: Client) -> bytes:
    """All of an answer that is a stream."""
    stream = Reader(client.socket)
    stream.rest = client.rest
    assert stream.answer().status == 200
    return re.sub(rb"(?m)^:.*\n\n", b"", stream.rest_of_stream())  # comments keep a slow test alive


def test_streams_of_a_running_batch(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Streams", 3) as (stage, (long, short, failing)):
        stage.send(long, "long", 4)
        stage.steps("long:0")
        stage.send(short, "short", 2)
        stage.send(failing, "failing", 9, bad="output")
        stage.step()
        stage.steps("long:1 short:0 failing:0")
        stage.step()
        stage.steps("long:2 short:1")
        assert events(failing) == b"data: failing:1\n\n" + error(
            "422: Unprocessable Content: request validation error: output"
        )
        stage.step()
        stage.steps("long:3")
        assert events(short) == b"data: short:1\n\ndata: short:2\n\n"
        stage.step()
        assert events(long) == b"".join(b"data: long:%d\n\n" % number for number in range(1, 5))


def test_a_step_that_fails_ends_all_streams(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Streams", 2) as (stage, (first, failing)):
        stage.send(first, "first", 4)
        stage.steps("first:0")
        stage.send(failing, "failing", 4, bad="step")
        stage.step(2)
        told = error("422: Unprocessable Content: request validation error: step")
        assert events(first) == b"data: first:1\n\ndata: first:2\n\n" + told
        assert events(failing) == told
        stage.steps("first:1 failing:0")


def test_a_stream_whose_client_leaves(service: Service, folder: Path) -> None:
    with stepped(service, folder, "Streams", 2) as (stage, (first, gone)):
        stage.send(first, "first", 4)
        stage.steps("first:0")
        stage.send(gone, "gone", FOREVER)
        stage.step()
        stage.steps("first:1 gone:0")
        gone.reset()
        stage.wait_inside(1)
        stage.step()
        stage.steps("first:2")
        service.wait_output("^refused gone$")
        stage.step(2)
        stage.steps("first:3")
        assert events(first).count(b"data") == 4


def test_a_reader_that_is_too_slow_holds_nobody_up(service: Service, folder: Path) -> None:
    """Also where its stream is alone: others may join."""
    with stepped(service, folder, "Streams", 2) as (stage, (slow, quick)):
        stage.send(slow, "slow", FOREVER, bytes=900_000)
        news = r"^(Streams step|refused) slow"
        begun = sum(re.match(news, line) is not None for line in service.lines)
        while "refused slow" not in service.lines:
            begun += 1
            service.wait_outputs(news, begun)
            stage.step()
        stage.wait_inside(0)
        stage.post(quick, "quick")
        stage.step(2)  # a step of the slow one may have begun
        assert events(quick) == b"data: quick:1\n\n"


# ---- the end of processes --------------------------------------------------------------------------


def test_a_shutdown_finishes_what_is_inside(serve: Serve, tmp_path: Path) -> None:
    service = start(serve, tmp_path)
    with stepped(service, tmp_path, "Steps", 4) as (stage, some):
        for number, client in enumerate(some):
            stage.send(client, f"{number}", 2)
            if number == 0:
                stage.steps("0:0")
        service.signal(signal.SIGTERM)
        service.wait_output("SIGTERM")
        stage.step(5)  # one more, should the last have joined one later
        assert [client.outcome() for client in some] == [answered(f"{number}") for number in range(4)]
    assert service.wait_end() == 0


@pytest.mark.parametrize("mode", ["surge", "replace"])
def test_a_rolling_restart_finishes_what_is_inside(serve: Serve, tmp_path: Path, mode: str) -> None:
    service = start(serve, tmp_path, *PATIENT, "--rolling", mode)
    with stepped(service, tmp_path, "Steps", 3) as (stage, (inside, another, after)):
        stage.send(inside, "inside", 3)
        stage.steps("inside:0")
        stage.send(another, "another", 2)
        stage.step()
        stage.steps("inside:1 another:0")
        service.signal(signal.SIGHUP)
        if mode == "surge":
            service.wait_outputs(r"<Steps_1\|1> ready", 2)
        else:
            service.wait_output(r"rolling restart of \d+ workers begins")
        stage.step(2)
        assert (inside.outcome(), another.outcome()) == (answered("inside"), answered("another"))
        stage.steps("inside:2 another:1")
        stage.send(after, "after", 1)
        stage.steps("after:0")
        stage.step()
        assert after.outcome() == answered("after")


def test_core_dies_with_a_batch_inside(serve: Serve, tmp_path: Path) -> None:
    """The worker drops it before the next step, keeps its model, and serves the next core."""
    service = start(serve, tmp_path)
    segment = memory_of(service)
    with clients(service, 2) as (first, second):
        stage = Stepped(service, tmp_path, segment, "Steps")
        stage.send(first, "first", FOREVER)
        stage.steps("first:0")
        stage.send(second, "second", FOREVER)
        stage.step()
        stage.steps("first:1 second:0")
        before = service.wait_process("mosec_cy: Steps_1 [1]")
        kill_core(service)
        service.wait_output(BACK)
        segment.close()
    with stepped(service, tmp_path, "Steps", 1) as (stage, (third,)):
        stage.send(third, "third", 1)
        stage.step()  # what the dead core had dispatched
        stage.steps("third:0")
        stage.step()
        assert third.outcome() == answered("third")
        assert service.wait_process("mosec_cy: Steps_1 [1]") == before
