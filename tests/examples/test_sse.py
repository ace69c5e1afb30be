"""The streaming example: its words, its errors, its batches, and its client."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from httpx_sse import connect_sse

from tests.service import ROOT, Service

EXAMPLE = ROOT / "examples" / "sse"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(EXAMPLE / "server.py", directory=tmp_path_factory.mktemp("sse")) as service:
        yield service.wait_ready()


def words(service: Service, **body: object) -> list[str]:
    with service.client() as client, connect_sse(client, "POST", "/inference", json=body) as source:
        return [event.data for event in source.iter_sse()]


def test_words_follow_each_other(service: Service) -> None:
    answer = words(service, prompt="Beautiful", words=5, seed=3)
    assert (answer[0], len(answer)) == ("is", 5)  # the only word that follows in the text
    assert answer == words(service, prompt="Beautiful", words=5, seed=3)


def test_texts_of_one_batch_are_independent(service: Service) -> None:
    alone = [words(service, prompt="Now", words=10 + seed, seed=seed) for seed in range(16)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda seed: words(service, prompt="Now", words=10 + seed, seed=seed), range(16)))
    assert together == alone


@pytest.mark.parametrize("body", [{"prompt": " "}, {"prompt": "a", "words": 0}, {"prompt": "a", "words": "2"}])
def test_refused(service: Service, body: dict[str, object]) -> None:
    (text,) = words(service, **body)
    assert text.startswith("SSE inference error: 422: Unprocessable Content: request validation error: ")


def run_client(service: Service, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(EXAMPLE / "client.py"), "--url", f"http://{service.address}/inference", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_client_program(service: Service) -> None:
    result = run_client(service, "--words", "4", "--seed", "3", "Explicit is")
    expected = words(service, prompt="Explicit is", words=4, seed=3)
    assert (result.returncode, result.stdout) == (0, " ".join(["Explicit is", *expected]) + "\n")
    refused = run_client(service, "--words", "0", "Explicit is")
    assert (refused.returncode, "request validation error" in refused.stderr) == (1, True)
