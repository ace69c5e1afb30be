"""What user code records with prometheus_client in any process appears, summed, in the service's `/metrics`."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.interop.scrape import Samples, scrape, scrape_until
from tests.service import Serve
from tests.until import until

COUNTING = """
    import ctypes, os, sys, time
    from prometheus_client import Counter, Gauge, Histogram, Summary
    from mosec_cy import Server, Worker

    CALLS = Counter("calls", "calls of forward,\\nby kind", ["stage", "kind"])
    LAST = Gauge("held", "what it holds")
    SIZES = Histogram("sizes", "sizes of data", buckets=[1, 10])
    TIMES = Summary("times", "times")

    class First(Worker):
        def forward(self, data):
            CALLS.labels(type(self).__name__, data["kind"]).inc()
            LAST.set(data["size"])
            SIZES.observe(data["size"])
            TIMES.observe(data["size"])
            if data["kind"] == "hold the GIL":
                open(data["mark"], "w").close()
                ctypes.PyDLL(None).read(os.open(data["fifo"], os.O_RDWR), ctypes.create_string_buffer(1), 1)
            if data["kind"] == "leave":
                sys.exit(3)
            return data | {"pids": data.get("pids", []) + [os.getpid()]}

    class Second(First):
        pass

    if __name__ == "__main__":
        CALLS.labels("main", "start").inc(5)
        server = Server()
        server.append_worker(First, num=2, start_method=sys.argv[1])
        server.append_worker(Second, num=2, start_method=sys.argv[1])
        server.run()
