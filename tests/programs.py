"""The programs of services that tests start, by what these do; whole, as a user writes them.

What only the tests of one module start stands there, beside them; programs that come with a hand for their gates have a
module of their own in `interop`: `held.py`, `core_deaths.py`, `departures.py`, `rolled.py`, `sse_service.py` ...

Where a program waits, it waits for a FIFO that its first argument names (the fixture `gate`), until a test writes into
it.
"""

from __future__ import annotations


def echo(server: str = "", worker: str = "") -> str:
    """Answers with what it is asked. `server`, `worker`: arguments of `Server`, and more for `append_worker`."""
    return f"""
    from mosec_cy import Server, Worker

    class Echo(Worker):
        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server({server})
        server.append_worker(Echo{worker and ", " + worker})
        server.run()
        print("run returned")
"""


ECHO = echo()

# The same, beside a daemon: the command that is the first argument.
ECHO_AND_DAEMON = ECHO.replace(
    "server.run()",
    """import shlex, subprocess, sys
        server.register_daemon("helper", subprocess.Popen(shlex.split(sys.argv[1])))
        server.run()""",
)

# The same; its worker starts at once the first time, and waits in every later start.
WAITS_IN_RESTART = ECHO.replace(
    "def forward",
    """def __init__(self):
            import pathlib, sys
            marker = pathlib.Path(sys.argv[1] + ".started")
            if marker.exists():
                open(sys.argv[1]).read()
            marker.touch()

        def forward""",
)

# "wait" waits, and is answered with what is written to the gate, or else with itself, as all else is at once.
# `/together` answers two requests at once, with their number.
GATED = """
    import sys
    from mosec_cy import Server, Worker, get_logger

    class Gated(Worker):
        def forward(self, data):
            get_logger().info("forward of %s", data)
            if data == "wait":
                with open(sys.argv[1]) as gate:
                    return gate.read() or data
            return data

    class Together(Worker):
        def forward(self, data):
            return [len(data)] * len(data)

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Gated)
        server.append_worker(Together, max_batch_size=2, route="/together")
        server.run()
"""

# Answers with as many zero bytes as it is asked for.
LARGE = """
    from mosec_cy import Server, Worker

    class Large(Worker):
        resp_mime_type = "application/octet-stream"

        def forward(self, data):
            return bytes(data)

        def serialize(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Large)
        server.run()
"""

# A stream: "first" at once, and "next" for each byte that is written to the gate, until it is closed.
STREAM = """
    import sys
    from mosec_cy import Server, SSEWorker

    class Teller(SSEWorker):
        def forward(self, data):
            self.send_stream_event("first")
            with open(sys.argv[1], "rb", buffering=0) as gate:
                while gate.read(1):
                    self.send_stream_event("next")

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Teller, timeout=60)
        server.run()
"""


def slow_start(where: str = "__init__", num: int = 1, start_method: str = "spawn") -> str:
    """Its worker says "loading" in its start and waits: in "__init__" or in the "warm-up"; it answers with its pid."""
    return f"""
    import os, sys
    from mosec_cy import Server, Worker, get_logger

    class Slow(Worker):
        example = "example"

        def __init__(self):
            self.load("__init__")

        def load(self, where):
            if where == "{where}":
                get_logger().info("loading")
                open(sys.argv[1]).read()

        def forward(self, data):
            if data == "example":
                self.load("warm-up")
            return os.getpid()

    if __name__ == "__main__":
        server = Server(timeout=60_000)
        server.append_worker(Slow, num={num}, start_method="{start_method}")
        server.run()
"""


def broken_start(how: str = 'raise OSError("no such model")') -> str:
    """The worker of its second stage, `Broken`, comes no further in its start than to the statement `how`."""
    return f"""
    import os, sys
    from mosec_cy import Server, Worker

    class Good(Worker):
        def forward(self, data):
            return data

    class Broken(Worker):
        def __init__(self):
            {how}

        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Good)
        server.append_worker(Broken)
        server.run()
"""
