"""Response heads a second: the head of an ordinary answer, and one with a new second's date."""

from itertools import count

from pytest_benchmark.fixture import BenchmarkFixture

from tests.drivers.http_response import ResponseWriter


def test_head(benchmark: BenchmarkFixture) -> None:
    head = benchmark(ResponseWriter(b"mosec_cy/0.1.0").head, 200, b"application/json", 1234)
    assert head.endswith(b"content-length: 1234\r\n\r\n")


def test_date(benchmark: BenchmarkFixture) -> None:
    writer = ResponseWriter(b"mosec_cy/0.1.0")
    seconds = count(1_700_000_000)
    benchmark(lambda: writer.set_time(next(seconds)))
    assert b" GMT\r\n" in writer.head(200, b"", 0)
