"""examples/decoder: texts of a running batch are those that each would be alone, and short ones come first."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.examples.heavy.conftest import Run
from tests.examples.programs import client
from tests.service import Service

PROMPTS = [("Once", 10), ("There was", 200), ("A", 10), ("In the beginning of a text that is longer", 60)]


@pytest.fixture(scope="module")
def service(run_example: Run) -> Service:
    return run_example("decoder")


def test_texts_of_a_running_batch_are_independent(service: Service) -> None:
    def ask(prompt: str, tokens: int) -> str:
        text: str = http.post("/inference", json={"prompt": prompt, "tokens": tokens}).json()
        return text

    with service.client() as http, ThreadPoolExecutor(12) as pool:
        alone = [ask(*prompt) for prompt in PROMPTS]
        assert [len(text) for text in alone] == [tokens for _, tokens in PROMPTS]
        together = list(pool.map(lambda prompt: ask(*prompt), PROMPTS * 8))
    assert together == alone * 8


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": "a", "tokens": 1}, "a"])
def test_refused(service: Service, body: object) -> None:
    with service.client() as http:
        assert http.post("/inference", json=body).status_code == 422


def test_client(service: Service) -> None:
    lines = client("decoder", service, path="/inference")
    assert sorted(lines) == ["10 tokens"] * 3 + ["200 tokens"] * 3
    assert lines[0] == "10 tokens"
