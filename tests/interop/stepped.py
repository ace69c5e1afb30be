"""A service whose workers do a step when a test says so, and say who was in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mosec_cy._engine.segment import Segment
from tests.accounting import memory, wait_until
from tests.http_client import Client, clients
from tests.service import Serve, Service

PATIENT = ("--timeout", "60000")

# A request has a name and a number of steps; "bad" says where it fails, and how. The first argument names a directory
# with a FIFO for each stage, of which a worker reads one byte a step.
STEPPED = """
    import functools, os, signal, sys, time
    from typing import TypedDict
    from mosec_cy import Server, SSEWorker, StepWorker, ValidationError, Worker
    from mosec_cy.mixin import TypedJSONMixin

    def said(*what):  # a line at once, in which nobody else can write
        print(" ".join(what) + "\\n", end="", flush=True)

    class Steps(StepWorker):
        def __init__(self):
            path = os.path.join(sys.argv[1], type(self).__name__)
            if not os.path.exists(path):
                os.mkfifo(path)
            self.gate = os.open(path, os.O_RDWR)

        def start(self, item):
            bad = item.get("bad")
            if bad == "start":
                raise ValidationError("start")
            if bad == "start hangs":
                signal.pause()
            return [item, 0]

        def step(self, states):
            self.begin(*[f"{item['name']}:{number}" for item, number in states])
            outcomes = []
            for index, (item, number) in enumerate(states):
                states[index] = [item, number + 1]
                bad = item.get("bad")
                if bad == "step":
                    raise ValidationError("step")
                if bad == "broken step":
                    raise RuntimeError("secret")
                if bad == "step hangs":
                    signal.pause()
                if bad == "dies":
                    os.kill(os.getpid(), 9)
                if bad == "list":
                    return {}
                if bad == "length":
                    return outcomes
                if bad == "pair":
                    return [True] * len(states)
                outcomes.append(self.outcome(index, item, number + 1))
            if any(item.get("bad") == "states" for item, _ in states):
                states.append(None)
            return outcomes

        def begin(self, *inside):
            said(type(self).__name__, "step", *inside)
            os.read(self.gate, 1)

        def outcome(self, index, item, number):
            bad = item.get("bad")
            output = item["name"]
            if bad == "output":
                output = ValidationError("output")
            if bad == "encode":
                output = object()
            return number >= item["steps"] or bad == "output", output

    class Retried(Steps):
        pass

    class Overdue(Steps):
        def begin(self, *inside):
            time.sleep(0.001)

    class Single(Steps):
        pass

    class Streams(StepWorker, SSEWorker):
        __init__, start, step, begin = Steps.__init__, Steps.start, Steps.step, Steps.begin

        def outcome(self, index, item, number):
            if not self.send_stream_event(f"{item['name']}:{number}" + "." * item.get("bytes", 0), index):
                said("refused", item["name"])
            return Steps.outcome(self, index, item, number)

    class Add(Worker):
        def forward(self, data):
            return {**data, "name": data["name"] + "+"}

    class Middle(Steps):
        pass

    class Post(Worker):
        def forward(self, data):
            return [f"<{name}>" for name in data]

    class Count(TypedDict):
        count: int

    class Typed(TypedJSONMixin, StepWorker):
        example = {"count": 3}

        def start(self, item: Count):
            return [item["count"]]

        def step(self, states):
            for state in states:
                state[0] -= 1
            return [(state[0] <= 0, len(states)) for state in states]

    if __name__ == "__main__":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may ignore it
        server = Server()
        # So many interpreters would take a second to start.
        server.append_worker = functools.partial(server.append_worker, start_method="fork")
        server.append_worker(Steps, max_batch_size=3, route="/steps")
        server.append_worker(Retried, max_batch_size=3, retry=1, route="/retried")
        server.append_worker(Overdue, max_batch_size=3, timeout=1, route="/overdue")
        server.append_worker(Single, route="/single")
        server.append_worker(Streams, max_batch_size=3, route="/streams")
        server.append_worker(Add, num=2, route="/pipeline")
        server.append_worker(Middle, max_batch_size=3, route="/pipeline")
        server.append_worker(Post, max_batch_size=2, route="/pipeline")
        server.append_worker(Typed, max_batch_size=8, route="/typed")
        server.run()
"""


class Stepped:
    """One stage of the service in the hands of a test, and its clients."""

    def __init__(self, service: Service, folder: Path, segment: Segment, stage: str) -> None:
        self.service = service
        self.route = f"/{stage.lower()}"
        self._segment = segment
        self._gate = folder / stage
        self._begins = f"{stage} step "
        self._seen = len(self._lines())

    def _lines(self) -> list[str]:
        return [line.removeprefix(self._begins) for line in self.service.lines if line.startswith(self._begins)]

    def step(self, count: int = 1) -> None:
        """Let so many steps go on."""
        gate = os.open(self._gate, os.O_RDWR)
        os.write(gate, b"x" * count)
        os.close(gate)

    def steps(self, *expected: str) -> None:
        """Wait for so many more steps to begin: who is inside, and how many steps of each are done."""
        self.service.wait_outputs(f"^{self._begins}", self._seen + len(expected))
        begun = self._lines()[self._seen : self._seen + len(expected)]
        assert begun == list(expected)
        self._seen += len(begun)

    def next(self) -> str:
        """Wait for one more step to begin; who is inside."""
        self.service.wait_outputs(f"^{self._begins}", self._seen + 1)
        self._seen += 1
        return self._lines()[self._seen - 1]

    def end(self, client: Client) -> None:
        """The client of what alone is inside leaves; a step has begun and waits."""
        client.leave()
        self.wait_inside(0)
        self.step()

    def post(self, client: Client, name: str, steps: int = 1, **more: Any) -> None:
        """Send a request."""
        client.send_post(json.dumps({"name": name, "steps": steps, **more}).encode(), self.route)

    def send(self, client: Client, name: str, steps: int = 1, **more: Any) -> None:
        """Send a request that stays, and wait until core has it: if there is a place, it is dispatched."""
        before = self._segment.stats()["remaining"]
        self.post(client, name, steps, **more)
        self.wait_inside(before + 1)

    def wait_inside(self, count: int) -> None:
        """Until so many requests wait for an answer."""
        wait_until(self._segment, lambda stats: stats["remaining"] == count)


@contextlib.contextmanager
def stepped(service: Service, folder: Path, stage: str, count: int) -> Iterator[tuple[Stepped, list[Client]]]:
    """A stage, and so many clients; at the end nothing may be left in the service's memory."""
    with memory(service) as segment:
        with clients(service, count) as some:
            yield Stepped(service, folder, segment, stage), some


def start(serve: Serve, folder: Path, *arguments: str) -> Service:
    return serve(STEPPED, str(folder), *(arguments or PATIENT)).wait_ready()


def answered(name: str) -> tuple[int, bytes]:
    return 200, json.dumps(name).encode()
