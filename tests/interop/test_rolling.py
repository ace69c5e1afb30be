"""SIGHUP replaces the workers one by one, and no client notices."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.interop.rolled import REPLICAS, Load, replaced, roll, troubles
from tests.interop.scrape import scrape_until
from tests.service import Serve, Service

MODES = pytest.mark.parametrize("mode", ["surge", "replace"])
PATIENT = ("--timeout", "60000")


@pytest.mark.parametrize(("mode", "num"), [("surge", 1), ("surge", 2), ("replace", 1)])
def test_no_request_fails(serve: Serve, mode: str, num: int) -> None:
    service = serve(REPLICAS, str(num), "spawn", "--rolling", mode, *PATIENT).wait_ready()
    service.wait_outputs("> ready", 3 * num)
    before = set(service.pids(" ["))
    with Load(service) as load:
        begun = load.wait_for(100)
        roll(service)
        done = load.wait_for(load.in_flight)
        load.wait_for(200)
    total = len(load.answers)
    assert load.counts == {200: total}
    print(f"{mode}, {num} replicas: {done - begun} requests during the restart, {total} in all, none failed")
    assert troubles(service) == []

    def pids(answers: list[dict[str, list[list[object]]]]) -> set[object]:
        return {pid for answer in answers for *_, pid in answer["path"]}

    assert pids(load.answers[:begun]) <= before
    assert not pids(load.answers[done:]) & before
    assert set(service.pids(" [")) == {new for _, new in replaced(service).values()}
    assert {old for old, _ in replaced(service).values()} == before
    names = {1: "First_1", 2: "Middle_2", 3: "Last_3"}
    for answer in load.answers:
        assert [stage for stage, *_ in answer["path"]] == list(names.values())
        for _, worker_id, who, _ in answer["path"]:
            assert who == {1: "a", 2: "b"}[worker_id]
    titles = [f"mosec_cy: {name} [{worker_id}]" for name in names.values() for worker_id in range(1, num + 1)]
    assert sorted(title for title in service.processes().values() if " [" in title) == sorted(titles)
    assert_counts(service, total, num)


def assert_counts(service: Service, total: int, num: int) -> None:
    """What the workers that have ended counted is still there, and each replica has gone on counting."""
    with service.client() as client:
        stages = ("First_1", "Middle_2", "Last_3")
        scrape_until(client, {f"items_total stage={stage}": total for stage in stages})
        samples = [s for family in text_string_to_metric_families(client.get("/metrics").text) for s in family.samples]
    durations = {
        (sample.labels["stage"], sample.labels["connection"]): sample.value
        for sample in samples
        if sample.name == "mosec_service_process_duration_second_count"
    }
    assert {replica for stage, replica in durations if stage != "total"} <= {str(i + 1) for i in range(num)}
    for stage in ("First_1", "Last_3"):
        assert sum(count for (name, _), count in durations.items() if name == stage) == total


STREAMING = """
    import os, signal, time
    from mosec_cy import Server, SSEWorker

    class Counting(SSEWorker):
        def forward(self, data):
            for number in range(10):
                assert self.send_stream_event(f"{data} {number} {os.getpid()}")
                time.sleep(0.002)

    if __name__ == "__main__":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        server = Server()
        server.append_worker(Counting, num=2)
        server.run()
"""


@MODES
def test_no_stream_breaks(serve: Serve, mode: str) -> None:
    service = serve(STREAMING, "--rolling", mode, *PATIENT).wait_ready()
    service.wait_outputs("> ready", 2)
    over: list[bool] = []

    def read(client_number: int) -> list[str]:
        """The pid by which each stream came, of one client."""
        pids = []
        with service.client() as client:
            while not over or len(pids) < 3:
                body = f"{client_number}.{len(pids)}"
                answer = client.post("/inference", content=json.dumps(body))
                events = answer.text.split("\n\n")[:-1]
                pid = events[0].split()[-1]
                assert events == [f"data: {body} {number} {pid}" for number in range(10)]
                pids.append(pid)
        return pids

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, number) for number in range(4)]
        try:
            roll(service)
        finally:
            over.append(True)
        streams = [pid for reader in readers for pid in reader.result()]
    print(f"{mode}: {len(streams)} streams of 10 events, none broke")
    assert {int(pid) for pid in streams} <= {pid for pids in replaced(service).values() for pid in pids}
    assert troubles(service) == []


# ---- new code ----------------------------------------------------------------------------------------


MODEL = """
class Model:
    def answer(self):
        return "{}"
"""
PROGRAM = """
import signal
from model import Model
from mosec_cy import Server, Worker

