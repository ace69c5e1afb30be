"""The core process: reads its configuration, then runs the engine's loop until it is told to end.

Imports next to nothing: what is loaded here stays in memory for as long as the service runs. (That is why the title is
not set by setproctitle, which loads `logging`, 1.8 MB; and it is not to be had without `site`.)
"""

import marshal
import os
import signal

from mosec_cy._engine.process import die_with_parent, set_title


def main(boot_fd: int, master_pid: int) -> None:
    """Run core on the configuration in the memory file `boot_fd`; ends the process."""
    die_with_parent(master_pid)
    # Master acts on these; they were blocked by it until now.
    of_master = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in of_master:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, of_master)
    set_title(b"mosec_cy: core")
    with open(boot_fd, "rb") as file:
        config = marshal.load(file)
    _raise_descriptor_limit()

    try:
        from mosec_cy._engine.core import run_core

        status = run_core(config)
    except BaseException:
        _say_why()
        status = 1
    os._exit(status)


def _say_why() -> None:
    """Without waiting for a reader: master waits for the end of this process."""
    import traceback

    from mosec_cy._base.output import STDERR

    STDERR.write(traceback.format_exc().encode())
    STDERR.finish()


def _raise_descriptor_limit() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
