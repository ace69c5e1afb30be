"""Routes, runtimes and arguments under Mosec and under mosec_cy: the same places, types and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parity.peer import Pair, running, write
from tests.service import ROOT
from tests.until import PATIENCE

PROGRAM = """
    import os

    from PACKAGE import Runtime, Server, Worker

    class Tell(Worker):
        def forward(self, data):
            card = os.environ.get("CARD") or None
            return [type(self).__name__, self.worker_id, self.stage, self.max_batch_size, card]

    class TellBatch(Tell):
        def forward(self, data):
            return [super(TellBatch, self).forward(None) for _ in data]

    class Add(Worker):
        def forward(self, data):
            return [*data, [self.stage, self.worker_id, self.max_batch_size, os.environ.get("CARD") or None]]

    class AddText(Add):
        resp_mime_type = "text/x-names"

        def serialize(self, data):
            return repr(data).encode()

    class Other(AddText):
        resp_mime_type = "application/x-other"

        def forward(self, data):
            return [super(Other, self).forward(item) for item in data]

    class Nothing(Worker):
        def forward(self, data):
            return None

    class Slow(Worker):
        def forward(self, data):
            import time
            time.sleep(data)
            return os.environ.get("CARD")

    if __name__ == "__main__":
        server = Server()
        shared = Runtime(Add, num=1)
        server.register_runtime({
            "/one": [shared],
            "/two": [shared, Runtime(AddText)],
            "/three": [Runtime(Add), shared, Runtime(Other, 1, 4, 1, 2, "fork", [{"CARD": "7"}])],
        })
        server.append_worker(Tell, num=2, env=[{"CARD": "a"}, {"CARD": "b"}], route=["/tell", "/tell/again"])
        server.append_worker(TellBatch, max_batch_size=4, max_wait_time=1, start_method="fork",
                             env=[{"CARD": "c"}], route="/fork")
        server.append_worker(Slow, timeout=1, route="/slow")
        server.append_worker(Tell, start_method="fork", num=2, route="/one/more")
        server.append_worker(Nothing, route="/nothing")
        server.append_worker(AddText, route="/one")
        server.run()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(PROGRAM, tmp_path_factory) as pair:
        yield pair


@pytest.mark.parametrize("path", ["/one", "/two", "/three", "/fork"])
def test_stages(pair: Pair, path: str) -> None:
    """Names and numbers of stages, the worker's number, its environment and the answer's type."""
    theirs, ours = pair.ask("POST", path, json=[])
    assert ours == theirs
    assert ours.status == 200


def test_each_replica_has_its_environment(pair: Pair) -> None:
    for paths, cards in ((["/tell", "/tell/again"], {1: "a", 2: "b"}), (["/one/more"], {1: None, 2: None})):
        for client in (pair.theirs, pair.ours):
            for path in paths * 4:
                name, worker_id, stage, size, card = client.post(path, json=[]).json()
                assert (name, size, card) == ("Tell", 1, cards[worker_id])
                assert stage == client.post(paths[0], json=[]).json()[2]
    theirs, ours = (
        {path: c.post(path, json=[]).json()[2] for path in ("/tell", "/one/more")} for c in (pair.theirs, pair.ours)
    )
    assert ours == theirs


def test_timeout_and_none(pair: Pair) -> None:
    theirs, ours = pair.ask("POST", "/slow", json=2)
    assert ours.status == theirs.status == 408
    theirs, ours = pair.ask("POST", "/nothing", json=0)
    assert ours == theirs


def test_the_environment_of_others_differs(pair: Pair) -> None:
    """Mosec leaves the names of one worker's environment, empty, to those that start later."""
    theirs, ours = pair.ask("POST", "/slow", json=0)
    assert (theirs.body, ours.body) == ("", None)


CALLS = """
    import json, subprocess, sys
    from PACKAGE import Runtime, Server, Worker

    class W(Worker):
        def forward(self, data):
            return data

    def outcome(call):
        try:
            eval(call)
        except Exception as error:
            return type(error).__name__
        return None

    calls = json.loads(sys.argv.pop())
    print(json.dumps([outcome(call) for call in calls]))
"""

