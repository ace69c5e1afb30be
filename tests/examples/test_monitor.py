"""examples/monitor: what the dashboard asks for is what a service exports."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service import ROOT, Service

MONITOR = ROOT / "examples" / "monitor"
OF_PROMETHEUS = {"job"}  # a label that Prometheus adds


def panels() -> list[dict[str, Any]]:
    dashboard: dict[str, Any] = json.loads((MONITOR / "dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Labels of each sample that a service with a batching stage exports after some requests."""
    labels: dict[str, set[str]] = defaultdict(set)
    with Service(ROOT / "examples" / "echo.py", directory=tmp_path_factory.mktemp("echo")) as service:
        with service.wait_ready().client() as client:
            for _ in range(4):  # the first batch of a process teaches nothing of how long batches take
                assert client.post("/inference", json={"x": 1}).status_code == 200
            assert client.post("/inference", json=1).status_code == 422
            assert client.get("/nowhere").status_code == 404
            text = client.get("/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels[sample.name] |= set(sample.labels)
    return dict(labels)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_each_panel_asks_for_what_is_there(panel: dict[str, Any], exported: dict[str, set[str]]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        expression = target["expr"]
        assert expression.count("(") == expression.count(")")
        names = re.findall(r"\bmosec_service_\w+", expression)
        assert names
        assert set(names) <= set(exported)
        known = OF_PROMETHEUS.union(*(exported[name] for name in names))
        grouped = re.findall(r"\bby \(([^)]*)\)", expression)
        asked = {label.strip() for group in grouped for label in group.split(",")}
        asked |= set(re.findall(r"[{,]\s*(\w+)\s*[!=]", expression)) | set(
            re.findall(r"{{(\w+)}}", target["legendFormat"])
        )
        assert asked <= known


def test_the_dashboard_covers_the_metrics(exported: dict[str, set[str]]) -> None:
    asked = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    families = {re.sub(r"_(total|bucket|count|sum|created)$", "", name) for name in exported}
    assert {name for name in families if name.startswith("mosec_service_")} == {
        name for name in families if re.search(rf"\b{name}", asked)
    }


def test_prometheus_looks_where_a_service_listens() -> None:
    assert re.search(r'targets: \["[\w.]+:8000"\]', (MONITOR / "prometheus.yml").read_text())


@pytest.mark.parametrize("line", re.findall(r"- \./(\S+?):/", (MONITOR / "docker-compose.yml").read_text()))
def test_files_for_the_containers_are_there(line: str) -> None:
    assert Path(MONITOR / line).is_file()
