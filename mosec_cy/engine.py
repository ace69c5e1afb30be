"""The running engine as the master holds it: shared memory, doorbells and the core process."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from mosec_cy import __version__, content_coding, limits
from mosec_cy._segment import Segment
from mosec_cy.core_link import CoreLink, ToCore
from mosec_cy.master_routes import MASTER_INCARNATION, MasterRoutes
from mosec_cy.options import Options
from mosec_cy.plan import MASTER_ROW, Plan

_NS_PER_MS = 1_000_000
_STREAM_COMMENT_NS = 3_000_000_000  # after which a stream without events gets a comment, so that proxies keep it


class Engine:
    """Creates the shared memory and starts core, which accepts nothing before it is told to.

    `codings`: the content codings that are on.
    """

    def __init__(self, plan: Plan, options: Options, listen_fds: list[int]) -> None:
        routes = plan.route_configs()
        slots = plan.task_slots(options.capacity)
        self.codings = content_coding.available() if options.compression else ()
        with ExitStack() as closing:
            self.segment = Segment.create(plan.ring_capacities(), slots, options.budget, len(routes))
            closing.callback(self.segment.close)
            self.core_bell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            closing.callback(os.close, self.core_bell_fd)
            self.master_routes = MasterRoutes(self.segment, self.core_bell_fd, plan, options)
            closing.callback(self.master_routes.close)
            inherited = {
                "segment_fd": self.segment.fd,
                "bell_fd": self.core_bell_fd,
                "master_bell_fd": self.master_routes.bell_fd,
            }
            config = (
                _limits(options)
                | inherited
                | {
                    "listen_fds": listen_fds,
                    "server": f"mosec_cy/{__version__}",
                    "content_types": list(plan.content_types),
                    "codings": list(self.codings),
                    "stages": plan.stage_configs(options),
                    "routes": routes,
                }
            )
            self.link = CoreLink(config, [*listen_fds, *inherited.values()])
            closing.callback(self.link.close)
            self._closing = closing.pop_all()
        self.link.send(ToCore.ROW_READY, MASTER_ROW, MASTER_INCARNATION)

    def close(self) -> None:
        """Close all descriptors; core must have ended, or this is a forked copy."""
        self._closing.close()


def _limits(options: Options) -> dict[str, Any]:
    return {
        "max_request_size": options.max_request_size,
        "capacity": options.capacity,
        "max_connections": limits.usable_connections(options.max_connections),
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
