"""`--dry-run`: examples through all routes, nothing listens, and the status tells whether all went well."""

import re
import signal
from pathlib import Path

import pytest

from tests.service import Serve, Service

ROUTES = """
    import os, pickle
    from prometheus_client import Counter
    from mosec_cy import Runtime, Server, Worker, get_logger

    SEEN = Counter("seen", "at module level")

    class Text(Worker):
        multi_examples = ["one", "twenty"]
        example = "never used"

        def __init__(self):
            get_logger().info("%s starts in %d", self.stage, os.getpid())

        def forward(self, data):
            return {"text": data}

        def serialize_ipc(self, data):
            return b"own " + pickle.dumps(data)

    class Batch(Text):
        multi_examples = ()
        example = ["a", "bc", "def"]

        def forward(self, data):
            get_logger().info("batch of %d", len(data))
            return [{"text": text} for text in data]

    class Length(Text):
        def deserialize_ipc(self, data):
            assert isinstance(data, bytearray) and data[:4] == b"own "
            return pickle.loads(data[4:])

        def forward(self, data):
            get_logger().info("lengths of %d", len(data))
            return [len(item["text"]) for item in data]

        def serialize(self, data):
            view = self.new_buffer(data)
            view[:] = b"x" * data
            return view

    if __name__ == "__main__":
        method = os.environ["METHOD"]
        length = Runtime(Length, num=2, max_batch_size=2, start_method=method)
        server = Server()
        server.register_runtime({
            "/text": [Runtime(Text, num=3, start_method=method, env=[{"A": "1"}] * 3), length],
            "/batch": [Runtime(Batch, max_batch_size=4, start_method=method), length],
        })
        server.run()
        print("run returned")
"""


def printed(service: Service) -> list[str]:
    """Its lines about sizes, without the durations, which differ."""
    lines = [line for line in service.lines if re.match(r"/|  ", line)]
    return [re.sub(r"\d+\.\d{3} ms", "T", line) for line in lines]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_all_routes_are_tried(serve: Serve, method: str) -> None:
    service = serve(ROUTES, "--dry-run", env={"METHOD": method})
    assert service.wait_end() == 0
    assert len(re.findall(r"starts in \d+", service.output)) == 3  # one process a stage, whatever `num` is
    lines = printed(service)
    sizes = [int(size) for size in re.findall(r"T, (\d+) bytes to the next stage", "\n".join(lines))]
    assert sizes[1] == sizes[0] + 3  # "twenty" has three letters more than "one"
    assert [line for line in lines if "next stage" not in line] == [
        "/text: example 1 of 2",
        "  Length_1: 1 x forward, T, 3 bytes to the client",
        "/text: example 2 of 2",
        "  Length_1: 1 x forward, T, 6 bytes to the client",
        "/batch: example 1 of 1",
        "  Length_1: 2 x forward, T, 1 + 2 + 3 = 6 bytes to the client",
    ]
    batches = [message for message in service.messages if " of " in message]
    assert batches == ["lengths of 1", "lengths of 1", "batch of 3", "lengths of 2", "lengths of 1"]
    assert "dry run successful" in service.messages
    assert "run returned" in service.lines
    assert not [message for message in service.messages if "listening" in message]


def test_the_environment_asks_for_it_as_well(serve: Serve) -> None:
    service = serve(ROUTES, env={"METHOD": "spawn", "MOSEC_DRY_RUN": "true"})
    assert service.wait_end() == 0
    assert "dry run successful" in service.messages


FAILING = """
    import os, sys
    from mosec_cy import Server, ValidationError, Worker

    class First(Worker):
        {example}

        def forward(self, data):
            return data

    class Second(Worker):
        def __init__(self):
            {init}

        def forward(self, data):
            {forward}

    if __name__ == "__main__":
        server = Server()
        server.append_worker(First)
        server.append_worker(Second, max_batch_size={batch})
        server.run()
"""


