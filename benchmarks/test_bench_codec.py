"""The default codec against the standard library's json, on what services send: a small object, an embedding."""

import json
import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mosec_cy._codecs import json_codec

NUMBERS = random.Random(7)
DOCUMENTS = {
    "small": {"x": 2},
    "chat": {"messages": [{"role": "user", "content": "Why is the sky blue? " * 20}], "temperature": 0.7},
    "embedding": {"embeddings": [[NUMBERS.gauss(0, 1) for _ in range(384)] for _ in range(16)]},
}
cases = pytest.mark.parametrize("name", DOCUMENTS)


@cases
def test_encode(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = f"codec: encode, {name}"
    assert json.loads(benchmark(json_codec.encode, DOCUMENTS[name])) == DOCUMENTS[name]


@cases
def test_encode_with_the_standard_library(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = f"codec: encode, {name}"
    assert json.loads(benchmark(lambda: json.dumps(DOCUMENTS[name]).encode())) == DOCUMENTS[name]


@cases
def test_decode(benchmark: BenchmarkFixture, name: str) -> None:
    """From a memoryview, as a stage reads a request where it was received."""
    benchmark.group = f"codec: decode, {name}"
    body = memoryview(bytearray(json.dumps(DOCUMENTS[name]).encode()))
    assert benchmark(json_codec.decode, body) == DOCUMENTS[name]


@cases
def test_decode_with_the_standard_library(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = f"codec: decode, {name}"
    body = bytearray(json.dumps(DOCUMENTS[name]).encode())
    assert benchmark(json.loads, body) == DOCUMENTS[name]
