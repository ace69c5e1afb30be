"""Core as the master holds it: what it is told and what it reports, its memory, its process, and its next one.

A core and its memory belong together: when core dies its memory is given up with it, the next one gets fresh memory.
"""

from __future__ import annotations

import dataclasses
import enum
import marshal
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from mosec_cy import __version__
from mosec_cy._config.options import Options
from mosec_cy._config.plan import MASTER_SLOT, Plan, RouteConfig, StageConfig
from mosec_cy._engine import segment
from mosec_cy._engine.segment import Segment
from mosec_cy._master import child
from mosec_cy._master.reactor import Reactor, Timer
from mosec_cy._process import codings
from mosec_cy._web.routes import MASTER_INCARNATION, Collect, MasterRoutes
from mosec_cy.log import get_logger

MESSAGE = struct.Struct(segment.CONTROL_FORMAT)

WINDOW = 30.0  # s
MOST_DEATHS = 5  # within the window
MOST_FAILED_STARTS = 3  # in a row
START_TIMEOUT = 30.0  # s, from the start of core to its first report; and for a system that cannot start one
TRY_AGAIN = 0.2  # s, meanwhile
FIRST_DELAY = 0.1  # s, before the second replacement within the window; the first one does not wait
LONGEST_DELAY = 2.0
_NS_PER_MS = 1_000_000
_STREAM_COMMENT_NS = 3_000_000_000  # after which a stream without events gets a comment, so that proxies keep it

_log = get_logger()


# ---- orders and reports ----------------------------------------------------------------------------------


class ToCore(enum.IntEnum):
    """Orders; segment.pxd says what each carries."""

    SLOT_STARTED = segment.ORDER_SLOT_STARTED
    SLOT_READY = segment.ORDER_SLOT_READY
    SLOT_DRAIN = segment.ORDER_SLOT_DRAIN
    LISTEN = segment.ORDER_LISTEN
    SHUTDOWN = segment.ORDER_SHUTDOWN


class FromCore(enum.IntEnum):
    """Reports; likewise."""

    SLOT_DEAD = segment.REPORT_SLOT_DEAD
    SLOT_OVERDUE = segment.REPORT_SLOT_OVERDUE
    SLOT_KILLED = segment.REPORT_SLOT_KILLED
    STOPPED = segment.REPORT_STOPPED
    RUNNING = segment.REPORT_RUNNING
    SLOT_IDLE = segment.REPORT_SLOT_IDLE


@dataclass(frozen=True)
class Message:
    kind: int
    slot: int
    incarnation: int
    pid: int
    value: int


@dataclass(frozen=True)
class CoreConfig:
    """All that core is told at its start. Times are in ns, sizes in bytes; the descriptors are inherited.

    `server`: of its answers' header. `stages`, `routes`: the master's own among them. `control_fd`: set where
    its process is started.
    """

    server: str
    stages: list[StageConfig]
    routes: list[RouteConfig]
    content_types: list[str]
    codings: list[str]
    max_request_size: int
    capacity: int
    max_connections: int
    service_timeout_ns: int
    header_timeout_ns: int
    body_timeout_ns: int
    write_timeout_ns: int
    idle_timeout_ns: int
    stream_comment_ns: int
    kill_grace_ns: int
    stall_margin_ns: int
    listen_fds: list[int]
    segment_fd: int
    bell_fd: int
    master_bell_fd: int
    control_fd: int = -1

    @property
    def descriptors(self) -> list[int]:
        return [*self.listen_fds, self.segment_fd, self.bell_fd, self.master_bell_fd, self.control_fd]

    def encoded(self) -> bytes:
        """As the core process reads it, with what an interpreter has loaded anyway."""
        return marshal.dumps(dataclasses.asdict(self))


# ---- one core --------------------------------------------------------------------------------------------


