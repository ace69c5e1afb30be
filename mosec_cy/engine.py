"""The running engine as the master holds it: shared memory, doorbells and the core process."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from mosec_cy import __version__, content_coding
from mosec_cy._engine.segment import Segment
from mosec_cy.core_link import CoreLink, ToCore
from mosec_cy.master_routes import MASTER_INCARNATION, MasterRoutes
from mosec_cy.options import Options
from mosec_cy.plan import MASTER_ROW, Plan

_NS_PER_MS = 1_000_000
_STREAM_COMMENT_NS = 3_000_000_000  # after which a stream without events gets a comment, so that proxies keep it


class Engine:
    """Creates the shared memory and starts core, which accepts nothing before it is told to.

    A core and its memory belong together: `renew` replaces both, and `number` says which core this is, from 1 on.
    `codings`: the content codings that are on. `in_forward`: the rows whose process was in `forward` when its core was
    replaced.

    Raises:
        OSError: there is no memory or no process to be had.
    """

    segment: Segment
    core_bell_fd: int
    link: CoreLink

    def __init__(self, plan: Plan, options: Options, listen_fds: list[int]) -> None:
        self.number = 0
        self.in_forward: set[int] = set()
        self.codings = content_coding.available() if options.compression else ()
        self._routes = plan.route_configs()
        self._rings = plan.ring_capacities()
        self._slots = plan.task_slots(options.capacity)
        self._budget = options.budget
        self._listen_fds = listen_fds
        self._config = _limits(options) | {
            "listen_fds": listen_fds,
            "server": f"mosec_cy/{__version__}",
            "content_types": list(plan.content_types),
            "codings": list(self.codings),
            "stages": plan.stage_configs(options),
            "routes": self._routes,
        }
        self.master_routes = MasterRoutes(plan, options)
        self._closing = ExitStack()
        try:
            self._start(None)
        except BaseException:
            self.master_routes.close()
            raise

    @property
    def descriptors(self) -> list[int]:
        """Of the memory, and of the bell that wakes core: what a worker needs."""
        return [self.segment.fd, self.core_bell_fd]

    def renew(self) -> None:
        """Start another core with memory of its own, in which the counts go on. The one before must have ended.

        Raises:
            OSError: as above; all is as before.
        """
        old = self._closing
        in_forward = self.segment.rows_in_forward()
        self._start(self.segment)
        self.in_forward = in_forward
        old.close()

    def close(self) -> None:
        """Close all descriptors; core must have ended, or this is a forked copy."""
        self.master_routes.close()
        self._closing.close()

    def leave_in_child(self) -> None:
        """In a forked process: close all descriptors, and give the memory up, which would be kept for it alone."""
        self.close()
        self.segment.unmap()

    def _start(self, old: Segment | None) -> None:
        with ExitStack() as closing:
            segment = Segment.create(self._rings, self._slots, self._budget, len(self._routes))
            closing.callback(segment.close)
            if old is not None:
                segment.continue_counts(old)
            core_bell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            closing.callback(os.close, core_bell_fd)
            segment.begin_row(MASTER_ROW, MASTER_INCARNATION)
            inherited = {
                "segment_fd": segment.fd,
                "bell_fd": core_bell_fd,
                "master_bell_fd": self.master_routes.bell_fd,
            }
            link = CoreLink(self._config | inherited, [*self._listen_fds, *inherited.values()])
            closing.callback(link.close)
            self._closing = closing.pop_all()
        self.segment, self.core_bell_fd, self.link = segment, core_bell_fd, link
        self.number += 1
        self.master_routes.attach(segment, core_bell_fd)
        self.link.send(ToCore.ROW_READY, MASTER_ROW, MASTER_INCARNATION)


def _limits(options: Options) -> dict[str, Any]:
    return {
        "max_request_size": options.max_request_size,
        "capacity": options.capacity,
        "max_connections": options.max_connections,
        "budget": options.budget,
        "service_timeout_ns": options.timeout * _NS_PER_MS,
        "header_timeout_ns": options.header_timeout * _NS_PER_MS,
        "body_timeout_ns": options.body_timeout * _NS_PER_MS,
        "write_timeout_ns": options.write_timeout * _NS_PER_MS,
        "idle_timeout_ns": options.idle_timeout * _NS_PER_MS,
        "stream_comment_ns": _STREAM_COMMENT_NS,
        "kill_grace_ns": options.kill_grace * _NS_PER_MS,
        "stall_margin_ns": options.stall_margin * _NS_PER_MS,
    }
