"""The routes that the master answers: it is row 0 of the worker table, woken by an eventfd."""

from __future__ import annotations

import os

from mosec_cy._channel import Channel
from mosec_cy._segment import STATUS_CODES, Segment
from mosec_cy.log import get_logger
from mosec_cy.metrics import ServiceMetrics
from mosec_cy.openapi import OpenAPI
from mosec_cy.options import Options
from mosec_cy.plan import MASTER_ROW, METRICS, TEXT, Plan, Resource

MASTER_INCARNATION = 1


class MasterRoutes:
    """Answers what core hands to the master: `/metrics`, and what is below `/openapi`."""

    def __init__(self, segment: Segment, core_bell_fd: int, plan: Plan, options: Options) -> None:
        self.bell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._segment = segment
        self._metrics = ServiceMetrics(options.namespace, plan, STATUS_CODES, options.timeout)
        self._openapi = OpenAPI(plan, options)
        self._content_types = {text: number for number, text in enumerate(plan.content_types)}
        segment.begin_row(MASTER_ROW, MASTER_INCARNATION)
        self._channel = Channel(segment, MASTER_ROW, MASTER_INCARNATION, core_bell_fd)
        self._channel.take_now()  # nothing yet; from now on a task rings the bell

    def answer(self) -> None:
        """Answer all requests that are there; called when `bell_fd` is readable."""
        os.eventfd_read(self.bell_fd)
        items = self._channel.take_now()
        try:
            for number, item in enumerate(items):
                self._channel.answer(item, *self._respond(bytes(item), len(items) - number))
        except RuntimeError:  # some process has spoilt this row's ring: its requests time out, the users' go on
            get_logger().exception("cannot answer requests to the server itself")

    def close(self) -> None:
        os.close(self.bell_fd)

    def _respond(self, target: bytes, unanswered: int) -> tuple[int, bytes, int]:
        """Status, body, content type."""
        path = target.partition(b"?")[0].decode("ascii", errors="replace")
        try:
            found = self._metrics_page(unanswered) if path == "/metrics" else self._openapi.resource(path)
        except Exception:
            get_logger().exception("cannot answer GET %s", path)
            return 500, b"inference internal error", self._content_types[TEXT]
        if found is None:
            return 404, b"not found", self._content_types[TEXT]
        return 200, found.body, self._content_types[found.content_type]

    def _metrics_page(self, unanswered: int) -> Resource:
        stats = self._segment.stats()
        stats["remaining"] = max(stats["remaining"] - unanswered, 0)  # the gauge is of the users' tasks
        return Resource(self._metrics.render(stats), METRICS)
