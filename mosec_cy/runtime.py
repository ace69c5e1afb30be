"""One stage as the user asked for it: the worker class and how it is to run."""

from __future__ import annotations

import inspect
import itertools
import pickle
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Literal

from mosec_cy._base import main_module
from mosec_cy._base.limits import LONGEST_MS
from mosec_cy._base.mistakes import OneSentence
from mosec_cy.log import get_logger
from mosec_cy.worker import BaseWorker, StepWorker, is_worker, steps, unused_codecs

StartMethod = Literal["spawn", "fork"]
Batching = Literal["auto", "static"]
Cost = Literal["count", "bytes", "previous"]

_MOST_RETRIES = 10
_MOST_BATCH_COST = 1 << 62
_numbers = itertools.count()


class Runtime:
    """One set of processes that run one worker class, with one queue of requests.

    Used in several routes (`Server.register_runtime`), it serves them all from that queue.

    Args:
        worker: a class derived from `Worker`.
        num: number of replicas, each a process; at least 1.
        max_batch_size: most items in one call of `forward`, or of `step`; at least 1.
        max_wait_time: how long an item waits for others at most, in ms; 0: the server's `--wait`, and without that
            as long as it pays. In a `StepWorker` none waits.
        timeout: limit on one call of `forward`, `start` or `step`, in s; 0: the server's `--timeout`.
        start_method: "spawn" (a fresh interpreter) or "fork" (a copy of this process).
        env: environment variables, one mapping for each replica, set before the replica imports anything.
        retry: how often a request is run again whose worker process has died under it, each time alone; 0 to 10.
        batching: "auto": size and wait of a batch are learnt, within `max_batch_size` and `max_wait_time`; "static": a
            batch closes when it is full or its first item has waited `max_wait_time` (10 ms without any). Default:
            "static" with a `max_wait_time` or `--wait`, else "auto".
        cost: what an item costs: "count" (1 each), "bytes" (of its payload), or "previous": what the method
            `cost(self, result) -> int` of the stage before says of that result (tokens, pixels). With costs, items of
            like cost share a batch, together with the one that has waited longest.
        max_batch_cost: most that the items of a batch cost together; one that costs more goes alone; 0: no limit.
        pad: a batch costs its number of items times the largest cost among them, as where inputs are padded.

    Raises:
        TypeError, ValueError: an argument is wrong; the message says what would be right.
    """

    def __init__(
        self,
        worker: type[BaseWorker],
        num: int = 1,
        max_batch_size: int = 1,
        max_wait_time: int = 0,
        timeout: float = 0,
        start_method: str = "spawn",
        env: Sequence[Mapping[str, str]] | None = None,
        retry: int = 0,
        batching: Batching | None = None,
        cost: Cost = "count",
        max_batch_cost: int = 0,
        pad: bool = False,
    ) -> None:
        with OneSentence():
            self.worker = _checked_class(worker)
            self.num = _checked_int("num", num, 1)
            self.max_batch_size = _checked_int("max_batch_size", max_batch_size, 1)
            self.max_wait_time = _checked_wait(max_wait_time, self.worker)
            self.timeout = _checked_timeout(timeout)
            self.start_method = _checked_start_method(start_method, self.worker)
            self.env = _checked_env(env, self.num)
            self.retry = _checked_retry(retry)
            self.batching = _checked_batching(batching)
            self.cost = _checked_cost(cost)
            _check_joins_by_count(self.worker, self.cost, max_batch_cost)
            self.max_batch_cost = _checked_batch_cost(max_batch_cost)
            self.pad = _checked_pad(pad, self.cost)
        self.order = next(_numbers)  # stages are numbered in the order in which their runtimes were made

    def __repr__(self) -> str:
        return f"Runtime({self.worker.__name__}, num={self.num}, max_batch_size={self.max_batch_size})"


def _checked_class(worker: object) -> type[BaseWorker]:
    if not isinstance(worker, type):
        raise TypeError(f"worker must be a class derived from mosec_cy.Worker (not an instance), but is {worker!r}")
    if not is_worker(worker):
        raise TypeError(f"worker must be derived from mosec_cy.Worker, but {worker.__qualname__} is not")
    if inspect.isabstract(worker):
        missing = ", ".join(sorted(getattr(worker, "__abstractmethods__", ())))
        raise TypeError(f"worker {worker.__qualname__} must define {missing}")
    if steps(worker):
        _check_steps(worker)
    else:
        _check_one_argument(worker, "forward", "data", "an item or with max_batch_size > 1 a list of items")
    if unused := ", ".join(unused_codecs(worker)):
        name = worker.__name__
        get_logger().warning(
            "%s is served without the codecs of %s, which stands after Worker: write class %s(%s, Worker)",
            name, unused, name, unused,
        )  # fmt: skip
    return worker


def _check_steps(worker: type[BaseWorker]) -> None:
    if inspect.getattr_static(worker, "forward") is not StepWorker.forward:
        raise TypeError(
            f"{worker.__qualname__} must not define forward: a StepWorker works by start and step, "
            "and a worker with forward is derived from Worker"
        )
    for name in ("start", "step"):
        method = getattr(worker, name)
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise TypeError(f"{worker.__qualname__}.{name} must be a plain function, but is defined by `async def`")
    if inspect.isgeneratorfunction(worker.step):  # type: ignore[attr-defined]
        raise TypeError(
            f"{worker.__qualname__}.step must return a list of tuples (done, output), but has `yield` in it and so "
            "returns a generator"
        )
    _check_one_argument(worker, "start", "item", "an item")
    _check_one_argument(worker, "step", "states", "the list of the states that start has returned")


