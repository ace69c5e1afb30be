"""Threads of user code do not keep a worker alive that serves no more."""

import textwrap
from collections.abc import Callable

from tests.service import Service

PROGRAM = """
    import sys, threading
    from mosec_cy import Server, Worker

    class Threaded(Worker):
        def __init__(self):
            threading.Thread(target=threading.Event().wait).start()  # for ever, and not a daemon
            {init}

        def forward(self, data):
            if data == "leave":
                sys.exit(7)
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Threaded, start_method={method!r})
        server.run()
"""


def program(init: str = "pass", method: str = "spawn") -> str:
    return textwrap.dedent(PROGRAM).format(init=init, method=method)


def test_a_worker_that_fails_to_start_ends_with_its_threads(serve: Callable[..., Service]) -> None:
    service = serve(program(init='raise ValueError("no model here")'))
    assert service.wait_end() != 0
    assert "no model here" in service.output


def test_a_worker_that_leaves_its_loop_ends_with_its_threads(serve: Callable[..., Service]) -> None:
    for method in "spawn", "fork":
        service = serve(program(method=method), "--timeout", "60000").wait_ready()
        with service.client() as client:
            assert client.post("/inference", json="leave").status_code == 500  # long before the time-out
            assert client.post("/inference", json="stay").json() == "stay"
        service.stop()
        assert "SystemExit: 7" in service.output
