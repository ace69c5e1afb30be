"""What the person sees who starts a service: on a terminal, and in a log."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mosec_cy._master import progress
from tests.interop.screen import Screen
from tests.service import TERMINAL, Serve, Service

LOADING = """
    import sys
    from mosec_cy import Server, Worker, get_logger
    from mosec_cy._master import progress

    class Quick(Worker):
        example = [1]

        def forward(self, data):
            return data

    class Slow(Worker):
        example = {"text": "it's"}

        def __init__(self):
            get_logger().info("begins to load")
            with open(sys.argv[1]) as gate:
                gate.read()

        def forward(self, data):
            return data

    if __name__ == "__main__":
        progress.LINE_EVERY = 0.2
        server = Server()
        server.append_worker(Slow)
        server.append_worker(Quick, num=2, max_batch_size=4, max_wait_time=5)
        server.run()
"""
Open = Callable[[], None]


@pytest.fixture
def open_gate(gate: Path) -> Open:
    return lambda: gate.write_text("")


def screen_of(service: Service) -> list[str]:
    """The lines that are seen after what was waited for."""
    return [line.rstrip() for line in Screen(TERMINAL[1]).feed("\n".join(service.lines)).lines]


def without_time(line: str) -> str:
    return re.sub(r"^\d\d:\d\d:\d\d ", "", line)


def test_a_live_block_until_all_are_ready(serve: Serve, gate: Path, open_gate: Open) -> None:
    pytest.importorskip("rich")
    service = serve(LOADING, str(gate), terminal=True)
    service.wait_output(r"Slow_1.*0/1 ready  1 loading for \d")
    service.wait_outputs(r"Quick_2\|\d.*ready after", 2)
    service.wait_output("⠋")  # it goes on
    open_gate()
    service.wait_ready()
    service.wait_output("curl ")
    seen = [without_time(line) for line in screen_of(service)]
    assert seen[0] == "INFO  server     starting: Slow_1 × 1, Quick_2 × 2"
    assert "INFO  Slow_1|1   begins to load" in seen
    assert not any("loading for" in line for line in seen)  # nothing is left of the block
    at = seen.index(f"INFO  server     listening on {service.address}")
    assert seen[at + 1 : at + 10] == [
        f"INFO  server     http://{service.address}",
        "",
        "  POST /inference         Slow × 1 → Quick × 2 (batches of 4 in 5 ms)",
        "",
        "  GET  /openapi/swagger/  the interface, to read and to try",
        "  GET  /metrics           for Prometheus",
        "  GET  /health/ready      and /health/live, for probes",
        "",
        f"""  curl -d '{{"text":"it'"'"'s"}}' http://{service.address}/inference""",
    ]


def test_a_service_that_is_ended_leaves_no_block(serve: Serve, gate: Path) -> None:
    pytest.importorskip("rich")
    service = serve(LOADING, str(gate), terminal=True)
    service.wait_output(r"loading for \d")
    service.signal(signal.SIGINT)
    assert service.wait_end() == 0
    seen = screen_of(service)
    assert any(line.endswith("SIGINT: shutting down") for line in seen)
    assert not any("loading for" in line for line in seen)


LINE = r"still starting after \d+\.\d s: <Slow_1.1> loading for \d+\.\d s \(\d of 3 ready\)"


@pytest.mark.parametrize("why", ["no terminal", "no rich", "dumb", "json"])
def test_lines_where_there_is_no_block(serve: Serve, gate: Path, open_gate: Open, tmp_path: Path, why: str) -> None:
    env = {"TERM": "dumb"} if why == "dumb" else {}
    source = LOADING
    if why == "no rich":
        source = source.replace("import sys\n", "import sys; sys.modules['rich'] = None\n", 1)
    arguments = ["--log-format", "json"] if why == "json" else []
    service = serve(source, str(gate), *arguments, env=env, terminal=why != "no terminal")
    service.wait_output(LINE)
    open_gate()
    service.wait_ready()
    service.wait_output("curl ")
    assert "⠋" not in service.output
    if why in ("no terminal", "json"):
        assert "\x1b" not in service.output
        (trial,) = [text for text in service.messages if "curl" in text]
        assert trial == f"""try it: curl -d '{{"text":"it'"'"'s"}}' http://{service.address}/inference"""


def test_a_quick_start_says_nothing_in_between(serve: Serve, gate: Path, open_gate: Open) -> None:
    service = serve(LOADING.replace("progress.LINE_EVERY = 0.2", ""), str(gate))
    open_gate()
    service.wait_ready()
    service.wait_outputs("> ready after", 3)
    assert [text for text in service.messages if "still starting" in text] == []
    assert progress.LINE_EVERY > 1


def test_a_rolling_restart_tells_the_same(serve: Serve, gate: Path, open_gate: Open) -> None:
    service = serve(LOADING, str(gate))
    open_gate()
    service.wait_ready()
    service.wait_outputs("> ready after", 3)
    service.signal(signal.SIGHUP)
    service.wait_output(r"still in a rolling restart \(0 of 3 replaced\) after .* <Slow_1.1> loading for")
    open_gate()
    service.wait_output("rolling restart done")


def test_a_dry_run_tells_the_same(serve: Serve, gate: Path, open_gate: Open) -> None:
    source = LOADING.replace("return data\n\n    class Slow", "return [open(sys.argv[1]).read()]\n\n    class Slow")
    service = serve(source, str(gate), "--dry-run")
    service.wait_output(r"still in the dry run after .*: <Slow_1.1> loading for")
    open_gate()
    service.wait_output(r"still in the dry run after .*: <Quick_2.1> trying an example for \d")
    open_gate()
    assert service.wait_end() == 0


def test_the_workers_hold_no_descriptor_of_the_block(serve: Serve, gate: Path, open_gate: Open) -> None:
    pytest.importorskip("rich")
    source = LOADING.replace("append_worker(Quick, num=2", "append_worker(Quick, start_method='fork', num=2")
    service = serve(source, str(gate), terminal=True)
    service.wait_output("loading for")
    service.wait_outputs(r"Quick_2\|\d.*ready after", 2)
    name = service.descriptors(service.process.pid)[2]
    held = {title: list(service.descriptors(pid).values()).count(name) for pid, title in service.processes().items()}
    assert held["mosec_cy: master"] == max(held.values()) > 3  # also those of the log and of the block
    assert sorted(held.values())[-2] <= 3, held
    open_gate()
    service.wait_ready()


def test_rich_is_not_loaded_without_a_terminal(serve: Serve, gate: Path, open_gate: Open) -> None:
    source = LOADING.replace("server.run()", "server.run()\n        print('rich' in sys.modules)")
    service = serve(source, str(gate))
    service.wait_output(LINE)
    open_gate()
    service.wait_ready()
    service.stop()
    assert "False" in service.lines
