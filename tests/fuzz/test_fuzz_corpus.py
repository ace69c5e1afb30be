"""What coverage-guided fuzzing (`make fuzz`) has found worth keeping, through the same targets on this build."""

from pathlib import Path

import pytest

from tests.fuzz.guided.targets import TARGETS
from tools.fuzz import TARGETS as NAMES

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs, "no inputs are kept"
    for path in inputs:
        TARGETS[name](path.read_bytes())


def test_each_target_is_fuzzed() -> None:
    assert set(NAMES) == set(TARGETS) == {path.name for path in CORPUS.iterdir()}
