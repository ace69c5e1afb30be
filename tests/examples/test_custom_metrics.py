"""examples/custom_metrics: the program's own metrics on the server's page."""

import subprocess
import sys
from pathlib import Path

from tests.interop.scrape import scrape_until
from tests.service import ROOT, Service

EXAMPLE = ROOT / "examples" / "custom_metrics"
COUNTED = {
    "example_refused_total": 1.0,
    "example_mean_bucket le=1.0": 1.0,
    "example_mean_bucket le=10.0": 2.0,
    "example_mean_bucket le=100.0": 3.0,
    "example_mean_count": 3.0,
    "example_mean_sum": 57.5,
    "example_models_loaded": 2.0,
}


def test_client_shows_the_programs_metrics(tmp_path: Path) -> None:
    with Service(EXAMPLE / "server.py", directory=tmp_path) as service:
        service.wait_ready()
        service.wait_outputs("> ready", 3)
        command = [sys.executable, str(EXAMPLE / "client.py"), "--url", f"http://{service.address}"]
        lines = subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout.splitlines()
        with service.client() as http:
            samples = scrape_until(http, COUNTED)
    assert lines[:4] == [
        "[1, 2, 3] -> 2.0",
        "[0.5] -> 0.5",
        "[50, 60] -> 55.0",
        "no list -> 422 request validation error: send a list of numbers",
    ]
    assert len(lines) > 4
    assert all(line.startswith("example_") for line in lines[4:])
    assert sum(value for name, value in samples.items() if name.startswith("example_items_total ")) == 6
