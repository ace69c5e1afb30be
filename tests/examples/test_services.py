"""The examples as their users meet them: started as a program, asked over HTTP."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.examples.sample_files import SAMPLES
from tests.service import ROOT, Service
from tests.tools import environment, require

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def filetype(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    if find_spec("magika") is None:
        pytest.skip("needs the extra 'examples'")
    directory = tmp_path_factory.mktemp("filetype")
    env = {"ORT_DISABLE_TELEMETRY": "0"}  # the program has to switch it off itself: it would leave a file behind
    with Service(EXAMPLES / "filetype" / "server.py", directory=directory, env=env) as service:
        yield service.wait_ready()


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(EXAMPLES / "echo.py", directory=tmp_path_factory.mktemp("echo")) as service:
        yield service.wait_ready()


def metric(service: Service, name: str) -> float:
    """The sum of a metric over all its labels."""
    with service.client() as client:
        text = client.get("/metrics").text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return sum(sample.value for sample in samples if sample.name == f"mosec_service_{name}")


@pytest.mark.parametrize("label", SAMPLES)
def test_kind_of_file(filetype: Service, tmp_path: Path, label: str) -> None:
    make, mime_type = SAMPLES[label]
    with filetype.client() as client:
        response = client.post("/inference", content=make(tmp_path))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert (answer["label"], answer["mime_type"]) == (label, mime_type)
    assert 0.5 < answer["score"] <= 1.0


def test_too_short_to_tell(filetype: Service) -> None:
    with filetype.client() as client:
        assert client.post("/inference", content=b"a").json()["label"] == "txt"
        assert client.post("/inference", content=b"\xff\xfe").json()["label"] == "unknown"


def test_large_file(filetype: Service) -> None:
    python = SAMPLES["python"][0](Path())
    content = python + b"# and so on\n" * 700_000 + python
    assert 8_000_000 < len(content) < 10_000_000
    with filetype.client() as client:
        assert client.post("/inference", content=content).json()["label"] == "python"


def test_burst_is_served_in_batches(filetype: Service, tmp_path: Path) -> None:
    files = {label: make(tmp_path) for label, (make, _) in SAMPLES.items()}
    labels = list(files) * 3
    batches, items = metric(filetype, "batch_size_count"), metric(filetype, "batch_size_sum")
    together = Barrier(len(labels))

    def ask(label: str) -> str:
        together.wait()
        answer: str = client.post("/inference", content=files[label]).json()["label"]
        return answer

    with filetype.client() as client, ThreadPoolExecutor(len(labels)) as pool:
        assert list(pool.map(ask, labels)) == labels
    assert metric(filetype, "batch_size_sum") - items == len(labels)
    assert metric(filetype, "batch_size_count") - batches <= len(labels) / 2


def test_curl_as_in_the_readme(filetype: Service) -> None:
    url = f"http://{filetype.address}/inference"
    command = [require("curl"), "--silent", "--data-binary", f"@{ROOT / 'Makefile'}", url]
    output = subprocess.run(command, env=environment(), capture_output=True, check=True, timeout=30).stdout
    answer = json.loads(output)
    shown = re.search(r"^\$ curl --data-binary @Makefile .*\n(.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown
    assert answer == json.loads(shown[1]) | {"score": pytest.approx(answer["score"])}


def test_client_program(filetype: Service, tmp_path: Path) -> None:
    paths = [tmp_path / f"sample.{label}" for label in SAMPLES]
    for path, (make, _) in zip(paths, SAMPLES.values(), strict=True):
        path.write_bytes(make(tmp_path))
    command = [
        sys.executable,
        str(EXAMPLES / "filetype" / "client.py"),
        "--url",
        f"http://{filetype.address}/inference",
    ]
    output = subprocess.run([*command, *map(str, paths)], capture_output=True, check=True, text=True, timeout=30).stdout
    assert [line.split(": ")[1].split()[0] for line in output.splitlines()] == list(SAMPLES)


def test_echo_through_three_stages(echo: Service) -> None:
    with echo.client() as client:
        assert client.post("/inference", content=b'{"x": 2}').json() == {"echo": {"x": 2}, "batch_size": 1}
        refused = client.post("/inference", content=b"[2]")
    assert (refused.status_code, refused.text) == (422, "request validation error: send a JSON object")


def test_echo_gives_each_client_its_own(echo: Service) -> None:
    def ask(number: int) -> dict[str, object]:
        answer: dict[str, object] = client.post("/inference", content=json.dumps({"n": number})).json()["echo"]
        return answer

    with echo.client() as client, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(1000))) == [{"n": number} for number in range(1000)]


def test_service_of_the_readme(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    code = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    asked = re.search(r"`curl -d '(.*?)' \S+` answers `(.*?)`", text)
    assert code
    assert asked
    script = tmp_path / "service.py"
    script.write_text(code[1])
    with Service(script, directory=tmp_path) as service, service.wait_ready().client() as client:
        assert client.post("/inference", content=asked[1]).text == asked[2]