REFUSED_BY_BOTH = [
    "Server().append_worker(W, num=0)",
    "Server().append_worker(W, num=-1)",
    "Server().append_worker(W, num=1.5)",
    "Server().append_worker(W, num='1')",
    "Server().append_worker(W, max_batch_size=0)",
    "Server().append_worker(W, max_batch_size=2.5)",
    "Server().append_worker(W, max_wait_time=1.5)",
    "Server().append_worker(W, timeout='x')",
    "Server().append_worker(W, start_method='forkserver')",
    "Server().append_worker(W, start_method=None)",
    "Server().append_worker(int)",
    "Server().append_worker(W())",
    "Server().append_worker(None)",
    "Server().append_worker(W, num=2, env=[{'a':'b'}])",
    "Server().append_worker(W, env={'a':'b'})",
    "Server().append_worker(W, env=[{'a':1}])",
    "Server().append_worker(W, env=[1])",
    "Server().append_worker(W, env=[])",
    "Server().append_worker(W, route='/')",
    "Server().append_worker(W, route='/metrics')",
    "Server().append_worker(W, route='/openapi')",
    "Server().append_worker(W, route=['/a','/'])",
    "Runtime(W, num=0)",
    "Runtime(int)",
    "Runtime(W, max_batch_size=0)",
    "Runtime(W, start_method='x')",
    "Runtime(W, env=[1])",
    "Runtime(W, timeout=-1)",
    "Runtime(W, max_wait_time=1.5)",
    "Server().register_runtime({'/': [Runtime(W)]})",
    "Server().register_runtime({'/x': [W]})",
    "Server().register_runtime([])",
    "Server().register_runtime({'/x': Runtime(W)})",
    "(lambda s: (s.append_worker(W), s.register_runtime({'/x': [Runtime(W)]})))(Server())",
    "(lambda s: (s.register_runtime({'/x': [Runtime(W)]}), s.register_runtime({'/y': [Runtime(W)]})))(Server())",
    "Server().register_daemon('x', 1)",
    "Server().register_daemon(1, subprocess.Popen(['true']))",
    "Server().run()",
    "Server().append_worker(W, nosuch=1)",
    "Server().append_worker()",
    "Runtime()",
]

REFUSED_BY_OURS = [
    "Server().append_worker(W, max_batch_size=2, max_wait_time=-1)",
    "Server().append_worker(W, timeout=-1)",
    "Server().append_worker(W, route='/openapi/x')",
    "Server().append_worker(W, route='')",
    "Server().append_worker(W, route='x')",
    "Server().append_worker(W, route=[])",
    "Server().append_worker(W, route=1)",
    "Server().append_worker(W, route=['/a',1])",
    "Server().register_runtime({'/x': []})",
    "Server().register_runtime({})",
]

TAKEN_BY_BOTH = [
    "Server().append_worker(W, timeout=1.5)",
    "(lambda s: (s.register_runtime({'/x': [Runtime(W)]}), s.append_worker(W,route='/x')))(Server())",
]


def outcomes(package: str, calls: list[str], directory: Path) -> list[str | None]:
    """The names of the exceptions that the calls end with."""
    script = write(CALLS, package, directory)
    result = subprocess.run(
        [sys.executable, str(script), json.dumps(calls)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )
    found: list[str | None] = json.loads(result.stdout)
    return found


def test_arguments(tmp_path: Path) -> None:
    pytest.importorskip("mosec", reason="Mosec is not installed")
    calls = REFUSED_BY_BOTH + REFUSED_BY_OURS + TAKEN_BY_BOTH
    theirs = dict(zip(calls, outcomes("mosec", calls, tmp_path), strict=True))
    ours = dict(zip(calls, outcomes("mosec_cy", calls, tmp_path), strict=True))
    assert {call for call in calls if theirs[call] is None} == {*REFUSED_BY_OURS, *TAKEN_BY_BOTH}
    assert {call for call in calls if ours[call] is None} == set(TAKEN_BY_BOTH)
    assert set(ours.values()) == {None, "TypeError", "ValueError", "RuntimeError"}
