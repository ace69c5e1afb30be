"""What coverage-guided fuzzing (`make fuzz`) has found worth keeping, through the same targets on this build."""

from pathlib import Path

import pytest

from tests.fuzz.guided.targets import TARGETS, load

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs, "no inputs are kept"
    target = load(name)
    for path in inputs:
        target(path.read_bytes())


def test_each_target_is_fuzzed() -> None:
    assert set(TARGETS) == {path.name for path in CORPUS.iterdir()}
