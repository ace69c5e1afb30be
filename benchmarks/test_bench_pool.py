"""Claims on blocks, as core and as a slot make them."""

import mmap

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.drivers.pool import BlockPool, lessee

BUDGET, MOST = 1 << 30, 32768
SLOT = lessee(0, 1)


def make(process: int) -> BlockPool:
    return BlockPool(mmap.mmap(-1, BlockPool.bytes_needed(BUDGET, MOST)), BUDGET, MOST, process, 5)


@pytest.mark.benchmark(group="pool: allocate and drop")
@pytest.mark.parametrize("held", [0, 1000], ids=["empty", "1000 held"])
@pytest.mark.parametrize("size", [1 << 10, 1 << 20], ids=["1 KiB", "1 MiB"])
def test_core(benchmark: BenchmarkFixture, size: int, held: int) -> None:
    pool = make(0)
    for _ in range(held):
        pool.allocate(size)
    benchmark(lambda: pool.drop_core(pool.allocate(size)))


@pytest.mark.benchmark(group="pool: allocate and drop")
@pytest.mark.parametrize("held", [0, 100], ids=["empty", "100 held"])
@pytest.mark.parametrize("size", [1 << 10, 1 << 20], ids=["1 KiB", "1 MiB"])
def test_slot(benchmark: BenchmarkFixture, size: int, held: int) -> None:
    pool = make(1)
    for _ in range(held):
        pool.allocate(size, SLOT)
    benchmark(lambda: pool.drop_lease(pool.allocate(size, SLOT), SLOT))


@pytest.mark.benchmark(group="pool: a payload's life")
def test_lease_of_a_request(benchmark: BenchmarkFixture) -> None:
    pool = make(0)

    def live() -> None:
        block = pool.allocate(1 << 10)
        pool.lease(block, SLOT)
        pool.drop_lease(block, SLOT)
        pool.drop_core(block)

    benchmark(live)


@pytest.mark.benchmark(group="pool: a payload's life")
def test_hand_over_of_an_answer(benchmark: BenchmarkFixture) -> None:
    pool = make(1)

    def live() -> None:
        block = pool.allocate(1 << 10, SLOT)
        pool.take_over(block, SLOT)
        pool.drop_core(block)

    benchmark(live)


@pytest.mark.benchmark(group="pool: sweep")
@pytest.mark.parametrize("held", [0, 10_000], ids=["unused pool", "10,000 of others"])
def test_sweep(benchmark: BenchmarkFixture, held: int) -> None:
    pool = make(0)
    for _ in range(held):
        pool.allocate(1 << 10)
    benchmark(lambda: pool.sweep(SLOT))
