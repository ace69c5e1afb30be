"""The event loop that coroutines of workers run on, and how a signal ends what it waits for."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from mosec_cy import MosecTimeoutError
from mosec_cy._process import results
from mosec_cy._process.results import close_event_loop, interrupt_coroutine, prepare_event_loop, run_coroutine


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """A signal that does as that for a time-out does in a worker."""

    def on_overrun(number: int, frame: FrameType | None) -> None:
        if not interrupt_coroutine():
            raise MosecTimeoutError("raised in user code")

    previous = signal.signal(signal.SIGUSR1, on_overrun)
    yield
    signal.signal(signal.SIGUSR1, previous)
    close_event_loop()


async def answer() -> str:
    await asyncio.sleep(0)
    return "answer"


def interrupted(steps: list[str], at_work: bool) -> str:
    async def forward() -> None:
        try:
            if at_work:
                signal.raise_signal(signal.SIGUSR1)
            else:
                # The signal comes while this waits, and its next step is due already.
                asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGUSR1)
                await asyncio.sleep(0)
            steps.append("went on")
        finally:
            await asyncio.sleep(0)
            steps.append("ended")

    with pytest.raises(MosecTimeoutError) as caught:
        run_coroutine(forward())
    return str(caught.value)


def test_it_ends_where_it_works() -> None:
    steps: list[str] = []
    assert interrupted(steps, at_work=True) == "raised in user code"
    assert steps == ["ended"]
    assert run_coroutine(answer()) == "answer"


def test_it_ends_where_it_waits() -> None:
    steps: list[str] = []
    assert interrupted(steps, at_work=False) == "`forward` timeout"
    assert steps == ["ended"]
    assert run_coroutine(answer()) == "answer"


def test_it_ends_where_nothing_is_due() -> None:
    async def forward() -> None:
        asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGUSR1)
        await asyncio.Event().wait()

    with pytest.raises(MosecTimeoutError):
        run_coroutine(forward())


def test_it_ends_where_another_task_works() -> None:
    async def child() -> None:
        signal.raise_signal(signal.SIGUSR1)
        raise AssertionError("the time-out was raised here")

    async def forward() -> None:
        await asyncio.gather(child(), asyncio.Event().wait())

    with pytest.raises(MosecTimeoutError):
        run_coroutine(forward())
    assert run_coroutine(answer()) == "answer"


def test_a_cancellation_of_its_own_is_no_time_out() -> None:
    async def forward() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_coroutine(forward())


def test_nothing_is_interrupted_when_nothing_runs() -> None:
    assert run_coroutine(answer()) == "answer"
    assert interrupt_coroutine() is False


def test_what_is_left_behind_ends_with_the_worker() -> None:
    ended = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def forward() -> asyncio.Task[None]:
        task = asyncio.ensure_future(background())
        await asyncio.sleep(0)
        return task

    task = run_coroutine(forward())
    assert not task.done()
    close_event_loop()
    assert ended == [True]


def test_the_loop_is_made_before_an_asynchronous_worker() -> None:
    class Plain:
        def forward(self) -> None: ...

    class Asynchronous:
        async def forward(self) -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

    prepare_event_loop(Plain)
    assert results._EventLoop.loop is None
    prepare_event_loop(Asynchronous)
    loop = asyncio.get_event_loop()
    assert run_coroutine(Asynchronous().forward()) is loop
