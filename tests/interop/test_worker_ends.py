"""A service whose worker ends in each way and phase: its client hears at once, others are served, it comes back."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

from tests.service import Service

PROGRAM = """
    import ctypes, os, signal
    from mosec_cy import Server, Worker

    ENDS = {
        "segv": lambda: ctypes.string_at(0),
        "abort": os.abort,
        "exit": lambda: os._exit(0),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }

    class Mortal(Worker):
        def end(self, phase, data):
            if data.startswith(phase):
                ENDS[data.removeprefix(phase + "-")]()

        def deserialize(self, data):
            text = data.decode()
            self.end("decode", text)
            return text

        def forward(self, data):
            for text in data if isinstance(data, list) else [data]:
                self.end("forward", text)
                if text == "memory":
                    bytearray(1 << 62)
            return data

        def serialize(self, data):
            self.end("encode", data)
            return data.encode()

    class Other(Mortal):
        pass

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Mortal, start_method="fork")
        server.append_worker(Other, start_method="fork", route="/other")
        batch = {"max_batch_size": 4, "max_wait_time": 5000}
        server.append_worker(Mortal, start_method="fork", route="/retried", retry=1, **batch)
        server.run()
"""
DIED = "inference internal error: the worker process died"


def test_each_way_to_end_in_each_phase(serve: Callable[..., Service]) -> None:
    service = serve(PROGRAM, "--timeout", "25000").wait_ready()
    with service.client() as client:
        for how in ("decode-segv", "forward-exit", "encode-abort", "forward-kill"):
            answer = client.post("/inference", content=how)
            assert (answer.status_code, answer.text) == (500, DIED)
            assert client.post("/other", content="x").text == "x"  # while that one is down
            assert client.post("/inference", content=how[::-1]).text == how[::-1]  # waits for the next process


def test_an_allocation_that_fails_is_no_death(serve: Callable[..., Service]) -> None:
    service = serve(PROGRAM).wait_ready()
    with service.client() as client:
        answer = client.post("/inference", content="memory")
        assert (answer.status_code, answer.text) == (500, "inference internal error")
        assert client.post("/inference", content="x").text == "x"
    assert not [message for message in service.messages if "ended by itself" in message]


def test_mates_of_a_request_that_kills_its_worker_survive(serve: Callable[..., Service]) -> None:
    service = serve(PROGRAM, "--timeout", "25000").wait_ready()
    bodies = ["a", "forward-segv", "b", "c"]
    with service.client() as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: client.post("/retried", content=body), bodies))
    assert [answer.status_code for answer in answers] == [200, 500, 200, 200]
    assert [answer.text for answer in answers] == ["a", DIED, "b", "c"]