@pytest.mark.parametrize(
    ("changed", "message", "traceback"),
    [
        ({"forward": "raise LookupError('no such word')"}, "<Second_2|1> failed in the dry run", "no such word"),
        ({"forward": "raise ValidationError('bad')"}, "<Second_2|1> failed in the dry run", "ValidationError: bad"),
        (
            {"forward": "return [KeyError('key')]", "batch": "2"},
            "<Second_2|1> failed in the dry run",
            "KeyError: 'key'",
        ),
        ({"forward": "return []", "batch": "2"}, "<Second_2|1> failed", "returned 0 results for a batch of 1"),
        ({"forward": "return {'a': 1}", "batch": "2"}, "<Second_2|1> failed", "forward returned dict for a batch"),
        ({"forward": "yield data"}, "<Second_2|1> failed", "derived from SSEWorker"),
        ({"forward": "return object()"}, "<Second_2|1> failed in the dry run", "EncodingError"),
        ({"init": "raise OSError('no model')"}, "<Second_2|1> failed in the dry run", "OSError: no model"),
        ({"forward": "os.kill(os.getpid(), 9)"}, "<Second_2|1> ended in the dry run with SIGKILL", ""),
        ({"forward": "sys.exit(5)"}, "<Second_2|1> failed in the dry run", "SystemExit: 5"),
        ({"example": "pass"}, "route '/inference' cannot be tried: give First, its first stage, an `example`", ""),
    ],
)
def test_what_fails_ends_it_with_the_reason(
    serve: Serve, changed: dict[str, str], message: str, traceback: str
) -> None:
    parts = {"example": "example = 1", "init": "pass", "forward": "return data", "batch": "1"} | changed
    service = serve(FAILING.format(**parts), "--dry-run")
    assert service.wait_end() == 1
    (error,) = [record["fields"]["message"] for record in service.records if record["level"] == "ERROR"]
    assert error.startswith(message)
    assert traceback in service.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_its_processes_end_with_it(serve: Serve, number: signal.Signals) -> None:
    service = serve(
        """
        import signal
        from mosec_cy import Server, Worker, get_logger

        class Endless(Worker):
            example = 1

            def forward(self, data):
                get_logger().info("forward")
                while True:
                    signal.pause()

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Endless)
            server.append_worker(Endless, start_method="fork")
            server.run()
        """,
        "--dry-run",
    )
    service.wait_output("forward")
    service.signal(number)
    assert service.wait_end() != 0
    assert "Traceback" not in service.output


def test_large_arrays_and_daemons(serve: Serve, tmp_path: Path) -> None:
    service = serve(
        """
        import subprocess
        import numpy
        from mosec_cy import Server, Worker

        class Make(Worker):
            example = 80 << 20

            def forward(self, data):
                return numpy.zeros(data, numpy.uint8)

        class Measure(Worker):
            def forward(self, data):
                return data.nbytes

        if __name__ == "__main__":
            server = Server()
            server.register_daemon("sleeper", subprocess.Popen(["sleep", "infinity"]))
            server.append_worker(Make)
            server.append_worker(Measure)
            server.run()
        """,
        "--dry-run",
    )
    assert service.wait_end() == 0
    assert "  Measure_2: 1 x forward, T, 8 bytes to the client" in printed(service)


def test_only_an_sse_worker_answers_with_events(serve: Serve) -> None:
    """Whatever another one calls its methods."""
    service = serve(
        """
        from mosec_cy import SSEWorker, Server, Worker

        class Events(SSEWorker):
            example = "text"

            def forward(self, data):
                assert self.send_stream_event(data)

        class Sender(Worker):
            example = "text"

            def send_stream_event(self, text):
                raise AssertionError

            def forward(self, data):
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Events, route="/events")
            server.append_worker(Sender, route="/plain")
            server.run()
        """,
        "--dry-run",
    )
    assert service.wait_end() == 0
    assert [line for line in printed(service) if line.startswith("  ")] == [
        "  Events_1: 1 x forward, T, events to the client",
        "  Sender_2: 1 x forward, T, 6 bytes to the client",
    ]


def test_coroutines_and_generators_run(serve: Serve) -> None:
    service = serve(
        """
        import asyncio
        from mosec_cy import Server, SSEWorker, Worker, get_logger

        class First(Worker):
            example = 2

            async def forward(self, data):
                await asyncio.sleep(0)
                return [data, "text"]

        class Single(SSEWorker):
            def forward(self, data):
                get_logger().info("single %s", data)
                yield data[1]

        class Batch(SSEWorker):
            async def forward(self, data):
                get_logger().info("batch %s", data)
                await asyncio.sleep(0)
                yield 0, data[0][1]

        if __name__ == "__main__":
            server = Server()
            server.append_worker(First, route=["/single", "/batch"])
            server.append_worker(Single, route="/single")
            server.append_worker(Batch, route="/batch", max_batch_size=4)
            server.run()
        """,
        "--dry-run",
    )
    assert service.wait_end() == 0
    assert [text for text in service.messages if text.startswith(("single", "batch"))] == [
        "single [2, 'text']",
        "batch [[2, 'text']]",
    ]
    assert printed(service).count("  Single_2: 1 x forward, T, events to the client") == 1