class CoreLink:
    """The core process and the socket to it."""

    def __init__(self, config: CoreConfig) -> None:
        """Start core with `config`, which it gets by memory file."""
        self.closed = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            config = dataclasses.replace(config, control_fd=theirs.fileno())
            boot = os.memfd_create("mosec_cy-core")
            try:
                os.write(boot, config.encoded())
                os.lseek(boot, 0, os.SEEK_SET)
                self.process = child.execute_small(
                    "mosec_cy._process.core", [boot, os.getpid()], [*config.descriptors, boot]
                )
            except BaseException:
                self._socket.close()
                raise
            finally:
                os.close(boot)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(
        self, kind: ToCore, slot: int = 0, incarnation: int = 0, pid: int = 0, value: int = 0, pidfd: int = -1
    ) -> None:
        """Send one message, once there is room; to a core that has died it goes nowhere, its pidfd tells of that."""
        data = MESSAGE.pack(kind, slot, incarnation, pid, value)
        try:
            while not self._send(data, pidfd):
                room = select.poll()
                room.register(self._socket, select.POLLOUT)
                room.poll()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _send(self, data: bytes, pidfd: int) -> bool:
        """False: a few hundred messages wait already, as when as many workers start before core listens."""
        try:
            if pidfd >= 0:
                socket.send_fds(self._socket, [data], [pidfd])
            else:
                self._socket.send(data)
        except BlockingIOError:
            return False
        return True

    def take(self) -> Iterator[Message]:
        """All messages that are there, without waiting; sets `closed` when core has gone."""
        while not self.closed:
            try:
                data = self._socket.recv(MESSAGE.size)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                return
            yield Message(*MESSAGE.unpack(data))

    def close(self) -> None:
        self._socket.close()
        self.process.close()


class Engine:
    """The running engine: shared memory, doorbells, and core, which accepts nothing before it is told to.

    A core and its memory belong together: `renew` replaces both, and `number` says which core this is, from 1 on.
    `codings`: the content codings that are on. `in_forward`: the slots whose process was in `forward` when its core was
    replaced.

    Args:
        listen_fds: what core accepts on.
        collect: has the workers tell their metrics, and calls back with them.

    Raises:
        OSError: there is no memory or no process to be had.
    """

    segment: Segment
    core_bell_fd: int
    link: CoreLink

    def __init__(self, plan: Plan, options: Options, listen_fds: list[int], collect: Collect) -> None:
        self.number = 0
        self.in_forward: set[int] = set()
        self.codings = codings.available() if options.compression else ()
        self._plan = plan
        self._options = options
        self._listen_fds = listen_fds
        self.master_routes = MasterRoutes(plan, options, collect)
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
        in_forward = self.segment.slots_in_forward()
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
        plan, options = self._plan, self._options
        with ExitStack() as closing:
            segment = Segment.create(
                plan.ring_capacities(), plan.max_tasks(options.capacity), options.budget, len(plan.route_configs())
            )
            closing.callback(segment.close)
            if old is not None:
                segment.continue_counts(old)
            core_bell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            closing.callback(os.close, core_bell_fd)
            segment.begin_slot(MASTER_SLOT, MASTER_INCARNATION)
            link = CoreLink(self._config(segment.fd, core_bell_fd))
            closing.callback(link.close)
            self._closing = closing.pop_all()
        self.segment, self.core_bell_fd, self.link = segment, core_bell_fd, link
        self.number += 1
        self.master_routes.attach(segment, core_bell_fd)
        self.link.send(ToCore.SLOT_READY, MASTER_SLOT, MASTER_INCARNATION)

    def _config(self, segment_fd: int, core_bell_fd: int) -> CoreConfig:
        plan, options = self._plan, self._options
        return CoreConfig(
            server=f"mosec_cy/{__version__}",
            stages=plan.stage_configs(options),
            routes=plan.route_configs(),
            content_types=list(plan.content_types),
            codings=list(self.codings),
            max_request_size=options.max_request_size,
            capacity=options.capacity,
            max_connections=options.max_connections,
            service_timeout_ns=options.timeout * _NS_PER_MS,
            header_timeout_ns=options.header_timeout * _NS_PER_MS,
            body_timeout_ns=options.body_timeout * _NS_PER_MS,
            write_timeout_ns=options.write_timeout * _NS_PER_MS,
            idle_timeout_ns=options.idle_timeout * _NS_PER_MS,
            stream_comment_ns=_STREAM_COMMENT_NS,
            kill_grace_ns=options.kill_grace * _NS_PER_MS,
            stall_margin_ns=options.stall_margin * _NS_PER_MS,
            listen_fds=self._listen_fds,
            segment_fd=segment_fd,
            bell_fd=core_bell_fd,
            master_bell_fd=self.master_routes.bell_fd,
        )


# ---- one core after the other ----------------------------------------------------------------------------


