"""How long a client waits for its 500 when a worker is killed in `forward`.

    python benchmarks/death.py [--mib 0 2048] [--runs 5]

For each size of the worker's memory: from the kill until the kernel says that the process has ended (its pidfd becomes
readable; taking down many GB is the kernel's work), and from then until the client has its answer.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.engine import SLOT_DEAD, Engine
from tests.http_client import Client

MIB = 1 << 20


def measure(mib: int, incarnation: int, engine: Engine) -> tuple[float, float]:
    """(kill → pidfd, pidfd → answer) in ms, of one worker that has touched so much memory."""
    reader, writer = os.pipe()

    def hold(channel: object) -> None:
        memory = bytearray(mib * MIB)
        memory[::4096] = b"x" * len(memory[::4096])
        channel.take()  # type: ignore[attr-defined]
        os.write(writer, b"!")
        signal.pause()

    pid = engine.fork_worker(hold, incarnation=incarnation)
    pidfd = os.pidfd_open(pid)
    with Client(engine) as client:
        client.send_post(b"x")
        os.read(reader, 1)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        poll.poll()
        ended = time.perf_counter()
        answer = client.answer()
        answered = time.perf_counter()
    assert answer.status == 500
    assert engine.news()[0] == SLOT_DEAD
    os.waitpid(pid, 0)
    for fd in (pidfd, reader, writer):
        os.close(fd)
    return (ended - killed) * 1e3, (answered - ended) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, nargs="+", default=[0, 2048], help="memory that the worker has touched")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'worker':>10}  {'kill → pidfd (ms)':>22}  {'pidfd → 500 (ms)':>22}")
    print(f"{'MiB':>10}  {'median':>10} {'max':>11}  {'median':>10} {'max':>11}")
    engine = Engine()
    incarnation = 0
    for mib in arguments.mib:
        ends, answers = [], []
        for _ in range(arguments.runs):
            incarnation += 1
            end, answer = measure(mib, incarnation, engine)
            ends.append(end)
            answers.append(answer)
        print(
            f"{mib:>10}  {statistics.median(ends):>10.1f} {max(ends):>11.1f}"
            f"  {statistics.median(answers):>10.2f} {max(answers):>11.2f}"
        )
    engine.close()


if __name__ == "__main__":
    main()
