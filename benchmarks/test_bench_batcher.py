"""What the batcher costs a task, from its entry to its answer, in a C loop through the calls that core makes.

`ns_per_task` in the extra information is the minimum over the rounds.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.drivers.batcher import Scheduler

ROUNDS = 500


@pytest.mark.parametrize(
    ("max_batch_size", "slots", "tasks"),
    [(1, 1, 1), (1, 1, 64), (8, 4, 64), (32, 1, 64), (1, 32, 64)],
    ids=lambda value: str(value),
)
def test_enqueue_batch_complete(benchmark: BenchmarkFixture, max_batch_size: int, slots: int, tasks: int) -> None:
    s = Scheduler([(max_batch_size, 0, slots)])
    for slot in range(slots):
        s.slot_up(slot)
    assert benchmark(s.run_through, tasks, ROUNDS) == tasks * ROUNDS
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_task"] = round(benchmark.stats.stats.min * 1e9 / (tasks * ROUNDS), 1)
