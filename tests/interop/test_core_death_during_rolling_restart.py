"""Core dies while workers are replaced: both go on, and what the dead core knew is said again to the next one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.interop.core_deaths import BACK, CORE, ask, kill_core, wait_attached
from tests.interop.held import HELD, PATIENT, Gates, waiting_at
from tests.interop.rolled import troubles
from tests.service import Serve, Service
from tests.until import until

MODES = pytest.mark.parametrize("mode", ["surge", "replace"])
DEATH = "core ended with SIGKILL: its connections are lost"
DONE = "rolling restart done"
TWO_STAGES = HELD.replace(
    '    if __name__ == "__main__":\n',
    """\
    class After(Worker):
        def forward(self, data):
            return data

    class Late(messages.DescriptorInbox):
        def __init__(self, control):
            while os.path.exists(os.path.join(sys.argv[1], "late")):
                time.sleep(0.01)
            super().__init__(control)

    messages.DescriptorInbox = Late
    if __name__ == "__main__":
        core.FIRST_DELAY = float(os.environ["FIRST_DELAY"])
""",
).replace("        server.run()", "        server.append_worker(After)\n        server.run()")
TWO_STAGES = TWO_STAGES.replace(
    "from mosec_cy import",
    "from mosec_cy._base import messages\n    from mosec_cy._master import core\n    from mosec_cy import",
    1,
).replace(
    "def __init__(self):",
    """def __init__(self):
            if os.path.exists(os.path.join(sys.argv[1], "fail")):
                raise ValueError("as asked")""",
)


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    directory = tmp_path / "gates"
    directory.mkdir()
    return Gates(directory)


def start(serve: Serve, gates: Gates, *arguments: str, first_delay: float = 0.1) -> Service:
    """Two stages; workers of the first wait at gates."""
    environment = {"FIRST_DELAY": str(first_delay)}
    service = serve(TWO_STAGES, str(gates.directory), "1", *arguments, *PATIENT, env=environment).wait_ready()
    service.wait_outputs("> ready", 2)
    return service


def between_two_cores(service: Service) -> None:
    """Core dies twice; the next one waits for its time, as `first_delay` says."""
    core = kill_core(service)
    service.wait_outputs(BACK, 1)
    kill_core(service, but=core)
    service.wait_outputs(DEATH, 2)


@contextmanager
def holding(service: Service) -> Iterator[int]:
    """While a worker holds a request whose client core's death leaves without an answer; its pid."""

    def lose() -> None:
        with service.client() as client, pytest.raises(httpx.TransportError):
            client.post("/inference", json="wait")

    with ThreadPoolExecutor(1) as pool:
        lost: Future[None] = pool.submit(lose)
        yield waiting_at(service, "request")
        lost.result()


def assert_whole(service: Service) -> None:
    """Each replica has one process, which serves; core knows each once."""
    assert ask(service, 1).json()[1] == "at once"
    wait_attached(service)
    assert len(service.pids("mosec_cy: Held")) == len(service.pids("mosec_cy: After")) == 1
    (core,) = service.pids(CORE)

    def watched() -> int:
        return sum("pidfd" in target for target in service.descriptors(core).values())

    until(lambda: watched() == 2, message=lambda: f"core watches {watched()} processes")


@MODES
def test_while_the_new_one_starts(serve: Serve, gates: Gates, mode: str) -> None:
    service = start(serve, gates, "--rolling", mode)
    (old,) = service.pids("mosec_cy: Held")
    gates.close_start()
    service.signal(signal.SIGHUP)
    new = waiting_at(service, "start")
    kill_core(service)
    service.wait_outputs(BACK, 1)
    if mode == "surge":
        assert ask(service, 1).json()[0] == old
    gates.open_start()
    service.wait_output(DONE)
    assert ask(service, 1).json()[0] == new
    assert_whole(service)
    assert troubles(service) == [DEATH]


def test_the_new_one_is_ready_and_late_to_attach(serve: Serve, gates: Gates) -> None:
    """The old one serves until the new one does so too."""
    service = start(serve, gates)
    (old,) = service.pids("mosec_cy: Held")
    assert ask(service, 1).json()[0] == old  # so its own control thread runs
    gates.close_start()
    service.signal(signal.SIGHUP)
    new = waiting_at(service, "start")
    late = gates.directory / "late"
    late.touch()
    kill_core(service)
    service.wait_outputs(BACK, 1)
    gates.open_start()
    service.wait_outputs("<Held_1.1> ready", 2)
    assert ask(service, 1).json()[0] == old
    late.unlink()
    service.wait_output(DONE)
    assert ask(service, 1).json()[0] == new
    assert_whole(service)


