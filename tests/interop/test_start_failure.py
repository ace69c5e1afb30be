"""Starts that fail: what the log says, and with what status it ends."""

import socket
from pathlib import Path

import pytest

from tests.programs import ECHO, broken_start
from tests.service import Serve

FAILING_WARM_UP = """
    from mosec_cy import Server, Worker

    class Picky(Worker):
        example = "not a number"

        def forward(self, data):
            return data + 1

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Picky)
        server.run()
"""


def test_a_failing_warm_up_is_logged(serve: Serve) -> None:
    service = serve(FAILING_WARM_UP).wait_ready()
    (record,) = [record for record in service.records if "warm-up failed" in record["fields"]["message"]]
    assert "TypeError" in record["fields"]["exc_info"]
    with service.client() as client:
        assert client.post("/inference", json=1).json() == 2


def test_a_failing_warm_up_stops_a_strict_server(serve: Serve) -> None:
    service = serve(FAILING_WARM_UP, "--strict-warmup")
    assert service.wait_end() == 1
    assert service.output.count("failed to start") == 3


def test_a_worker_that_never_starts(serve: Serve) -> None:
    service = serve(broken_start())
    assert service.wait_end() == 1
    failures = [message for message in service.messages if message.startswith("<Broken_2|1> failed to start")]
    assert len(failures) == 3
    assert 'raise OSError("no such model")\nOSError: no such model' in failures[0]
    assert "mosec_cy/" not in failures[0]  # none of our frames
    assert all(text.startswith("as before: OSError: no such model\n", 29) for text in failures[1:]), failures
    assert [text.rpartition("\n")[2] for text in failures] == [
        "It failed while loading: attempt 1 of 3, it is started again in 0.1 s",
        "It failed while loading: attempt 2 of 3, it is started again in 0.2 s",
        "It failed while loading: attempt 3 of 3",
    ]
    assert "<Broken_2|1> never got ready, the server gives up" in service.messages


@pytest.mark.parametrize("ending", ["sys.exit('why')", "os._exit(7)", "os.kill(os.getpid(), 11)"])
def test_a_worker_that_ends_in_its_start(serve: Serve, ending: str) -> None:
    service = serve(broken_start(ending))
    assert service.wait_end() == 1
    reason = {"sys.exit('why')": "SystemExit: why", "os._exit(7)": "status 7"}.get(ending, "SIGSEGV")
    assert sum(reason in message for message in service.messages) == 3


def test_a_worker_that_starts_at_the_second_attempt(serve: Serve, tmp_path: Path) -> None:
    source = """
        import pathlib, sys
        from mosec_cy import Server, Worker

        class Moody(Worker):
            def __init__(self):
                marker = pathlib.Path(sys.argv[1])
                if not marker.exists():
                    marker.touch()
                    raise RuntimeError("not today")

            def forward(self, data):
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Moody)
            server.run()
    """
    service = serve(source, str(tmp_path / "marker")).wait_ready()
    assert sum("not today" in message for message in service.messages) == 1


def test_a_port_in_use(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        service = serve(ECHO, "--address", "127.0.0.1", "--port", port)
        assert service.wait_end() == 1
    assert f"127.0.0.1:{port} is in use: choose a free one with --port or --address" in service.output
    assert "run returned" not in service.output
    assert "Traceback" not in service.output


def test_a_program_without_a_main_guard(serve: Serve) -> None:
    service = serve(ECHO.replace('if __name__ == "__main__":', "if True:"))
    assert service.wait_end() == 1
    (error,) = [record["fields"]["message"] for record in service.records if record["level"] == "ERROR"]
    assert error.startswith("<Echo_1|1> failed to start: run() was called while a worker process imports")
    assert 'put it under `if __name__ == "__main__":`' in error
    assert "Traceback" not in service.output


def test_run_outside_the_main_thread(serve: Serve) -> None:
    in_thread = "import threading; t = threading.Thread(target=server.run); t.start(); t.join()"
    service = serve(ECHO.replace("server.run()", in_thread))
    service.wait_end()
    assert "run() must be called in the main thread" in service.output
    assert "Traceback" not in service.output


MISTAKES = {
    "Server().run()": "no worker registered: call append_worker",
    "Server().append_worker(Echo())": "worker must be a class derived from mosec_cy.Worker",
    "Server().append_worker(Worker)": "worker Worker must define forward",
    "Server(prt=1)": "unknown option 'prt'",
    "Server().append_worker(type('Bad', (Worker,), {'forward': lambda self: 1}))": "Bad.forward must take one argument",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_its_place(serve: Serve, mistake: str) -> None:
    service = serve(ECHO.replace("server = Server()", mistake))
    assert service.wait_end() == 1
    (error,) = service.messages
    assert error.startswith(MISTAKES[mistake])
    assert error.endswith("service.py, line 9)")
    assert len(service.lines) == 1


@pytest.mark.parametrize("dry", [True, False])
def test_a_result_that_is_no_list(serve: Serve, dry: bool) -> None:
    source = ECHO.replace("return data", "return 1.5").replace("(Echo)", "(Echo, max_batch_size=4)")
    source = source.replace("Worker):", "Worker):\n        example = [1]\n")
    service = serve(source, "--dry-run" if dry else "--strict-warmup")
    assert service.wait_end() == 1
    (error,) = [record["fields"]["message"] for record in service.records if record["level"] == "ERROR"]
    assert "forward returned float for a batch: with max_batch_size > 1 it must return a list" in error
    assert "Traceback" not in service.output
