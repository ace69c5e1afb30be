"""SIGHUP replaces the workers one by one, and no client notices."""

from __future__ import annotations

import json
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
