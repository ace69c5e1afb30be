"""A process that ends daemons whose master has been killed.

They are the user's processes, started before the server: nobody but themselves can have the kernel end them with their
parent. Imports next to nothing, as it stays for as long as the daemons.
"""

import contextlib
import os
import select
import signal

from mosec_cy._process import set_title


def main(master: int, *daemons: int) -> None:
    """Wait until `master` has ended, and kill `daemons`, or until all of these have ended; all by their pidfds."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # also those that a terminal sends to all
    set_title(b"mosec_cy: daemon guard")
    waiting = select.poll()
    for pidfd in (master, *daemons):
        waiting.register(pidfd, select.POLLIN)
    alive = set(daemons)
    while alive:
        ended = {pidfd for pidfd, _ in waiting.poll()}
        if master in ended:
            for pidfd in alive - ended:
                _kill(pidfd)
            break
        for pidfd in ended:
            waiting.unregister(pidfd)
        alive -= ended
    os._exit(0)


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
