"""The programs in docs/: started as they stand there, asked as shown, and answering as shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.docs_pages import Block, commands, quoted, services
from tests.service import ROOT, Serve
from tests.tools import environment, require

DURATION = re.compile(r"\d+\.\d+ ms")
RUN = "python service.py "


def programs(by_themselves: bool) -> list[tuple[Block, Block]]:
    """Those that are only run, and those that are asked while they run."""
    return [pair for pair in services() if pair[1].text.startswith("$ " + RUN) == by_themselves]


@pytest.mark.parametrize(("program", "session"), programs(False), ids=lambda block: block.place)
def test_program_answers_as_shown(program: Block, session: Block, serve: Serve) -> None:
    require("curl")
    service = serve(program.text).wait_ready()
    for command, answer in commands(session):
        asked = command.replace("127.0.0.1:8000", service.address)
        assert asked != command, f"{session.place}: asks nobody"
        output = subprocess.run(
            ["bash", "-c", asked], env=environment(), capture_output=True, text=True, check=True, timeout=30
        ).stdout
        assert output.strip() == answer, command


@pytest.mark.parametrize(("program", "session"), programs(True), ids=lambda block: block.place)
def test_program_prints_as_shown(program: Block, session: Block, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(program.text)
    for command, answer in commands(session):
        arguments = command.removeprefix(RUN).split()
        output = subprocess.run(
            [sys.executable, "service.py", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
        assert DURATION.sub("… ms", output.strip()) == DURATION.sub("… ms", answer)


def test_metrics_page_names_what_a_service_exports(serve: Serve) -> None:
    """The names, both ways, of a service in which each of them has something to count."""
    program = next(block for block, _ in services() if "max_batch_size" in block.text)
    with serve(program.text).wait_ready().client() as client:
        assert client.post("/inference", json={"x": 1}).status_code == 200
        assert client.get("/").status_code == 200
        families = text_string_to_metric_families(client.get("/metrics").text)
    exported = {family.name for family in families}
    assert exported == {name.removesuffix("_total") for name in quoted("metrics.md", 0) if name.startswith("mosec_")}