class Answering(Worker):
    def __init__(self):
        self.model = Model()

    def forward(self, data):
        return {"number": data["number"], "program": "%s", "model": self.model.answer()}

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    server = Server()
    server.append_worker(Answering, num=2)
    server.run()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The path of a program in two files, of version "old"."""
    directory = tmp_path / "program"
    directory.mkdir()
    write(directory / "service.py", "old")
    return directory / "service.py"


def write(program: Path, version: str) -> None:
    # Of another length each time: Python takes a module's compiled form for up to date if size and second are the same.
    program.write_text(PROGRAM.replace("%s", version))
    program.with_name("model.py").write_text(MODEL.replace("{}", version))


@MODES
def test_new_code_takes_effect(serve: Serve, program: Path, mode: str) -> None:
    service = serve(program, "--rolling", mode, *PATIENT).wait_ready()
    service.wait_outputs("> ready", 2)
    with Load(service) as load:
        begun = load.wait_for(50)
        write(program, "newer")
        roll(service)
        done = load.wait_for(load.in_flight)
        load.wait_for(100)
    versions = [(answer["program"], answer["model"]) for answer in load.answers]
    assert set(versions[:begun]) == {("old", "old")}
    assert set(versions[done:]) == {("newer", "newer")}
    assert set(versions) == {("old", "old"), ("newer", "newer")}
    assert load.counts == {200: len(versions)}


def test_code_that_fails_leaves_the_old_worker_serving(serve: Serve, program: Path) -> None:
    service = serve(program, *PATIENT).wait_ready()
    service.wait_outputs("> ready", 2)
    before = service.pids(" [")
    with Load(service) as load:
        load.wait_for(50)
        program.with_name("model.py").write_text("raise RuntimeError('not finished')")
        service.signal(signal.SIGHUP)
        service.wait_output("rolling restart stopped")
        load.wait_for(50)
        assert service.pids(" [") == before
        (trouble,) = troubles(service)
        assert trouble.startswith(
            "rolling restart stopped, new <Answering_1|1> did not get ready: the old goes on (0 of 2 done)\nTraceback"
        )
        assert trouble.endswith("RuntimeError: not finished\n")
        stopped = load.wait_for(0)
        write(program, "mended")
        roll(service)
        done = load.wait_for(load.in_flight)
        load.wait_for(50)
    assert {answer["model"] for answer in load.answers[:stopped]} == {"old"}
    assert {answer["model"] for answer in load.answers[done:]} == {"mended"}
    assert load.counts == {200: len(load.answers)}
    assert len(troubles(service)) == 1


def test_a_replacement_that_dies_leaves_the_old_worker_serving(serve: Serve, program: Path) -> None:
    service = serve(program, *PATIENT).wait_ready()
    service.wait_outputs("> ready", 2)
    before = service.pids(" [")
    program.with_name("model.py").write_text("import os; os.kill(os.getpid(), 11)")
    with Load(service) as load:
        service.signal(signal.SIGHUP)
        service.wait_output("rolling restart stopped")
        load.wait_for(50)
    assert service.pids(" [") == before
    assert [trouble.partition("\n")[2] for trouble in troubles(service)] == ["it ended with SIGSEGV"]
    assert load.counts == {200: len(load.answers)}


def test_code_that_fails_where_the_old_worker_has_gone(serve: Serve, program: Path) -> None:
    """It is tried again as after any death; until it works, the other replica serves."""
    service = serve(program, "--rolling", "replace", *PATIENT).wait_ready()
    service.wait_outputs("> ready", 2)
    with Load(service) as load:
        program.with_name("model.py").write_text("raise RuntimeError('not finished')")
        service.signal(signal.SIGHUP)
        service.wait_output(r"rolling restart stopped, new <Answering_1\|1> did not get ready: tried again \(0 of 2")
        service.wait_outputs(r"<Answering_1\|1> failed to start", 1)
        load.wait_for(50)
        write(program, "mended")
        service.wait_outputs(r"<Answering_1\|1> ready", 2)
        roll(service)
        done = load.wait_for(load.in_flight)
        load.wait_for(50)
    assert {answer["model"] for answer in load.answers[done:]} == {"mended"}
    assert load.counts == {200: len(load.answers)}


def test_forked_workers_keep_their_code(serve: Serve) -> None:
    """They are replaced all the same, and the log says what that cannot do."""
    service = serve(REPLICAS, "1", "fork", *PATIENT).wait_ready()
    before = service.pids(" [")
    with Load(service) as load:
        roll(service)
        load.wait_for(50)
    assert load.counts == {200: len(load.answers)}
    assert not set(service.pids(" [")) & set(before)
    assert troubles(service) == ["First_1, Middle_2, Last_3: forked workers keep the code that this process has loaded"]


# ---- what else happens meanwhile -----------------------------------------------------------------------

HELD = """
    import os, signal, sys, time
    from mosec_cy import Server, Worker, get_logger

    class Held(Worker):
        def __init__(self):
            gate = os.path.join(sys.argv[1], "start")
            if os.path.exists(gate):
                get_logger().info(f"{os.getpid()} waits at the start")
            while os.path.exists(gate):
                time.sleep(0.01)

        def forward(self, data):
            if data != "wait":
                return [os.getpid(), "at once"]
            get_logger().info(f"{os.getpid()} waits at the request")
            with open(os.path.join(sys.argv[1], "request")) as gate:  # a FIFO: until somebody writes
                return [os.getpid(), gate.read()]

    if __name__ == "__main__":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        server = Server()
        server.append_worker(Held, num=int(sys.argv[2]))
        server.run()
