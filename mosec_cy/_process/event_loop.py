"""The event loop of a worker process, for a `forward` that is a coroutine. It lives as long as the worker."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from mosec_cy.errors import MosecTimeoutError

if TYPE_CHECKING:
    import asyncio


class _Process:
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Any] | None = None  # that `run` waits for
    overdue = False  # and that was cancelled for it


def prepare(worker: type) -> None:
    """Make the loop before the worker's `__init__`, which may ask for it, if its `forward` needs one."""
    forward = getattr(worker, "forward", None)
    if inspect.iscoroutinefunction(forward) or inspect.isasyncgenfunction(forward):
        _started()


def run(awaitable: Awaitable[Any]) -> Any:
    """What the awaitable gives in the end.

    Raises:
        MosecTimeoutError: it was cancelled by `interrupt`.
    """
    loop = _started()
    from asyncio import CancelledError  # loaded with the loop

    task = _Process.task = loop.create_task(_awaited(awaitable))
    try:
        return loop.run_until_complete(task)
    except CancelledError:
        if _Process.overdue:
            raise MosecTimeoutError("`forward` timeout") from None
        raise
    finally:
        if not task.done():  # an exception of a signal handler came between its steps
            task.cancel()
            with contextlib.suppress(CancelledError):
                loop.run_until_complete(task)
        _Process.task, _Process.overdue = None, False


def interrupt() -> bool:
    """For a signal handler: cancels what `run` waits for.

    Returns:
        False if user code runs at this moment: an exception that the handler raises gets to it. (Raised between the
        steps of a task it would get to the loop.)
    """
    loop, task = _Process.loop, _Process.task
    if loop is None or task is None or not loop.is_running():
        return False
    from asyncio import current_task

    current = current_task(loop)
    if current is task:
        return False
    _Process.overdue = True
    task.cancel()  # now: its next step may be due already, and not come back
    loop.call_soon_threadsafe(_wake)
    return current is None


def _wake() -> None:
    """Called on the loop, so that it sleeps no longer."""


def close() -> None:
    """End what still runs on the loop, and the loop."""
    loop, _Process.loop = _Process.loop, None
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


def _started() -> asyncio.AbstractEventLoop:
    if _Process.loop is None:
        import asyncio

        _Process.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_Process.loop)
    return _Process.loop


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
