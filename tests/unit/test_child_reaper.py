"""Ended children: which have an owner. (As process 1, where they are reaped: tests/interop/test_process_1.py.)"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from tests.service import ROOT

PROGRAM = """
    import multiprocessing, os, signal, subprocess
    from mosec_cy._master import child
    from mosec_cy._master.reactor import Reactor

    def ended(pid):  # and not reaped
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    reactor = Reactor()
    child.reap_the_ownerless(reactor)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, "only process 1 collects"

    program = subprocess.Popen(["sh", "-c", "exit 7"])
    copy = multiprocessing.get_context("fork").Process(target=os._exit, args=(9,))
    copy.start()
    worker = child.fork(lambda: os._exit(5))
    ownerless = os.fork() or os._exit(3)
    for pid in (program.pid, copy.pid, worker.pid, ownerless):
        ended(pid)
    looks = child.ChildReaper(reactor, period=0)
    looks.look()
    ended(ownerless)  # one that has only just ended may be waited for
    looks.look()
    try:
        os.waitpid(ownerless, 0)
    except ChildProcessError:
        print("reaped")
    copy.join()
    print(program.wait(), copy.exitcode, worker.reap(block=True))
"""


def test_only_what_nobody_has_an_object_for_is_reaped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["reaped", "7 9 5"]
