"""The accounting of the soak: what counts as a failure, and what a fault explains."""

import pytest

from tests.soak.ledger import SLACK, Attempt, Fault, Ledger, verdict


def attempt(status: int | None, own: bool | None = None, began: float = 100.0, ended: float = 101.0) -> Attempt:
    return Attempt("echo", began, ended, status, own, (200,))


@pytest.mark.parametrize(
    ("status", "own", "faults", "expected"),
    [
        (200, True, [], "answered"),
        (200, False, [], "swapped"),
        (200, False, [Fault("worker", 100.5), Fault("core", 100.5)], "swapped"),
        (None, None, [], "lost"),
        (None, None, [Fault("core", 100.5)], "lost"),
        (0, None, [], "unexpected"),
        (0, False, [], "swapped"),
        (0, None, [Fault("worker", 100.5)], "unexpected"),
        (0, None, [Fault("core", 100.5)], "broken"),
        (500, None, [], "unexpected"),
        (500, None, [Fault("core", 100.5)], "unexpected"),
        (500, None, [Fault("worker", 100.5)], "excused"),
        (500, None, [Fault("worker", 100.0 - SLACK)], "excused"),
        (500, None, [Fault("worker", 99.9 - SLACK)], "unexpected"),
        (500, None, [Fault("worker", 101.1)], "unexpected"),
        (500, None, [Fault("worker", 100.5, "echo")], "excused"),
        (500, None, [Fault("worker", 100.5, "raw")], "unexpected"),
        (408, None, [Fault("worker", 100.5), Fault("core", 100.5)], "unexpected"),
    ],
)
def test_verdict(status: int | None, own: bool | None, faults: list[Fault], expected: str) -> None:
    assert verdict(attempt(status, own), faults) == expected


def test_a_fault_explains_also_what_was_entered_before_it() -> None:
    ledger = Ledger()
    ledger.enter(attempt(500))
    assert [found for found, _ in ledger.failures()] == ["unexpected"]
    ledger.faults.append(Fault("worker", 100.5))
    ledger.enter(attempt(200, True))
    ledger.enter(attempt(None))
    assert [found for found, _ in ledger.failures()] == ["lost"]
    assert ledger.sent == 3
    assert ledger.totals() == {"answered": 1, "excused": 1, "lost": 1, "swapped": 0, "unexpected": 0}
    assert ledger.kinds() == {"echo": 3}
