"""Request heads a second: this parser, called from Python and in a C loop, and httptools (llhttp) on the same bytes.

`httptools` gets a protocol without callbacks, and one parser object for all requests, as on a kept-alive connection.
Instructions for each are counted by `benchmarks/count_parser.py`.
"""

import httptools
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.requests_http import REQUESTS
from tests.drivers.http_request import RequestParser

IN_C = 1000


@pytest.fixture(params=REQUESTS)
def request_bytes(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> bytes:
    benchmark.group = request.param
    data = REQUESTS[request.param]
    assert RequestParser().parse(data) == len(data)
    return data


def test_mosec_cy(benchmark: BenchmarkFixture, request_bytes: bytes) -> None:
    assert benchmark(RequestParser().parse, request_bytes) == len(request_bytes)


def test_mosec_cy_1000_in_c(benchmark: BenchmarkFixture, request_bytes: bytes) -> None:
    assert benchmark(RequestParser().parse_many, request_bytes, IN_C) == len(request_bytes)


def test_httptools(benchmark: BenchmarkFixture, request_bytes: bytes) -> None:
    parser = httptools.HttpRequestParser(object())
    benchmark(parser.feed_data, request_bytes)
    assert parser.get_method() == b"POST"
