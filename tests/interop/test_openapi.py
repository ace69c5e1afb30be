"""The OpenAPI description as a client gets it from a running service, and whether the service keeps to it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mosec_cy._web import openapi
from tests.interop.described import SOURCE
from tests.service import Serve
from tests.tools import environment
from tests.unit.descriptions import assert_valid
from tests.until import PATIENCE

FOLDER = Path(openapi.__file__).parent / "swagger_ui"
LONG = 240.0  # s; hundreds of requests on a busy machine


def test_the_description_is_valid(serve: Serve) -> None:
    service = serve(SOURCE).wait_ready()
    with service.client() as client:
        answer = client.get("/openapi/metadata.json?of=all")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["server"].startswith("mosec_cy/")
        assert client.head("/openapi/metadata.json").headers["content-length"] == str(len(answer.content))
        assert client.post("/openapi/metadata.json", json=1).status_code == 405
    description = answer.json()
    assert_valid(description)
    paths = description["paths"]
    assert list(paths) == ["/v1/add", "/v1/digits", "/echo", "/image", "/", "/metrics"]
    add, digits = paths["/v1/add"]["post"], paths["/v1/digits"]["post"]
    assert add["description"] == "Adds them up."
    assert add["requestBody"] == digits["requestBody"]
    assert digits["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Size"}
    assert description["components"]["schemas"]["Request"]["description"] == "What is to be added."


# Valid or not, 408 is right where an answer is wanted within a millisecond or two.
STATUSES = """
[checks.positive_data_acceptance]
expected-statuses = ["200", "408"]
[checks.negative_data_rejection]
expected-statuses = ["400", "408", "422"]
"""


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_service_keeps_to_its_description(serve: Serve, tmp_path: Path, seed: int) -> None:
    pytest.importorskip("schemathesis")
    service = serve(SOURCE).wait_ready()
    (tmp_path / "schemathesis.toml").write_text(STATUSES)
    # All checks: also that what the description admits is accepted, and what it does not is refused.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://{service.address}/openapi/metadata.json"]
    limits = ["--checks=all", "--max-examples=15", f"--seed={seed}", "--continue-on-failure", "--no-color"]
    ended = subprocess.run(
        [*command, *limits],
        cwd=tmp_path,  # it keeps what it found there
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LONG - PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"Tested: 6\b", ended.stdout), ended.stdout
    with service.client() as client:
        throughput = re.findall(r'_throughput_total\{code="(\d+)",endpoint="(.*?)"\}', client.get("/metrics").text)
    assert {("200", "/v1/add"), ("422", "/v1/add"), ("200", "/v1/digits"), ("200", "/echo")} <= set(throughput)
    assert not [code for code, _ in throughput if code.startswith("5")]


def test_files_of_the_page(serve: Serve) -> None:
    service = serve(SOURCE).wait_ready()
    with service.client() as client:
        for name, content_type in (("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")):
            answer = client.get(f"/openapi/swagger/{name}")
            assert answer.content == (FOLDER / name).read_bytes()
            assert answer.headers["content-type"] == f"{content_type}; charset=utf-8"
        page = client.get("/openapi/swagger/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for other in ("/openapi", "/openapi/", "/openapi/swagger/VENDORED.md", "/openapi/swagger/LICENSE"):
            answer = client.get(other)
            assert (answer.status_code, answer.text) == (404, "not found")


def test_a_worker_without_a_schema_is_served_all_the_same(serve: Serve) -> None:
    service = serve(
        """
        from mosec_cy import Server, Worker

        class Silent(Worker):
            @classmethod
            def get_forward_json_schema(cls, target, ref_template):
                raise RuntimeError("no schema today")

            def forward(self, data):
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Silent)
            server.run()
        """
    ).wait_ready()
    with service.client() as client:
        for _ in range(2):
            operation = client.get("/openapi/metadata.json").json()["paths"]["/inference"]["post"]
            assert operation["requestBody"]["content"] == {"application/json": {"schema": {}}}
            assert client.post("/inference", json=[1]).json() == [1]
    service.stop()
    assert service.output.count("no schema of what Silent.forward") == 2  # once of each end
