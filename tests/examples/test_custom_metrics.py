"""examples/custom_metrics: the program's own metrics on the server's page."""

import re
import subprocess
import sys
from pathlib import Path

from tests.service import ROOT, Service

EXAMPLE = ROOT / "examples" / "custom_metrics"


def test_client_shows_the_programs_metrics(tmp_path: Path) -> None:
    with Service(EXAMPLE / "server.py", directory=tmp_path) as service:
        service.wait_ready()
        service.wait_outputs("> ready", 3)
        command = [sys.executable, str(EXAMPLE / "client.py"), "--url", f"http://{service.address}"]
        lines = subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout.splitlines()
    assert lines[:4] == [
        "[1, 2, 3] -> 2.0",
        "[0.5] -> 0.5",
        "[50, 60] -> 55.0",
        "no list -> 422 request validation error: send a list of numbers",
    ]
    items = [float(line.split()[1]) for line in lines if re.match(r'example_items_total\{worker="[12]"\} ', line)]
    assert sum(items) == 6
    for line in (
        "example_refused_total 1.0",
        'example_mean_bucket{le="1.0"} 1.0',
        'example_mean_bucket{le="10.0"} 2.0',
        'example_mean_bucket{le="100.0"} 3.0',
        "example_mean_count 3.0",
        "example_mean_sum 57.5",
        "example_models_loaded 2.0",
    ):
        assert line in lines
