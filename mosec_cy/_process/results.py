"""What comes of `forward`: results, events, and errors.

Coroutines are run, on an event loop that lives as long as the worker; generators are events or results, batches are
checked; an exception becomes one answer, or all.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import UserString
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterator, Mapping, Set
from itertools import islice
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from mosec_cy._base.mistakes import MissingResultsError, ResultError
from mosec_cy._process import codings
from mosec_cy.errors import MosecError, MosecTimeoutError

if TYPE_CHECKING:
    import asyncio

Send = Callable[[str, int], bool]
"""Sends an event to the client of an item of the batch; False: that client wants no more."""

FINISHED: set[type] = {type(None), bool, int, float, str, bytes, bytearray, memoryview, dict, list, tuple}
"""Types of results of one item with which there is nothing left to do: no coroutines, generators and errors. `finish`
adds those that it meets, so that a look at the type is all that such a result costs."""

_NO_BATCH = (str, bytes, bytearray, memoryview, UserString, Mapping, Set)
_OF_RECORDS = ("columns", "model_fields", "__fields__")  # data frames, models of pydantic: they iterate over fields
_OUTCOMES = "it must return a list of tuples (done, output), one for each state, in their order"
_KNOWN_TYPES = 100  # at most in FINISHED, which keeps them alive
_COUNTED = 1000  # results beyond those of the batch; what goes on may have no end


def finish(returned: Any, size: int | None, send: Send | None) -> Any:
    """Do what is left to do after `forward` has returned: run a coroutine, send the events of a generator.

    Args:
        returned: a coroutine is run on the worker's event loop.
        size: length of the batch that `forward` got; None: it got one item, and not a list.
        send: where the events go that a generator yields; None: the worker does not stream here.

    Returns:
        What the coroutine, or the generator, returned; else `returned` itself.

    Raises:
        ResultError: a generator yielded what is no event.
        MosecTimeoutError, and whatever the user's code raises.
    """
    while hasattr(type(returned), "__await__"):
        returned = run_coroutine(returned)
    if isinstance(returned, (Iterator, AsyncIterable)):
        return returned if send is None else _send_all(returned, _emitter(size, send))
    if len(FINISHED) < _KNOWN_TYPES and not isinstance(returned, (BaseException, type)):
        FINISHED.add(type(returned))
    return returned


def as_batch(value: Any, size: int) -> list[Any]:
    """The results of a batch as a list of `size`. Raises ResultError or MissingResultsError for anything else."""
    if type(value) is not list:
        value = _listed(value, size + _COUNTED)
    if len(value) != size:
        raise MissingResultsError(f"forward returned {len(value)} results for a batch of {size}")
    return value


def as_outcomes(value: Any, size: int) -> list[tuple[bool, Any]]:
    """What `step` has returned for a batch of `size`: of each item whether it is done, and its output.

    One whose output is an error is done. Raises ResultError or MissingResultsError for anything else.
    """
    if not isinstance(value, (list, tuple)):
        raise ResultError(f"step returned {type(value).__name__}: {_OUTCOMES}")
    if len(value) != size:
        raise MissingResultsError(f"step returned {len(value)} results for {size} states")
    outcomes = []
    for outcome in value:
        if type(outcome) is not tuple or len(outcome) != 2:
            raise ResultError(f"step returned {_shown(outcome)} for a state: {_OUTCOMES}")
        done, output = outcome
        outcomes.append((bool(done) or error_in_place(output) is not None, output))
    return outcomes


def as_ends(value: Any, size: int) -> list[Any]:
    """How the streams of a batch end, each by an error or None. What is no list with errors in it is ignored."""
    if not isinstance(value, (list, tuple)):
        return [None] * size
    if any(is_unfinished(end) or isinstance(end, (Iterator, AsyncIterable)) for end in value):
        raise ResultError(
            "forward returned a generator for each item of a batch of streams, which would be left unread: it must "
            "itself yield tuples (index, text), of all items"
        )
    return list(value) if len(value) == size else [None] * size


def is_unfinished(result: Any) -> bool:
    """Whether a result is a generator or a coroutine, which no codec can encode."""
    return isinstance(result, (GeneratorType, AsyncGeneratorType, CoroutineType))


def unfinished(result: Any) -> ResultError:
    """What is told of such a result."""
    return ResultError(
        f"a result of forward is a {type(result).__name__}, which cannot be sent: a worker that streams is derived "
        "from SSEWorker and is the last stage of its route; the results of others must be complete"
    )


# ---- batches ---------------------------------------------------------------------------------------


def _no_batch(value: Any) -> str:
    kind = f"{type(value).__name__}{' of no dimension' if getattr(value, 'ndim', None) == 0 else ''}"
    return (
        f"forward returned {kind} for a batch: with max_batch_size > 1 it must return a list of "
        "results (or a tuple, array or iterator), one for each item, in their order"
    )


def _listed(value: Any, most: int) -> list[Any]:
    """The first elements of a sequence, array or iterator of any kind, up to `most`."""
    if isinstance(value, _NO_BATCH) or any(hasattr(type(value), name) for name in _OF_RECORDS):
        raise ResultError(_no_batch(value))
    if isinstance(value, AsyncIterable):
        return run_coroutine(_gathered(value, most))
    try:
        iterator = iter(value)
    except TypeError:
        raise MissingResultsError(_no_batch(value)) from None
    results = list(islice(iterator, most))
    if isinstance(iterator, Generator):
        iterator.close()
    return results


async def _gathered(source: AsyncIterable[Any], most: int) -> list[Any]:
    results: list[Any] = []
    await _each(source, lambda result: results.append(result) or len(results) < most)  # type: ignore[func-returns-value]
    return results


# ---- events ----------------------------------------------------------------------------------------


def _send_all(source: Any, emit: Callable[[Any], bool]) -> Any:
    """Send what a generator yields as long as a client wants it. Returns what it returned; it is closed in the end."""
    if isinstance(source, AsyncIterable):
        return run_coroutine(_each(source, emit))
    try:
        while emit(next(source)):
            pass
    except StopIteration as end:
        return end.value
    finally:
        if isinstance(source, Generator):
            source.close()


async def _each(source: AsyncIterable[Any], take: Callable[[Any], bool]) -> None:
    iterator = aiter(source)
    try:
        async for value in iterator:
            if not take(value):
                break
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


def _emitter(size: int | None, send: Send) -> Callable[[Any], bool]:
    """Takes what a generator yields; False: it may end."""
    if size is None:
        return lambda event: send(_text(event), 0)
    left: set[int] = set()

    def emit(event: Any) -> bool:
        if not isinstance(event, tuple) or len(event) != 2 or not hasattr(type(event[0]), "__index__"):
            raise ResultError(
                f"with max_batch_size > 1 `forward` must yield tuples (index, text), but yielded {_shown(event)}"
            )
        index, text = event
        if not 0 <= index < size:
            raise ResultError(f"forward yielded an event for index {index} of a batch of {size}")
        if not send(_text(text), index):
            left.add(int(index))
        return len(left) < size

    return emit


def _text(event: Any) -> str:
    if not isinstance(event, str):
        raise ResultError(f"forward must yield events as str, but yielded {_shown(event)}")
    return event


def _shown(event: Any) -> str:
    return f"{event!r:.100} ({type(event).__name__})" if isinstance(event, (tuple, list)) else type(event).__name__


# ---- coroutines ------------------------------------------------------------------------------------


class _EventLoop:
    """Of this process."""

    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Any] | None = None  # that `run_coroutine` waits for
    overdue = False  # and that was cancelled for it


def prepare_event_loop(worker: type) -> None:
    """Make the loop before the worker's `__init__`, which may ask for it, if its `forward` needs one."""
    forward = getattr(worker, "forward", None)
    if inspect.iscoroutinefunction(forward) or inspect.isasyncgenfunction(forward):
        _event_loop()


