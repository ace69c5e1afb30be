"""Real processes for stress tests, none of which outlives its test."""

from collections.abc import Iterator

import pytest

from tests.stress.forked import Processes


@pytest.fixture
def processes() -> Iterator[Processes]:
    running = Processes()
    yield running
    running.close()