@MODES
def test_while_the_old_one_finishes(serve: Serve, gates: Gates, mode: str) -> None:
    service = start(serve, gates, "--rolling", mode)
    with holding(service) as old:
        service.signal(signal.SIGHUP)
        service.wait_outputs(*(("> ready", 3) if mode == "surge" else ("restart of 2 workers begins", 1)))
        kill_core(service)
        service.wait_outputs(BACK, 1)
        gates.open_request("nobody hears it")
    service.wait_output(DONE)
    assert ask(service, 1).json()[0] != old
    assert_whole(service)
    assert troubles(service) == [DEATH]


def test_the_old_one_has_been_told_to_end(serve: Serve, gates: Gates) -> None:
    """The order lies in the memory of the core that dies, and is given again."""
    service = start(serve, gates)
    (old,) = service.pids("mosec_cy: Held")
    os.kill(old, signal.SIGSTOP)
    service.signal(signal.SIGHUP)
    service.wait_outputs("<Held_1.1> ready", 2)
    kill_core(service)
    service.wait_outputs(BACK, 1)
    os.kill(old, signal.SIGCONT)
    service.wait_output(DONE)
    assert_whole(service)
    assert troubles(service) == [DEATH]


def test_the_old_one_dies_between_two_cores(serve: Serve, gates: Gates) -> None:
    """The next stage has its turn once the new core is there, and that hears of its new process once."""
    service = start(serve, gates, first_delay=0.3)
    with holding(service) as old:
        service.signal(signal.SIGHUP)
        service.wait_outputs("<Held_1.1> ready", 2)
        between_two_cores(service)
        os.kill(old, signal.SIGKILL)
        service.wait_output("<Held_1.1> ended by itself with SIGKILL")
    service.wait_output(DONE)
    service.wait_outputs(BACK, 2)
    assert_whole(service)
    os.kill(service.pids("mosec_cy: After")[0], signal.SIGKILL)
    service.wait_outputs("<After_2.1> ready", 3)
    assert_whole(service)


def test_the_new_one_dies_between_two_cores(serve: Serve, gates: Gates) -> None:
    service = start(serve, gates, first_delay=0.3)
    (old,) = service.pids("mosec_cy: Held")
    gates.close_start()
    service.signal(signal.SIGHUP)
    new = waiting_at(service, "start")
    between_two_cores(service)
    os.kill(new, signal.SIGKILL)
    service.wait_outputs(BACK, 2)
    service.wait_output("rolling restart stopped, new <Held_1.1> did not get ready: the old goes on")
    assert ask(service, 1).json()[0] == old
    gates.open_start()
    service.signal(signal.SIGHUP)
    service.wait_output(DONE)
    assert_whole(service)


@MODES
def test_a_request_for_a_restart_between_two_cores(serve: Serve, gates: Gates, mode: str) -> None:
    service = start(serve, gates, "--rolling", mode, first_delay=0.3)
    before = service.pids(" [")
    between_two_cores(service)
    service.signal(signal.SIGHUP)
    service.wait_output(DONE)
    service.wait_outputs(BACK, 2)
    assert_whole(service)
    assert not set(service.pids(" [")) & set(before)
    assert troubles(service) == [DEATH, DEATH]


@MODES
def test_shutdown_between_two_cores(serve: Serve, gates: Gates, mode: str) -> None:
    service = start(serve, gates, "--rolling", mode, first_delay=60)
    gates.close_start()
    service.signal(signal.SIGHUP)
    waiting_at(service, "start")
    between_two_cores(service)
    service.stop()
    assert troubles(service) == [DEATH, DEATH]


def test_a_replica_that_has_moved_is_not_given_up(serve: Serve, gates: Gates) -> None:
    """It has been ready in another slot: that it fails in this one as often as is in vain at a start ends nothing."""
    service = start(serve, gates)
    service.signal(signal.SIGHUP)
    service.wait_output(DONE)
    (gates.directory / "fail").touch()
    os.kill(service.pids("mosec_cy: Held")[0], signal.SIGKILL)
    service.wait_outputs("<Held_1.1> failed to start", 3)
    kill_core(service)
    service.wait_outputs(BACK, 1)
    (gates.directory / "fail").unlink()
    service.wait_outputs("<Held_1.1> ready", 3)
    assert_whole(service)


def test_a_worker_that_cannot_hear_of_the_new_core(serve: Serve) -> None:
    """User code has shut its control socket: it serves on until core dies, and is started again then."""
    service = serve(
        """
        import os, socket, stat
        from mosec_cy import Server, Worker

        class Deaf(Worker):
            def forward(self, data):
                for fd in range(3, 64):
                    if data == "shut" and os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISSOCK(os.fstat(fd).st_mode):
                        socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR)
                return os.getpid()

        if __name__ == "__main__":
            server = Server(timeout=500, kill_grace=100)
            server.append_worker(Deaf)
            server.run()
        """
    ).wait_ready()
    deaf = ask(service, "shut").json()
    assert ask(service, "again").json() == deaf
    kill_core(service)
    service.wait_output("<Deaf_1.1> killed, it did not take up the work of the new core")
    service.wait_outputs("<Deaf_1.1> ready", 2)
    assert ask(service, "hello").json() != deaf