def run_coroutine(awaitable: Awaitable[Any]) -> Any:
    """What the awaitable gives in the end.

    Raises:
        MosecTimeoutError: it was cancelled by `interrupt_coroutine`.
    """
    loop = _event_loop()
    from asyncio import CancelledError  # loaded with the loop

    task = _EventLoop.task = loop.create_task(_awaited(awaitable))
    try:
        return loop.run_until_complete(task)
    except CancelledError:
        if _EventLoop.overdue:
            raise MosecTimeoutError("`forward` timeout") from None
        raise
    finally:
        if not task.done():  # an exception of a signal handler came between its steps
            task.cancel()
            with contextlib.suppress(CancelledError):
                loop.run_until_complete(task)
        _EventLoop.task, _EventLoop.overdue = None, False


def interrupt_coroutine() -> bool:
    """For a signal handler: cancels what `run_coroutine` waits for.

    Returns:
        False if user code runs at this moment: an exception that the handler raises gets to it. (Raised between the
        steps of a task it would get to the loop.)
    """
    loop, task = _EventLoop.loop, _EventLoop.task
    if loop is None or task is None or not loop.is_running():
        return False
    from asyncio import current_task

    current = current_task(loop)
    if current is task:
        return False
    _EventLoop.overdue = True
    task.cancel()  # now: its next step may be due already, and not come back
    loop.call_soon_threadsafe(_wake)
    return current is None


def _wake() -> None:
    """Called on the loop, so that it sleeps no longer."""


def close_event_loop() -> None:
    """End what still runs on the loop, and the loop."""
    loop, _EventLoop.loop = _EventLoop.loop, None
    if loop is None:
        return
    from asyncio import all_tasks, gather

    tasks = all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _event_loop() -> asyncio.AbstractEventLoop:
    if _EventLoop.loop is None:
        import asyncio

        _EventLoop.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_EventLoop.loop)
    return _EventLoop.loop


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


# ---- errors ----------------------------------------------------------------------------------------

INTERNAL_ERROR = "inference internal error"
FATAL = (SystemExit, KeyboardInterrupt)
"""What ends a worker process, as it ends any program. All else that is raised fails what was being worked on, also
from outside `Exception`: a library's way to cancel (`asyncio.CancelledError`) is no reason to load a model again."""


def answer_for(error: BaseException) -> tuple[int, str]:
    """HTTP status and text with which an exception of user code answers a request."""
    if isinstance(error, codings.BodyTooLarge):
        return error.code, error.msg
    if isinstance(error, (MosecError, MosecTimeoutError)):
        try:
            status = int(error.code) if 400 <= error.code <= 599 else 500
            return status, f"{error.msg}: {str(error) or error.msg}".replace("\n", " - ")
        except FATAL:
            raise
        except BaseException:  # a class of the user's may have any attributes
            return 500, INTERNAL_ERROR
    return 500, INTERNAL_ERROR


def error_in_place(value: Any) -> BaseException | None:
    """The error that `forward` has returned in the place of an item's result; None: it is a result.

    As after `raise`, a class stands for an instance made without arguments.
    """
    if isinstance(value, BaseException):
        return value
    if isinstance(value, type) and issubclass(value, BaseException):
        try:
            return value()
        except Exception as error:
            return error
    return None