class CoreLife:
    """Which core runs, since when, and how often it has died.

    One that dies is replaced: at once, or after a moment if it has died shortly before. One that dies more than
    `MOST_DEATHS` times within `WINDOW`, or `MOST_FAILED_STARTS` times in a row before it ran, is given up. So is the
    system, when for `START_TIMEOUT`, less than models take to load, it has no memory, process or descriptor for one.

    Args:
        is_wanted: false once the shutdown has begun: then a core that ends is not replaced.
        on_message: hears what core says.
        on_replaced: the engine has another core with other memory; it may hear orders, and knows none.
        on_gone: there is no core and there will be none; gets why that is not in order, or None.
    """

    def __init__(
        self,
        engine: Engine,
        reactor: Reactor,
        *,
        is_wanted: Callable[[], bool],
        on_message: Callable[[Message], None],
        on_replaced: Callable[[], None],
        on_gone: Callable[[str | None], None],
    ) -> None:
        self._engine = engine
        self._reactor = reactor
        self._is_wanted = is_wanted
        self._on_message = on_message
        self._on_replaced = on_replaced
        self._on_gone = on_gone
        self._deaths: deque[float] = deque()
        self._failed_starts = 0
        self._watched = False
        self._lacking_since: float | None = None  # what another core needs
        self._next: Timer | None = None  # a replacement that waits
        self._start_timer: Timer | None = None

    def begin(self) -> None:
        """Watch the core that the engine has started."""
        link = self._engine.link
        self._reactor.watch(link.fileno(), self._on_readable)
        self._reactor.watch(link.process.pidfd, self._on_exit)
        self._watched = True
        self._start_timer = self._reactor.call_later(START_TIMEOUT, self._on_start_timeout)

    def stop(self) -> bool:
        """Replace core no more; False if none runs, so that none will be heard of."""
        if self._next is not None:
            self._next.cancel()
        return self._next is None

    def _on_readable(self) -> None:
        for message in self._engine.link.take():
            if message.kind == FromCore.RUNNING:
                self._on_running()
            else:
                self._on_message(message)
        if self._engine.link.closed:
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.unwatch(self._engine.link.fileno())

    def _on_running(self) -> None:
        self._failed_starts = 0
        self._settle()
        if self._deaths:
            _log.info("core is back after %d ms", (time.monotonic() - self._deaths[-1]) * 1000)

    def _on_start_timeout(self) -> None:
        _log.error("core killed, it did not start within %g s", START_TIMEOUT)
        self._engine.link.process.kill()

    def _settle(self) -> None:
        if self._start_timer is not None:
            self._start_timer.cancel()
            self._start_timer = None

    def _on_exit(self) -> None:
        link = self._engine.link
        if not link.closed:
            self._on_readable()  # its last words
        self._stop_listening()
        self._reactor.unwatch(link.process.pidfd)
        ran = self._start_timer is None
        self._settle()
        status = link.process.reap(block=True)
        assert status is not None
        if self._is_wanted():
            _log.error("core ended with %s: its connections are lost", child.describe(status))
            self._replace(ran)
        else:
            in_order = status in (0, child.UNKNOWN)
            self._on_gone(None if in_order else f"core ended with {child.describe(status)}")

    def _replace(self, ran: bool) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - WINDOW:
            self._deaths.popleft()
        self._failed_starts += not ran
        if self._failed_starts >= MOST_FAILED_STARTS:
            self._on_gone(f"core ended {self._failed_starts} times before it ran")
        elif len(self._deaths) > MOST_DEATHS:
            self._on_gone(f"core ended {len(self._deaths)} times within {WINDOW:g} s")
        elif len(self._deaths) == 1:
            self._start()
        else:
            delay = min(FIRST_DELAY * 2 ** (len(self._deaths) - 2), LONGEST_DELAY)
            self._next = self._reactor.call_later(delay, self._start)

    def _start(self) -> None:
        self._next = None
        try:
            self._engine.renew()
        except OSError:
            self._wait_for_the_system()
            return
        self._lacking_since = None
        self.begin()
        self._on_replaced()

    def _wait_for_the_system(self) -> None:
        now = time.monotonic()
        if self._lacking_since is None:
            self._lacking_since = now
            _log.exception("another core cannot be started now")
        if now - self._lacking_since < START_TIMEOUT:
            self._next = self._reactor.call_later(TRY_AGAIN, self._start)
        else:
            self._on_gone(f"no other core could be started for {START_TIMEOUT:g} s")
