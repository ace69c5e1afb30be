"""The server as the user sees it: what it runs, and `run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mosec_cy import log
from mosec_cy._base import output
from mosec_cy._base.mistakes import OneSentence
from mosec_cy._config import options
from mosec_cy._config.plan import check_costs, check_route, make_plan
from mosec_cy._master import child
from mosec_cy._master.child import Daemon, DaemonProcess
from mosec_cy.runtime import Batching, Cost, Runtime
from mosec_cy.worker import BaseWorker, check_first_stage


class Server:
    """A service: routes, each a pipeline of stages, served over HTTP.

    Options are taken from the command line, the environment (MOSEC_*), `defaults`, in this order of
    precedence; `--help` lists them with their units. Arguments of the command line that are not the
    server's are left to the program's own parser.

    Args:
        defaults: the program's own defaults of the options, by name: `Server(port=8080, timeout=500)`.

    Raises:
        TypeError, ValueError: one of `defaults` is wrong.
        SystemExit: the command line or the environment is wrong (status 2), or asks for help (0).
    """

    def __init__(self, **defaults: Any) -> None:
        with OneSentence():
            self._options = options.parse(sys.argv[1:], os.environ, defaults)
        self._has_run = False
        self._routes: dict[str, list[Runtime]] = {}
        self._daemons: list[Daemon] = []
        log.configure(self._options.log_level, self._options.log_format)

    def append_worker(
        self,
        worker: type[BaseWorker],
        num: int = 1,
        max_batch_size: int = 1,
        max_wait_time: int = 0,
        start_method: str = "spawn",
        env: Sequence[Mapping[str, str]] | None = None,
        timeout: float = 0,
        route: str | Sequence[str] = "/inference",
        retry: int = 0,
        batching: Batching | None = None,
        cost: Cost = "count",
        max_batch_cost: int = 0,
        pad: bool = False,
    ) -> None:
        """Append a stage to one route or several; calls append in their order.

        Args:
            worker: a class derived from `Worker`.
            num: number of replicas, each a process; at least 1.
            max_batch_size: most items in one call of `forward`, or of `step`; at least 1.
            max_wait_time: how long an item waits for others at most, in ms; 0: `--wait`, and without that as long as
                it pays. In a `StepWorker` none waits.
            start_method: "spawn" (a fresh interpreter) or "fork" (a copy of this process).
            env: environment variables, one mapping for each replica.
            timeout: limit on one call of `forward`, `start` or `step`, in s; 0: `--timeout`.
            route: a path or several; several share the stage's processes and queue.
            retry: how often a request is run again whose worker process has died under it; 0 to 10. It runs alone
                then, so that one that kills each worker fails alone. The stage gets copies of its input.
            batching: "auto": size and wait of a batch are learnt, within `max_batch_size` and `max_wait_time`;
                "static": a batch closes when it is full or its first item has waited `max_wait_time` (10 ms without
                any). Default: "static" with a `max_wait_time` or `--wait`, else "auto".
            cost: what an item costs: "count" (1 each), "bytes" (of its payload), or "previous": what the method
                `cost(self, result) -> int` of the stage before says of that result (tokens, pixels). With costs, items
                of like cost share a batch, together with the one that has waited longest.
            max_batch_cost: most that the items of a batch cost together; one that costs more goes alone; 0: no limit.
            pad: a batch costs its number of items times the largest cost among them, as where inputs are padded.

        Raises:
            TypeError, ValueError: an argument is wrong, or the worker is typed and its annotations are nothing that
                can be decoded; the message says what would be right.
            RuntimeError: there is no Python interpreter to start processes with, as in a frozen program.
        """
        with OneSentence():
            child.check_interpreter()
            routes = _checked_routes(route)
        runtime = Runtime(
            worker, num, max_batch_size, max_wait_time, timeout, start_method, env, retry,
            batching, cost, max_batch_cost, pad,
        )  # fmt: skip
        if any(path not in self._routes for path in routes):
            with OneSentence():
                check_first_stage(worker, max_batch_size > 1)
        with OneSentence():
            for path in routes:
                check_costs([*self._routes.get(path, []), runtime])
        for path in routes:
            self._routes.setdefault(path, []).append(runtime)

    def register_runtime(self, routes: Mapping[str, Sequence[Runtime]]) -> None:
        """Set all routes at once: for each path its stages in order. A runtime may serve several routes.

        Args:
            routes: path to runtimes; at least one of each.

        Raises:
            RuntimeError: the server has routes already.
            TypeError, ValueError: an argument is wrong; the message says what would be right.
        """
        with OneSentence():
            if self._routes:
                raise RuntimeError("register_runtime needs an empty server: append workers after it, or not at all")
            _check_runtimes(routes)
        self._routes = {path: list(runtimes) for path, runtimes in routes.items()}

    def register_daemon(self, name: str, process: DaemonProcess) -> None:
        """Tie the server to a process that the program has started: when it ends, the server shuts down,
        and when the server shuts down, it is terminated.

        Args:
            name: what the log calls it.
            process: a `subprocess.Popen` or `multiprocessing.Process` that has been started.

        Raises:
            TypeError, ValueError: it is neither, or has not been started.
        """
        with OneSentence():
            self._daemons.append(Daemon(name, process))

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT, or the end of a registered daemon; requests in flight are finished.

        With `--dry-run`: pass the examples through all routes, print sizes and durations, and return.

        Raises:
            ValueError, TypeError: nothing is registered, or a worker class cannot be served.
            OSError: the address cannot be listened on.
            RuntimeError: not called from the main thread of the program's main process, or called a second time.
            SystemExit: the server could not go on (status 1); the reason is in the log.
        """
        from mosec_cy._master import (
            dry_run,  # the engine with them, which only the process that runs needs
            supervisor,
        )

        with OneSentence():
            supervisor.check_place()
            plan = make_plan(self._routes, spares=int(self._options.rolling == "surge"))
            if self._has_run:
                raise RuntimeError("run() of this server has been called before: make another Server to run again")
        self._has_run = True
        output.open_missing()  # what the program has closed meanwhile
        if not self._options.dry_run:  # whose output goes to a terminal that may be read slowly
            output.guard()
        serve = dry_run.run if self._options.dry_run else supervisor.serve
        status = serve(plan, self._options, self._daemons)
        if status:
            sys.exit(status)


def _checked_routes(route: object) -> list[str]:
    if not isinstance(route, str | Sequence):
        raise TypeError(f'route must be a string like "/inference" or a list of them, but is {route!r}')
    routes = [route] if isinstance(route, str) else list(route)
    if not routes:
        raise ValueError('route must name at least one path, like "/inference", but is empty')
    for path in routes:
        check_route(path)
    if len(set(routes)) < len(routes):
        raise ValueError(f"route names a path twice: {routes!r}")
    return routes


def _check_runtimes(routes: object) -> None:
    if not isinstance(routes, Mapping) or not routes:
        raise TypeError(f"routes must be a dict of path to list of Runtime, but is {routes!r}")
    for path, runtimes in routes.items():
        check_route(path)
        if not isinstance(runtimes, Sequence) or not all(isinstance(runtime, Runtime) for runtime in runtimes):
            raise TypeError(f"route {path!r} must have a list of Runtime, but has {runtimes!r}")
        if not runtimes:
            raise ValueError(f"route {path!r} must have at least one Runtime")
        check_first_stage(runtimes[0].worker, runtimes[0].max_batch_size > 1)
        check_costs(runtimes)
