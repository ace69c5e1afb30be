"""The engine without its control plane: a core process, with the test as master and as worker.

Tests of the core drive it through real sockets, while they decide themselves when a worker takes, answers or dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mosec_cy._config.plan import RouteConfig, StageConfig
from mosec_cy._engine.process import die_with_parent
from mosec_cy._engine.segment import Segment
from mosec_cy._engine.worker import Channel
from mosec_cy._master.core import MESSAGE, CoreConfig, FromCore, ToCore
from tests.http_client import Answer, Client
from tests.until import until

SLOT_STARTED, SLOT_READY, SLOT_DRAIN, LISTEN, SHUTDOWN = ToCore
SLOT_DEAD, SLOT_OVERDUE, SLOT_KILLED, STOPPED, RUNNING, SLOT_IDLE = FromCore
MIB = 1 << 20
SECOND = 1_000_000_000
CONTENT_TYPES = ["text/plain; charset=utf-8", "application/json", "application/octet-stream"]
RUN = (
    "import marshal, os, sys; from mosec_cy._engine.core import run_core;"
    "sys.exit(run_core(marshal.loads(os.read(int(sys.argv[1]), 1 << 16))))"
)


class Engine:
    """A core with one route `/inference` through `stages` stages of one slot each (`slots` for the first).

    Args:
        stages: number of stages.
        slots: replicas of each stage.
        streams: the last stage answers with events.
        options: of the core's configuration, over the defaults here; `stage`: of each stage.
    """

    def __init__(self, stages: int = 1, slots: int = 1, stage: dict[str, Any] | None = None, **options: Any) -> None:
        self.slots = 1 + stages * slots
        ring = 256
        budget = options.pop("budget", 256 * MIB)
        self.segment = Segment.create([(ring, ring)] * self.slots, options.pop("max_tasks", 4096), budget, 2)
        self.core_bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.master_bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        config = CoreConfig(
            server="mosec_cy/test",
            stages=[
                StageConfig("master", 0, 1),
                *(StageConfig(f"stage_{i + 1}", 1 + i * slots, slots, **(stage or {})) for i in range(stages)),
            ],
            routes=routes(stages, options.pop("streams", False)),
            content_types=CONTENT_TYPES,
            codings=[],
            max_request_size=10 * MIB,
            capacity=1024,
            max_connections=4096,
            service_timeout_ns=30 * SECOND,
            header_timeout_ns=30 * SECOND,
            body_timeout_ns=30 * SECOND,
            write_timeout_ns=30 * SECOND,
            idle_timeout_ns=60 * SECOND,
            stream_comment_ns=30 * SECOND,
            kill_grace_ns=SECOND,
            stall_margin_ns=SECOND,
            listen_fds=[self.listener.fileno()],
            segment_fd=self.segment.fd,
            bell_fd=self.core_bell,
            master_bell_fd=self.master_bell,
            control_fd=theirs.fileno(),
        )
        config = dataclasses.replace(config, **options)
        reader, writer = os.pipe()
        os.write(writer, config.encoded())
        os.close(writer)
        inherited = [*config.descriptors, reader]
        self.process = subprocess.Popen([sys.executable, "-c", RUN, str(reader)], pass_fds=inherited)
        os.close(reader)
        theirs.close()
        self.order(LISTEN)

    def order(self, kind: int, slot: int = 0, incarnation: int = 1, pid: int = 0, value: int = 0, fd: int = -1) -> None:
        message = MESSAGE.pack(kind, slot, incarnation, pid, value)
        socket.send_fds(self.control, [message], [fd] if fd >= 0 else [])

    def news(self) -> tuple[int, int, int, int, int]:
        """The next report of core, after the one that it runs; waits for it."""
        self.control.settimeout(20)
        while True:
            data = self.control.recv(64)
            assert data, "core is gone"
            message = MESSAGE.unpack(data)
            if message[0] != RUNNING:
                return message  # type: ignore[return-value]

    def ready(self, slot: int, incarnation: int = 1, pid: int = 0, fd: int = -1) -> None:
        self.order(SLOT_STARTED, slot, incarnation, pid, fd=fd)
        self.order(SLOT_READY, slot, incarnation)

    def channel(self, slot: int = 1, incarnation: int = 1) -> Channel:
        """The slot's side, in this process; the slot is ready afterwards."""
        self.segment.begin_slot(slot, incarnation)
        self.ready(slot, incarnation)
        return Channel(self.segment, slot, incarnation, self.core_bell)

    @contextlib.contextmanager
    def worker(self, answer: Callable[[Channel, Any], None], slot: int = 1) -> Iterator[Channel]:
        """A thread that answers each item of the slot by `answer(channel, item)`."""
        channel = self.channel(slot)

        def serve() -> None:
            while (items := channel.take()) is not None:
                for item in items:
                    answer(channel, item)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield channel
        finally:
            self.segment.stop_slot(slot)
            thread.join()

    def fork_worker(self, serve: Callable[[Channel], None], slot: int = 1, incarnation: int = 1) -> int:
        """A process of its own that runs `serve(channel)`; its pid. Core watches it."""
        self.segment.begin_slot(slot, incarnation)
        test = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with_parent(test)
                serve(Channel(self.segment, slot, incarnation, self.core_bell))
            finally:
                os._exit(0)
        pidfd = os.pidfd_open(pid)
        self.ready(slot, incarnation, pid, pidfd)
        os.close(pidfd)
        return pid

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def post(self, body: bytes, path: str = "/inference", headers: str = "") -> Answer:
        """The answer to a request on a connection of its own, over which nothing else comes."""
        with Client(self) as client:
            return client.send_post(body, path, headers + "connection: close\r\n").last_answer()

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Until core's statistics fulfil `condition`."""
        until(lambda: condition(self.segment.stats()), message=lambda: f"never came true: {self.segment.stats()}")

    def close(self) -> None:
        """Ends core in an orderly way and checks that it leaves nothing behind."""
        with contextlib.suppress(BrokenPipeError):
            self.control.close()
        assert self.process.wait(20) == 0
        self.release()

    def release(self) -> None:
        """Gives back what the test's process holds."""
        self.control.close()
        self.listener.close()
        os.close(self.core_bell)
        os.close(self.master_bell)
        self.segment.close()


def routes(stages: int, streams: bool) -> list[RouteConfig]:
    """One through all stages, and the master's."""
    users = RouteConfig("/inference", "POST", list(range(1, stages + 1)), streams=streams)
    return [users, RouteConfig("/metrics", "GET", [0], prefix=True)]
