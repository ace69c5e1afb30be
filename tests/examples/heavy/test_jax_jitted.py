"""examples/jax_jitted: compiled during the warm-up, and never again."""

import re
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from tests.examples.heavy.conftest import Run
from tests.examples.programs import EXAMPLES, client
from tests.service import Service


def expected(vectors: np.ndarray) -> np.ndarray:
    """The same network in NumPy. Random numbers of JAX are the same everywhere for the same key."""
    first, second = jax.random.split(jax.random.PRNGKey(0))
    hidden = np.maximum(vectors @ np.asarray(jax.random.normal(first, (64, 128))) / 8, 0)
    exponents = np.exp(hidden @ np.asarray(jax.random.normal(second, (128, 10))) / 11)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def test_batches_of_any_size_without_compiling_again(run_example: Run) -> None:
    service = run_example("jax_jitted")
    compiled = [re.search(r"compiling for a batch of (\d+)", message) for message in service.messages]
    assert [int(found[1]) for found in compiled if found] == [1, 4, 16]

    vectors = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    with service.client() as http:
        for clients in (1, 2, 3, 5, 8, 13, 16, 24):
            with ThreadPoolExecutor(clients) as pool:
                answers = list(pool.map(lambda vector: http.post("/inference", json=vector.tolist()).json(), vectors))
            scores = expected(vectors)
            assert [answer["label"] for answer in answers] == scores.argmax(axis=1).tolist()
            assert [answer["score"] for answer in answers] == pytest.approx(scores.max(axis=1), abs=1e-4)
    shown = (EXAMPLES / "jax_jitted" / "README.md").read_text()
    assert client("jax_jitted", service, path="/inference") == re.findall(r"^label .*", shown, re.MULTILINE)

    service.stop()  # all that it has logged is read now
    assert service.output.count("compiling for a batch of") == 3


@pytest.fixture(scope="module")
def service(run_example: Run) -> Service:
    return run_example("jax_jitted")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[1, 2]", "send a list of 64 numbers, not an array of shape (2,)"),
        (b'["a"]', "send a list of 64 numbers: could not convert string to float: 'a'"),
        (b"{}", "send a list of 64 numbers: float() argument must be a string or a real number, not 'dict'"),
    ],
)
def test_refusals(service: Service, body: bytes, text: str) -> None:
    with service.client() as http:
        answer = http.post("/inference", content=body)
    assert (answer.status_code, answer.text) == (422, f"request validation error: {text}")
