"""Core dies while workers are at work: what they do is for nobody, what they keep stays theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.interop.core_deaths import BACK, ask, kill_core, wait_attached
from tests.service import Serve, Service

HANGS = """
    import os, signal, sys
    from mosec_cy import Server, Worker, get_logger

    class Slow(Worker):
        def deserialize(self, data):
            if data == b"decode":
                get_logger().info("decoding")
                with open(sys.argv[1]) as gate:
                    gate.read()
            return data

        def forward(self, data):
            if data == b"hang":
                get_logger().info("in forward")
                while True:
                    signal.pause()
            return os.getpid()

    if __name__ == "__main__":
        server = Server(timeout=60_000)
        server.append_worker(Slow, num=int(sys.argv[2]), timeout=0.3)
        server.run()
"""


@contextmanager
def lost_request(service: Service, value: object, sign: str = "in forward") -> Iterator[None]:
    """A request that is at work, which a log line tells; its connection breaks."""
    broken: list[httpx.TransportError] = []

    def ask_once() -> None:
        with service.client() as client:
            try:
                client.post("/inference", **({"content": value} if isinstance(value, bytes) else {"json": value}))
            except httpx.TransportError as error:
                broken.append(error)

    thread = threading.Thread(target=ask_once)
    thread.start()
    service.wait_output(sign)
    yield
    thread.join()
    assert len(broken) == 1


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_worker_that_is_in_forward(serve: Serve, gate: Path, batch_size: int) -> None:
    """It finishes, nobody hears it, and then it serves the new core, where a request waits already."""
    service = serve(
        f"""
        import os, sys
        from mosec_cy import Server, Worker, get_logger

        class Busy(Worker):
            def forward(self, data):
                items = data if isinstance(data, list) else [data]
                get_logger().info("in forward")
                if "wait" in items:
                    with open(sys.argv[1]) as gate:
                        gate.read()
                    get_logger().info("cancelled: %s", self.is_cancelled())
                answers = [f"{{item}} by {{os.getpid()}}" for item in items]
                return answers if isinstance(data, list) else answers[0]

        if __name__ == "__main__":
            server = Server(timeout=60_000)
            server.append_worker(Busy, max_batch_size={batch_size})
            server.run()
        """,
        str(gate),
    ).wait_ready()
    worker = service.wait_process("mosec_cy: Busy")
    answers: list[httpx.Response] = []
    with lost_request(service, "wait"):
        kill_core(service)
        service.wait_output(BACK)
        waiting = threading.Thread(target=lambda: answers.append(ask(service, "next")))
        waiting.start()
    gate.write_text("go on")
    waiting.join()
    assert [answer.json() for answer in answers] == [f"next by {worker}"]
    service.wait_output("cancelled: True")


def test_a_worker_that_hangs_is_replaced(serve: Serve) -> None:
    service = serve(HANGS, "-", "1", "--kill-grace", "100").wait_ready()
    worker = service.wait_process("mosec_cy: Slow")
    with lost_request(service, b"hang"):
        kill_core(service)
    assert ask(service, "else").json() != worker
    service.wait_output(r"<Slow_1.1> killed, it did not take up the work of the new core")


def test_a_worker_that_decodes_for_long_is_not(serve: Serve, gate: Path) -> None:
    """The time-out of the stage is that of `forward`."""
    service = serve(HANGS, str(gate), "2", "--kill-grace", "100").wait_ready()
    service.wait_outputs(r"\|\d> ready", 2)
    workers = service.pids("mosec_cy: Slow")
    with lost_request(service, b"decode", "decoding"), lost_request(service, b"hang"):
        kill_core(service)
    service.wait_output(r"<Slow_1.\d> killed, it did not take up the work of the new core")
    service.wait_outputs(r"\|\d> ready", 3)
    kept = set(workers) & set(service.pids("mosec_cy: Slow"))
    gate.write_text("go on")
    wait_attached(service)
    assert len(kept) == 1 and kept < set(service.pids("mosec_cy: Slow"))


STREAMS = """
    import threading
    from mosec_cy import SSEWorker, Server, get_logger

    class Streams(SSEWorker):
        def forward(self, data):
            if data == "read":
                self.send_stream_event("hello")
                return
            other = threading.Thread(target=self.send_until_refused)
            other.start()
            self.send_until_refused()
            other.join()

        def send_until_refused(self):
            while self.send_stream_event("x" * 300_000):
                get_logger().info("sent")
            get_logger().info("refused")

    if __name__ == "__main__":
        server = Server(timeout=60_000)
        server.append_worker(Streams)
        server.run()
"""


def test_streams_end(serve: Serve) -> None:
    """Also for the threads that wait for a client to read."""
    service = serve(STREAMS).wait_ready()
    worker = service.wait_process("mosec_cy: Streams")
    with service.client() as client, client.stream("POST", "/inference", json="fill") as stream:
        assert stream.status_code == 200  # and nothing is read: both threads of the worker come to wait
        service.wait_outputs('"sent"', 3)
        kill_core(service)
        service.wait_outputs('"refused"', 2)
        with pytest.raises(httpx.TransportError):
            stream.read()
    service.wait_output(BACK)
    wait_attached(service)
    assert ask(service, "read").text == "data: hello\n\n"
    assert service.pids("mosec_cy: Streams") == [worker]


def test_what_a_worker_keeps_stays_valid(serve: Serve) -> None:
    """Arrays that lie in the memory of the core before, and buffers that were made in it."""
    service = serve(
        """
        import numpy as np
        from mosec_cy import Server, Worker

        class Keeper(Worker):
            zero_copy = True
            kept = []
            buffers = []

            def deserialize(self, data):
                return np.frombuffer(data, np.uint8)

            def forward(self, array):
                if array[0] < 200:
                    self.kept.append(array)
                    self.buffers.append(self.new_buffer(100_000))
                    self.buffers[-1][:] = bytes(array[:1]) * 100_000
                return array

            def serialize(self, array):
                if array[0] == 255:
                    return b",".join(b"%d %d" % (kept.min(), kept.max()) for kept in self.kept)
                if array[0] == 254:
                    return self.buffers.pop(0)
                if array[0] == 253:
                    self.kept.clear()
                    self.buffers.clear()
                return b"ok"

        if __name__ == "__main__":
            server = Server(timeout=60_000)
            server.append_worker(Keeper)
            server.run()
        """
    ).wait_ready()
    worker = service.wait_process("mosec_cy: Keeper")
    with service.client() as client:
        for number in range(1, 6):
            assert client.post("/inference", content=bytes([number]) * 100_000).text == "ok"
    kill_core(service)
    service.wait_output(BACK)
    with service.client() as client:
        for _ in range(1000):
            assert client.post("/inference", content=bytes([222]) * 2000).text == "ok"
        assert client.post("/inference", content=b"\xff").text == "1 1,2 2,3 3,4 4,5 5"
        assert client.post("/inference", content=b"\xfe").content == b"\x01" * 100_000
        assert client.post("/inference", content=b"\xfe").content == b"\x02" * 100_000
        assert service.pids("mosec_cy: Keeper") == [worker]
        assert client.post("/inference", content=b"\xfd").text == "ok"  # the last ones are gone
        wait_attached(service)
