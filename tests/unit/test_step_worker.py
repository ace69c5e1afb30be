"""Workers that work by `start` and `step`: what is refused, what is told to core, and their examples."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mosec_cy import Runtime, SSEWorker, StepWorker, ValidationError
from mosec_cy._base.mistakes import MissingResultsError, ResultError
from mosec_cy._codecs.annotations import ParseTarget, forward_type
from mosec_cy._config.options import Options
from mosec_cy._config.plan import make_plan
from mosec_cy._master.welcome import block
from mosec_cy._process.dry_run import try_forward
from mosec_cy._process.results import as_outcomes


class Countdown(StepWorker):
    example = 3

    def start(self, item: int) -> list[int]:
        return [item]

    def step(self, states: list[list[int]]) -> list[tuple[bool, str]]:
        for state in states:
            state[0] -= 1
        return [(state[0] == 0, "go") for state in states]


class Streamed(Countdown, SSEWorker):
    pass


class WithForward(Countdown):
    def forward(self, data: Any) -> Any:
        return data


class NoStep(StepWorker):
    def start(self, item: Any) -> Any:
        return item


class AsyncStart(Countdown):
    async def start(self, item: Any) -> Any:  # type: ignore[override]
        await asyncio.sleep(0)


class AsyncStep(Countdown):
    async def step(self, states: Any) -> Any:
        await asyncio.sleep(0)


class GeneratorStep(Countdown):
    def step(self, states: Any) -> Any:
        yield states


class LoneStep(Countdown):
    def step(self) -> Any:  # type: ignore[override]
        return []


@pytest.mark.parametrize(
    ("worker", "complaint"),
    [
        (WithForward, "WithForward must not define forward: a StepWorker works by start and step"),
        (NoStep, "worker NoStep must define step"),
        (AsyncStart, "AsyncStart.start must be a plain function, but is defined by `async def`"),
        (AsyncStep, "AsyncStep.step must be a plain function, but is defined by `async def`"),
        (GeneratorStep, "GeneratorStep.step must return a list of tuples .done, output., but has `yield`"),
        (LoneStep, "LoneStep.step must take one argument beside self, the list of the states"),
    ],
)
def test_classes_that_cannot_be_served(worker: type[StepWorker], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        Runtime(worker)


def test_nobody_waits_for_a_batch() -> None:
    with pytest.raises(ValueError, match="max_wait_time must be left out for Countdown"):
        Runtime(Countdown, max_batch_size=4, max_wait_time=5)


@pytest.mark.parametrize("arguments", [{"cost": "bytes"}, {"max_batch_cost": 10}])
def test_a_running_batch_has_no_costs(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cost and max_batch_cost must be left out for Countdown"):
        Runtime(Countdown, max_batch_size=4, **arguments)


def test_what_core_and_the_user_are_told() -> None:
    plan = make_plan({"/a": [Runtime(Countdown, max_batch_size=4)], "/b": [Runtime(Streamed, max_batch_size=4)]})
    _, *stages = plan.stage_configs(Options())
    assert [(stage.joins, stage.max_batch_size, stage.max_wait_ns) for stage in stages] == [(True, 4, 0)] * 2
    assert [route.streams for route in plan.route_configs()[:2]] == [False, True]
    assert plan.content_types[-2:] == ("image/png", "text/event-stream")
    told = block(plan, Options(), "127.0.0.1:8000")
    assert "Countdown × 1 (up to 4 at a time)" in told
    assert "curl -d 3 http" in told


@pytest.mark.parametrize("worker", [Countdown, Streamed])
def test_an_example_goes_from_its_start_to_its_end(worker: type[StepWorker]) -> None:
    assert try_forward(worker(), 3, last=True) == ["go"]


def test_an_example_without_end() -> None:
    with pytest.raises(RuntimeError, match="an example of Countdown was not done after 10000 steps"):
        try_forward(Countdown(), -1, last=True)


@pytest.mark.parametrize("batched", [False, True])
def test_one_item_is_what_start_takes(batched: bool) -> None:
    assert forward_type(Countdown, ParseTarget.INPUT, batched) is int
    assert forward_type(Countdown, ParseTarget.RETURN, batched) is Any


def test_forward_says_what_is_in_its_place() -> None:
    with pytest.raises(TypeError, match="Countdown is a StepWorker, which works by start and step"):
        Countdown().forward(1)


def test_outcomes() -> None:
    error = ValidationError("x")
    assert as_outcomes([(0, None), (1, "a"), (False, error)], 3) == [(False, None), (True, "a"), (True, error)]
    assert as_outcomes(((True, 1),), 1) == [(True, 1)]
    for wrong in (None, {}, 1, iter([(True, 1)])):
        with pytest.raises(ResultError, match=f"step returned {type(wrong).__name__}: it must return a list of tuples"):
            as_outcomes(wrong, 1)
    for wrong in (True, (True,), [True, 1], (True, 1, 2)):
        with pytest.raises(ResultError, match="for a state: it must return a list of tuples"):
            as_outcomes([wrong], 1)
    with pytest.raises(MissingResultsError, match="step returned 1 results for 2 states"):
        as_outcomes([(True, 1)], 2)