"""
START_METHODS = pytest.mark.parametrize("method", ["spawn", "fork"])


def ask(client: httpx.Client, kind: str = "plain", size: int = 2, **more: str) -> httpx.Response:
    return client.post("/inference", json={"kind": kind, "size": size, **more})


@START_METHODS
def test_counts_of_all_processes_are_summed(serve: Serve, method: str) -> None:
    service = serve(COUNTING, method).wait_ready()
    service.wait_outputs("> ready", 4)
    with service.client() as client:

        def call(number: int) -> list[int]:
            pids: list[int] = ask(client, size=number).json()["pids"]
            return pids

        rounds, pids = 0, set[int]()
        with ThreadPoolExecutor(8) as pool:
            while len(pids) < 4:  # until each worker has had a share
                pids.update(pid for answer in pool.map(call, range(40)) for pid in answer)
                rounds += 1
        samples = scrape_until(
            client,
            {
                "calls_total kind=start stage=main": 5,  # once, though forked workers have inherited it
                "calls_total kind=plain stage=First": 40 * rounds,
                "calls_total kind=plain stage=Second": 40 * rounds,
                "sizes_bucket le=1.0": 4 * rounds,
                "sizes_bucket le=10.0": 22 * rounds,
                "sizes_bucket le=+Inf": 80 * rounds,
                "sizes_count": 80 * rounds,
                "sizes_sum": 2 * sum(range(40)) * rounds,
                "times_sum": 2 * sum(range(40)) * rounds,
                "times_count": 80 * rounds,
            },
        )
        text = client.get("/metrics").text
    assert "# HELP calls_total calls of forward,\\nby kind\n" in text
    assert not [name for name in samples if name.startswith(("process_", "python_")) or "_created" in name]


@START_METHODS
def test_a_dead_workers_counts_are_kept_and_its_gauges_are_not(serve: Serve, method: str) -> None:
    service = serve(COUNTING, method).wait_ready()
    service.wait_outputs("> ready", 4)
    with service.client() as client:
        pid, _ = ask(client, size=7).json()["pids"]
        before = scrape_until(client, {"held": 14})  # one worker of each stage
        os.kill(pid, signal.SIGKILL)
        service.wait_output("ended by itself")
        after = scrape(client)
        assert after["held"] == 7
        assert {k: v for k, v in after.items() if k != "held"} == {k: v for k, v in before.items() if k != "held"}
        service.wait_outputs("> ready", 5)
        for _ in range(4):
            assert ask(client, size=7).status_code == 200
        scrape_until(client, {"calls_total kind=plain stage=First": 5})


@START_METHODS
def test_a_worker_that_leaves_says_what_it_counted_since_the_last_page(serve: Serve, method: str) -> None:
    service = serve(COUNTING, method).wait_ready()
    service.wait_outputs("> ready", 4)
    with service.client() as client:
        assert ask(client, kind="leave").status_code == 500
        service.wait_output("ended by itself")
        assert scrape(client)["calls_total kind=leave stage=First"] == 1


@START_METHODS
def test_a_worker_whose_gil_is_held_is_represented_by_what_it_said_last(
    serve: Serve, tmp_path: Path, method: str
) -> None:
    fifo, mark = tmp_path / "fifo", tmp_path / "mark"
    os.mkfifo(fifo)
    service = serve(COUNTING, method, "--timeout", "60000").wait_ready()
    service.wait_outputs("> ready", 4)
    with service.client() as client, service.client() as second, ThreadPoolExecutor(1) as pool:
        assert ask(client).status_code == 200
        scrape_until(client, {"calls_total kind=plain stage=First": 1})
        stuck = pool.submit(ask, second, kind="hold the GIL", fifo=str(fifo), mark=str(mark))
        until(mark.exists)
        for count in range(2, 5):
            assert ask(client).status_code == 200
            samples = scrape_until(client, {"calls_total kind=plain stage=Second": count})
            assert "calls_total kind=hold the GIL stage=First" not in samples
        with fifo.open("wb", buffering=0) as end:
            end.write(b"!!")  # a byte for each stage
        assert stuck.result().status_code == 200
        scrape_until(client, {"calls_total kind=hold the GIL stage=First": 1})


def test_pages_asked_for_at_the_same_time_under_load(serve: Serve) -> None:
    service = serve(COUNTING, "spawn").wait_ready()
    service.wait_outputs("> ready", 4)

    def scrapes(_: int) -> list[float]:
        with service.client() as client:
            return [scrape(client).get("calls_total kind=plain stage=First", 0) for _ in range(20)]

    def calls(_: int) -> set[int]:
        with service.client() as client:
            return {ask(client).status_code for _ in range(100)}

    with ThreadPoolExecutor(12) as pool:
        loads = [pool.submit(calls, number) for number in range(4)]
        seen = list(pool.map(scrapes, range(8)))
        assert {status for load in loads for status in load.result()} == {200}
    for counts in seen:
        assert counts == sorted(counts)  # a counter never falls
    with service.client() as client:
        scrape_until(client, {"calls_total kind=plain stage=First": 400})


FORKING = """
    import os, threading
    from prometheus_client import Counter
    from mosec_cy import Server, Worker

    FORKS = Counter("forks", "children that could count")

    class Forking(Worker):
        example = 1

        def __init__(self):
            self.forward(1)

        def forward(self, data):
            threads = {thread.name for thread in threading.enumerate()} - {"MainThread"}
            for _ in range(data):
                pid = os.fork()
                if pid == 0:
                    FORKS.inc()  # takes a lock that the control thread takes as well
                    os._exit(len(threading.enumerate()))
                _, status = os.waitpid(pid, 0)
                FORKS.inc(os.waitstatus_to_exitcode(status))
            return sorted(threads)

    if __name__ == "__main__":
        import warnings
        warnings.simplefilter("ignore")  # from Python 3.12 on: the process has a second thread
        server = Server()
        server.append_worker(Forking)
        server.run()
"""


def test_user_code_that_forks_while_it_is_asked(serve: Serve) -> None:
    service = serve(FORKING, "--timeout", "60000").wait_ready()
    pages: list[Samples] = []
    with service.client() as client, service.client() as second, ThreadPoolExecutor(1) as pool:
        scrape_until(client, {"forks_total": 2})  # in __init__ and in the warm-up
        answer = pool.submit(second.post, "/inference", json=200)
        while not answer.done():
            pages.append(scrape(client))
        assert answer.result().json() == ["mosec_cy-control"]
        scrape_until(client, {"forks_total": 202})
    counts = [page["forks_total"] for page in pages]
    assert counts == sorted(counts)


def test_signals_are_the_main_threads(serve: Serve) -> None:
    service = serve(COUNTING, "fork").wait_ready()
    pid = service.wait_process("First_1 [1]")
    with service.client() as client:
        scrape(client)
    for task in Path(f"/proc/{pid}/task").iterdir():
        (blocked,) = re.findall(r"^SigBlk:\s+(\w+)", (task / "status").read_text(), re.MULTILINE)
        alarm = int(blocked, 16) >> (signal.SIGALRM - 1) & 1
        assert alarm == (task.name != str(pid))
