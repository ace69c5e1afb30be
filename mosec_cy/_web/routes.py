"""The routes that the master answers: it is slot 0 of the worker table, woken by an eventfd."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from mosec_cy._config.options import Options
from mosec_cy._config.plan import MASTER_SLOT, METRICS, TEXT, Plan, Resource
from mosec_cy._engine.segment import STATUS_CODES, Segment
from mosec_cy._engine.worker import Channel
from mosec_cy._process.snapshot import Family
from mosec_cy._web.metrics import ServiceMetrics
from mosec_cy._web.openapi import OpenAPI
from mosec_cy.log import get_logger

if TYPE_CHECKING:
    from mosec_cy._engine.worker import Item

MASTER_INCARNATION = 1

Collect = Callable[[Callable[[list[Family]], None]], None]
"""Has the workers say what user code recorded, and calls its argument with that."""

_NOT_FOUND = Resource(b"not found", TEXT)
_INTERNAL_ERROR = Resource(b"inference internal error", TEXT)


class MasterRoutes:
    """Answers what core hands to the master: what is below `/openapi`, and `/metrics` once the workers have said what
    they recorded.
    """

    def __init__(self, plan: Plan, options: Options, collect: Collect) -> None:
        self.bell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._plan = plan
        self._options = options
        self._collect = collect
        self._openapi = OpenAPI(plan, options)
        self._content_types = {text: number for number, text in enumerate(plan.content_types)}
        self._scrapes: list[Item] = []  # requests for /metrics that wait for the workers

    def attach(self, segment: Segment, core_bell_fd: int) -> None:
        """Answer the core of this memory from now on, where the slot has been begun; clients of others have gone."""
        self._segment = segment
        self._scrapes.clear()
        self._channel = Channel(segment, MASTER_SLOT, MASTER_INCARNATION, core_bell_fd)
        self._channel.take_now()  # nothing yet; from now on a task rings the bell

    def answer(self) -> None:
        """Answer all requests that are there; called when `bell_fd` is readable."""
        os.eventfd_read(self.bell_fd)
        scrapes: list[Item] = []
        for item in self._channel.take_now():
            path = bytes(item).partition(b"?")[0].decode("ascii", errors="replace")
            if path == "/metrics":
                scrapes.append(item)
            else:
                self._answer([item], *self._openapi_resource(path))
        if scrapes:
            self._scrapes += scrapes
            self._collect(self._send_metrics)

    def close(self) -> None:
        os.close(self.bell_fd)

    def _openapi_resource(self, path: str) -> tuple[int, Resource]:
        try:
            found = self._openapi.resource(path)
        except Exception:
            get_logger().exception("cannot answer GET %s", path)
            return 500, _INTERNAL_ERROR
        return (200, found) if found else (404, _NOT_FOUND)

    @cached_property
    def _metrics(self) -> ServiceMetrics:
        return ServiceMetrics(self._options.namespace, self._plan, STATUS_CODES, self._options.timeout)

    def _send_metrics(self, users: list[Family]) -> None:
        scrapes, self._scrapes = self._scrapes, []
        if not scrapes:  # answered already, or core has died meanwhile
            return
        try:
            stats = self._segment.stats()
            stats["remaining"] = max(stats["remaining"] - len(scrapes), 0)  # the gauge is of the users' tasks
            page = 200, Resource(self._metrics.render(stats, users), METRICS)
        except Exception:
            get_logger().exception("cannot answer GET %s", "/metrics")
            page = 500, _INTERNAL_ERROR
        self._answer(scrapes, *page)

    def _answer(self, items: list[Item], status: int, found: Resource) -> None:
        try:
            for item in items:
                self._channel.answer(item, status, found.body, self._content_types[found.content_type])
        except RuntimeError:  # some process has corrupted this slot's ring: its requests time out, the users' go on
            get_logger().exception("cannot answer requests to the server itself")