"""


class Gates:
    """Where the workers of HELD wait."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        os.mkfifo(directory / "request")

    def close_start(self) -> None:
        """Processes that start from now on wait."""
        (self.directory / "start").touch()

    def open_start(self) -> None:
        (self.directory / "start").unlink()

    def open_request(self, text: str) -> None:
        (self.directory / "request").write_text(text)


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    directory = tmp_path / "gates"
    directory.mkdir()
    return Gates(directory)


def start_held(serve: Serve, gates: Gates, num: int = 1, *arguments: str) -> Service:
    service = serve(HELD, str(gates.directory), str(num), *(arguments or PATIENT)).wait_ready()
    service.wait_outputs("> ready", num)
    return service


def waiting_at(service: Service, gate: str) -> int:
    """The pid of the first worker that waits there."""
    return int(service.wait_output(rf"(\d+) waits at the {gate}")[1])


def kill(service: Service, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    service.wait_output(r"ended by itself with SIGKILL")


def ask(service: Service, what: object = 1) -> tuple[int, str]:
    """The worker's pid and what it said."""
    with service.client() as client:
        pid, text = client.post("/inference", json=what).json()
        return pid, text


@MODES
def test_a_long_request_is_finished(serve: Serve, gates: Gates, mode: str) -> None:
    service = start_held(serve, gates, 1, "--rolling", mode, *PATIENT)
    (old,) = service.pids(" [")
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(ask, service, "wait")
        assert waiting_at(service, "request") == old
        service.signal(signal.SIGHUP)
        if mode == "surge":  # the new one serves already
            service.wait_outputs("> ready", 2)
            new, _ = ask(service)
            assert new != old
        else:
            service.wait_output("rolling restart of 1 workers begins")
        gates.open_request("finished")
        assert long.result() == (old, "finished")
    service.wait_output("rolling restart done")
    assert ask(service)[0] != old
    assert troubles(service) == []


def test_a_request_without_end_is_timed_out(serve: Serve, gates: Gates) -> None:
    """Its client has its answer when its time is over; then the old process is killed."""
    service = start_held(serve, gates, 1, "--timeout", "500", "--kill-grace", "200")
    (old,) = service.pids(" [")
    with service.client() as client, ThreadPoolExecutor(1) as pool:
        endless = pool.submit(client.post, "/inference", json="wait")
        waiting_at(service, "request")
        os.kill(old, signal.SIGSTOP)  # as in C code that does not come back
        service.signal(signal.SIGHUP)
        assert endless.result().status_code == 408
        service.wait_output("rolling restart done")
    assert service.pids(" [") == [ask(service)[0]] != [old]


def test_requests_for_a_restart_during_one(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 1)
    gates.close_start()
    service.signal(signal.SIGHUP)
    first = waiting_at(service, "start")
    service.signal(signal.SIGHUP)
    service.wait_outputs("a rolling restart is under way: one more follows it", 1)
    gates.open_start()
    service.wait_outputs("rolling restart done", 2)
    assert replaced(service)["<Held_1|1>"][0] == first
    assert service.pids(" [") == [ask(service)[0]] == [replaced(service)["<Held_1|1>"][1]]


def test_a_request_for_a_restart_before_the_start_is_over(serve: Serve, gates: Gates) -> None:
    gates.close_start()
    service = serve(HELD, str(gates.directory), "1", *PATIENT)
    first = waiting_at(service, "start")
    service.signal(signal.SIGHUP)
    service.wait_output("the service is still starting: a rolling restart follows")
    gates.open_start()
    service.wait_ready()
    service.wait_output("rolling restart done")
    assert replaced(service)["<Held_1|1>"][0] == first
    assert ask(service)[0] != first


@MODES
def test_shutdown_during_a_restart(serve: Serve, gates: Gates, mode: str) -> None:
    service = start_held(serve, gates, 2, "--rolling", mode, *PATIENT)
    gates.close_start()
    service.signal(signal.SIGHUP)
    waiting_at(service, "start")
    service.signal(signal.SIGTERM)
    assert service.wait_end() == 0
    assert "rolling restart given up: the service is shutting down" in service.messages
    assert troubles(service) == []


@MODES
def test_shutdown_while_an_old_one_finishes(serve: Serve, gates: Gates, mode: str) -> None:
    service = start_held(serve, gates, 1, "--rolling", mode, *PATIENT)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(ask, service, "wait")
        old = waiting_at(service, "request")
        service.signal(signal.SIGHUP)
        service.wait_output("rolling restart of 1 workers begins")
        if mode == "surge":
            service.wait_outputs("> ready", 2)
        service.signal(signal.SIGTERM)
        service.wait_output("SIGTERM: shutting down")
        service.signal(signal.SIGHUP)
        service.wait_output("no rolling restart: the service is shutting down")
        gates.open_request("finished")
        assert long.result() == (old, "finished")
    assert service.wait_end() == 0
    assert troubles(service) == []


def test_the_old_one_dies_before_the_new_one_is_ready(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 1)
    (old,) = service.pids(" [")
    gates.close_start()
    service.signal(signal.SIGHUP)
    new = waiting_at(service, "start")
    kill(service, old)
    gates.open_start()
    service.wait_output("rolling restart done")
    assert ask(service)[0] == new
    assert service.pids(" [") == [new]


def test_the_new_one_dies_while_the_old_one_finishes(serve: Serve, gates: Gates) -> None:
    """It is started again before the next replica has its turn."""
    service = start_held(serve, gates, 1)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(ask, service, "wait")
        old = waiting_at(service, "request")
        service.signal(signal.SIGHUP)
        service.wait_outputs("> ready", 2)
        kill(service, next(pid for pid in service.pids(" [") if pid != old))
        service.wait_outputs("> ready", 3)
        gates.open_request("finished")
        assert long.result() == (old, "finished")
    service.wait_output("rolling restart done")
    assert service.pids(" [") == [ask(service)[0]] == [replaced(service)["<Held_1|1>"][1]]


def test_the_old_one_dies_while_it_finishes(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 1)
    with service.client() as client, ThreadPoolExecutor(1) as pool:
        long = pool.submit(client.post, "/inference", json="wait")
        old = waiting_at(service, "request")
        service.signal(signal.SIGHUP)
        service.wait_outputs("> ready", 2)
        kill(service, old)
        assert long.result().status_code == 500  # as for any worker that dies
        service.wait_output("rolling restart done")
    assert service.pids(" [") == [ask(service)[0]]


def test_another_one_dies_meanwhile(serve: Serve, gates: Gates) -> None:
    service = start_held(serve, gates, 2)
    gates.close_start()
    service.signal(signal.SIGHUP)
    new = waiting_at(service, "start")
    second = service.pids("[2]")[0]
    kill(service, second)
    service.wait_outputs("waits at the start", 2)
    gates.open_start()
    service.wait_output("rolling restart done")
    assert service.pids("[1]") == [new]
    assert service.pids("[2]") == [replaced(service)["<Held_1|2>"][1]] != [second]


# ---- the signal ----------------------------------------------------------------------------------------


def test_a_hang_up_of_the_terminal_ends_nobody(serve: Serve, gates: Gates) -> None:
    """It is sent to all processes: core and workers leave it to the master."""
    service = start_held(serve, gates, 2)
    before = service.pids(" [")
    core = service.pids("mosec_cy: core")
    os.killpg(service.process.pid, signal.SIGHUP)
    service.wait_output("rolling restart done")
    assert {old for old, _ in replaced(service).values()} == set(before)
    assert service.pids("mosec_cy: core") == core
    assert troubles(service) == []


def test_a_hang_up_that_is_ignored_stays_so(serve: Serve, gates: Gates) -> None:
    """As under nohup, in all processes."""
    source = re.sub(r"signal\.signal\(.*\)", "signal.signal(signal.SIGHUP, signal.SIG_IGN)", HELD)
    service = serve(source, str(gates.directory), "2", *PATIENT).wait_ready()
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
