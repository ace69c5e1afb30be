"""SIGHUP, which means a rolling restart to the master, and nothing to core and workers."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.interop.held import HELD, PATIENT, Gates, start_held
from tests.interop.rolled import replaced, troubles
from tests.service import Serve


def test_a_hang_up_of_the_terminal_ends_nobody(serve: Serve, tmp_path: Path) -> None:
    """It is sent to all processes: core and workers leave it to the master."""
    service = start_held(serve, Gates(tmp_path), 2)
    before = service.pids(" [")
    core = service.pids("mosec_cy: core")
    os.killpg(service.process.pid, signal.SIGHUP)
    service.wait_output("rolling restart done")
    assert {old for old, _ in replaced(service).values()} == set(before)
    assert service.pids("mosec_cy: core") == core
    assert troubles(service) == []


def test_a_hang_up_that_is_ignored_stays_so(serve: Serve, tmp_path: Path) -> None:
    """As under nohup, in all processes."""
    source = re.sub(r"signal\.signal\(.*\)", "signal.signal(signal.SIGHUP, signal.SIG_IGN)", HELD)
    service = serve(source, str(tmp_path), "2", *PATIENT).wait_ready()
    service.wait_outputs("> ready", 2)
    for pid in service.processes():
        (ignored,) = re.findall(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert int(ignored, 16) & 1 << signal.SIGHUP - 1
    os.killpg(service.process.pid, signal.SIGHUP)
    service.stop()
    assert not [message for message in service.messages if "rolling" in message]


def test_programs_of_user_code_die_of_a_hang_up(serve: Serve) -> None:
    source = """
        import os, signal, subprocess, sys
        from mosec_cy import Server, Worker

        class Starting(Worker):
            def forward(self, data):
                if data == "fork":
                    pid = os.fork()
                    if not pid:
                        os.kill(os.getpid(), signal.SIGHUP)
                        signal.pause()
                    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                return subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 1)"]).returncode

        if __name__ == "__main__":
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            server = Server()
            server.append_worker(Starting)
            server.run()
    """
    service = serve(source, *PATIENT).wait_ready()
    with service.client() as client:
        assert [client.post("/inference", json=how).json() for how in ("fork", "program")] == [-signal.SIGHUP] * 2