def _check_one_argument(worker: type[BaseWorker], name: str, argument: str, what: str) -> None:
    """Raise TypeError if the method certainly does not take one argument."""
    method = inspect.getattr_static(worker, name)
    arguments = 1 if isinstance(method, staticmethod) else 2  # self or the class, and the data
    if isinstance(method, staticmethod | classmethod):
        method = method.__func__
    if not isinstance(method, FunctionType):  # a built-in, a partial, a descriptor: only a call would tell
        return
    signature = inspect.signature(method, follow_wrapped=False)  # a decorator's own function is called
    try:
        signature.bind(*range(arguments))
    except TypeError:
        raise TypeError(
            f"{worker.__qualname__}.{name} must take one argument beside self, {what}, "
            f"like `def {name}(self, {argument}):`, but is `def {name}{signature}:`"
        ) from None


def _checked_int(name: str, value: object, least: int, unit: str = "") -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int{unit}, but is {value!r} ({type(value).__name__})")
    if value < least:
        raise ValueError(f"{name} must be at least {least}{unit}, but is {value}")
    return value


def _checked_wait(value: object, worker: type[BaseWorker]) -> int:
    wait = _checked_int("max_wait_time", value, 0, " (ms; 0 means the server's --wait)")
    if wait > LONGEST_MS:
        raise ValueError(f"max_wait_time must be at most {LONGEST_MS} (ms), but is {wait}")
    if wait and steps(worker):
        raise ValueError(
            f"max_wait_time must be left out for {worker.__qualname__}: requests join the batch of a StepWorker at once"
        )
    return wait


def _checked_batching(value: object) -> Batching | None:
    if value is None or value == "auto":
        return "auto" if value else None
    if value != "static":
        raise ValueError(f'batching must be "auto" or "static", but is {value!r}')
    return "static"


def _checked_cost(value: object) -> Cost:
    if value == "bytes":
        return "bytes"
    if value == "previous":
        return "previous"
    if value != "count":
        raise ValueError(f'cost must be "count", "bytes" or "previous", but is {value!r}')
    return "count"


def _check_joins_by_count(worker: type[BaseWorker], cost: Cost, max_batch_cost: object) -> None:
    if steps(worker) and (cost != "count" or max_batch_cost):
        raise ValueError(
            f"cost and max_batch_cost must be left out for {worker.__qualname__}: "
            "the batch of a StepWorker is bounded by max_batch_size"
        )


def _checked_batch_cost(value: object) -> int:
    cost = _checked_int("max_batch_cost", value, 0, " (0 means no limit)")
    if cost > _MOST_BATCH_COST:
        raise ValueError(f"max_batch_cost must be at most {_MOST_BATCH_COST} (0 means no limit), but is {cost}")
    return cost


def _checked_pad(value: object, cost: Cost) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"pad must be True or False, but is {value!r}")
    if value and cost == "count":
        raise ValueError('pad=True needs a cost that differs among items: cost="bytes" or cost="previous"')
    return value


def _checked_retry(value: object) -> int:
    retry = _checked_int("retry", value, 0, " (runs after the first)")
    if retry > _MOST_RETRIES:
        raise ValueError(f"retry must be at most {_MOST_RETRIES} (each run may cost a worker), but is {retry}")
    return retry


def _checked_timeout(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"timeout must be a number (s), but is {value!r} ({type(value).__name__})")
    if not 0 <= value <= LONGEST_MS // 1000:
        raise ValueError(
            f"timeout must be at least 0 and at most {LONGEST_MS // 1000} (s; 0 means the server's --timeout), "
            f"but is {value}"
        )
    return float(value)


def _checked_start_method(value: object, worker: type[BaseWorker]) -> StartMethod:
    if value == "fork":
        return "fork"
    if value != "spawn":
        raise ValueError(f'start_method must be "spawn" or "fork", but is {value!r}')
    if "<locals>" in worker.__qualname__:
        raise ValueError(
            f"worker {worker.__qualname__} is defined inside a function, where a spawned process cannot find it: "
            'define it at the top level of its module, or pass start_method="fork"'
        )
    if not main_module.can_be_imported(worker):
        raise ValueError(
            f"worker {worker.__qualname__} is defined in no file (but by python -c, on standard input, in a notebook), "
            "from which a spawned process could import it: put it into a module of its own and import that, "
            'or pass start_method="fork"'
        )
    try:
        pickle.dumps(worker)
    except (pickle.PicklingError, AttributeError) as error:
        raise ValueError(
            f"worker {worker.__qualname__} cannot be found by a spawned process ({error}): "
            'define it under its own name at the top level of its module, or pass start_method="fork"'
        ) from None
    return "spawn"


def _checked_env(env: object, num: int) -> tuple[dict[str, str], ...]:
    if env is None:
        return ({},) * num
    shape = "env must be a list of one dict[str, str] for each replica"
    if isinstance(env, str | bytes) or not isinstance(env, Sequence):
        raise TypeError(f"{shape}, but is {env!r}")
    if len(env) != num:
        raise ValueError(f"{shape}, so of {num}, but has {len(env)}")
    for variables in env:
        if not isinstance(variables, Mapping) or not all(
            isinstance(key, str) and isinstance(value, str) for key, value in variables.items()
        ):
            raise TypeError(f"{shape}, but has {variables!r}")
    return tuple(dict(variables) for variables in env)
