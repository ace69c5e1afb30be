"""HTTP/1.1 through clients that this project did not write."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engine import MIB, Engine
from tests.interop.http1 import serving
from tests.tools import environment, require


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving() as engine:
        yield engine


@pytest.fixture(scope="module")
def url(engine: Engine) -> str:
    return f"http://127.0.0.1:{engine.port}"


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upload") / "body"
    path.write_bytes(bytes(range(256)) * 4096 * 3)
    return path


def run(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, env=environment(), capture_output=True, timeout=50, check=False)


def curl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = run(require("curl"), "--silent", "--show-error", "--max-time", "20", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_posts(url: str, upload: Path, version: str) -> None:
    assert curl(version, "--data-binary", f"@{upload}", f"{url}/inference") == upload.read_bytes()
    assert curl(version, "--data-binary", "x", "-w", " %{http_code}", f"{url}/inference") == b"x 200"


def test_curl_keeps_its_connection(url: str) -> None:
    urls = [f"{url}/inference"] * 5
    report = curl("--data-binary", "x", "-w", " %{num_connects}\n", *urls)
    assert report.split() == [b"x", b"1", *[b"x", b"0"] * 4]


def test_curl_keeps_its_http_1_0_connection(url: str) -> None:
    report = curl("--http1.0", "-H", "connection: keep-alive", "-w", " %{num_connects}\n", url, url)
    assert report == b"MOSEC service 1\nMOSEC service 0\n"


def test_curl_uploads_what_it_does_not_know_the_length_of(url: str, upload: Path) -> None:
    body = upload.read_bytes()
    assert curl("-X", "POST", "-T", "-", f"{url}/inference", stdin=body) == body
    assert curl("-X", "POST", "-T", "-", f"{url}/inference", stdin=b"") == b"no data provided"


def test_curl_expects(url: str, upload: Path) -> None:
    done = run(
        require("curl"), "--verbose", "--silent", "--max-time", "20", "-H", "expect: 100-continue",
        "--expect100-timeout", "15", "--data-binary", f"@{upload}", f"{url}/inference",
    )  # fmt: skip
    assert done.stdout == upload.read_bytes()
    assert b"< HTTP/1.1 100 Continue" in done.stderr


def test_curl_expects_and_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11 * MIB))
    report = curl(
        "-H", "expect: 100-continue", "--expect100-timeout", "15", "--data-binary", f"@{tmp_path}/large",
        "-w", " %{http_code} %{size_upload}", f"{url}/inference",
    )  # fmt: skip
    assert report == b"request body is too large 413 0"


def test_curl_is_refused_while_it_uploads(url: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(30 * MIB))
    for how in (("--data-binary", f"@{tmp_path}/large"), ("-X", "POST", "-T", "-")):
        body = b"" if how[0] == "--data-binary" else bytes(30 * MIB)
        report = curl("-H", "expect:", *how, "-w", " %{http_code}", f"{url}/inference", stdin=body)
        assert report == b"request body is too large 413"


def test_curl_asks_for_the_head(url: str) -> None:
    assert curl("--head", "-w", "%{http_code} %{size_download}", "-o", "/dev/null", url) == b"200 0"
    assert curl("-X", "OPTIONS", "-i", f"{url}/inference").startswith(b"HTTP/1.1 204 No Content\r\n")
    assert curl("--request-target", "*", "-X", "OPTIONS", "-w", "%{http_code}", url) == b"204"


def test_curl_as_if_to_a_proxy(engine: Engine, url: str) -> None:
    report = curl("--proxy", url, "--data-binary", "x", "http://example.test/inference")
    assert report == b"x"


def test_curl_with_an_encoded_path(url: str) -> None:
    assert curl("--path-as-is", "--data-binary", "x", f"{url}/%69nference") == b"x"
    assert curl("-w", " %{http_code}", "--data-binary", "x", f"{url}/inference%zz").endswith(b" 400")


def test_httpx(url: str) -> None:
    with httpx.Client(base_url=url, timeout=20) as client:
        assert client.post("/inference", content=b"x").content == b"x"
        assert client.post("/inference", json={"x": 2}).json() == {"x": 2}
        pieces = [bytes([i]) * 70_000 for i in range(20)]
        assert client.post("/inference", content=iter(pieces)).content == b"".join(pieces)
        assert client.get("/").text == "MOSEC service"
        assert client.head("/").headers["content-length"] == "13"
        assert client.options("/inference").headers["allow"] == "POST, OPTIONS"
        assert client.delete("/inference").status_code == 405
        assert client.get("/nowhere").status_code == 404
        assert client.post("/inference", content=bytes(11 * MIB)).status_code == 413
        assert client.post("/inference", content=iter([bytes(MIB)] * 30)).status_code == 413
        assert client.post("/inference").text == "no data provided"


def test_http_client_of_python(engine: Engine) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", engine.port, timeout=20)) as client:
        for method in ("GET", "PUT"):
            pieces = [b"a", b"b" * 100_000]
            client.request("POST", "/inference", iter(pieces), {"transfer-encoding": "chunked"}, encode_chunked=True)
            assert client.getresponse().read() == b"".join(pieces)
            client.request(method, "/inference")
            refusal = client.getresponse()
            assert (refusal.status, refusal.read()) == (405, b"method not allowed")


def requests_of(engine: Engine) -> int:
    """Requests to the route that were answered 200, so far."""
    return engine.segment.stats()["routes"][0][0]


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(b'{"x": 2}')
    return path


def test_h2load(engine: Engine, url: str, body: Path) -> None:
    before = requests_of(engine)
    done = run(require("h2load"), "--h1", "-n", "2000", "-c", "20", "-m", "4", "-d", str(body), f"{url}/inference")
    assert b"2000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout
    assert requests_of(engine) - before == 2000


def test_hey(engine: Engine, url: str, body: Path) -> None:
    before = requests_of(engine)
    for more in ((), ("-disable-keepalive",)):
        done = run(require("hey"), "-n", "600", "-c", "20", "-m", "POST", "-D", str(body), *more, f"{url}/inference")
        assert re.search(rb"\[200\]\s+600 responses", done.stdout), done.stdout
        assert b"Error distribution" not in done.stdout
    assert requests_of(engine) - before == 1200


def test_ab_keeps_http_1_0_connections(engine: Engine, url: str, body: Path) -> None:
    before = requests_of(engine)
    done = run(require("ab"), "-q", "-k", "-n", "1000", "-c", "10", "-p", str(body), "-T", "x/y", f"{url}/inference")
    assert re.search(rb"Failed requests:\s+0\n", done.stdout), done.stdout + done.stderr
    assert re.search(rb"Keep-Alive requests:\s+1000\n", done.stdout), done.stdout
    assert requests_of(engine) - before == 1000


PIPELINE = """
function init(args)
    local one = wrk.format("POST", "/inference", nil, '{"x": 2}')
    local two = wrk.format("GET", "/")
    local all = {}
    for i = 1, 8 do
        all[2 * i - 1], all[2 * i] = one, two
    end
    batch = table.concat(all)
end
function request()
    return batch
end
function response(status, headers, body)
    if status ~= 200 or (body ~= '{"x": 2}' and body ~= "MOSEC service") then
        print("WRONG", status, body)
    end
end
"""


@pytest.mark.parametrize("script", [PIPELINE, "wrk.method = 'POST'; wrk.body = string.rep('x', 5000)"])
def test_wrk(engine: Engine, url: str, tmp_path: Path, script: str) -> None:
    before = requests_of(engine)
    (tmp_path / "script.lua").write_text(script)
    done = run(require("wrk"), "-t1", "-c16", "-d1s", "-s", str(tmp_path / "script.lua"), f"{url}/inference")
    assert done.returncode == 0, done.stderr
    assert b"WRONG" not in done.stdout, done.stdout
    assert b"Socket errors" not in done.stdout
    assert b"Non-2xx" not in done.stdout
    assert requests_of(engine) > before
