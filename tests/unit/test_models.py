"""The models of what processes do to each other in shared memory: each holds, and finds each fault put into it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.tools import environment, require

MODELS = Path(__file__).parent.parent.parent / "models"
MEMORY_MB = 2000

FAULTS = {  # those that can be put into each model, by the names in its #ifdefs
    "slot_bell": [
        "NO_SLEEPER_FENCE",
        "NO_RINGER_FENCE",
        "NO_SECOND_LOOK",
        "WAIT_WITHOUT_COUNT",
        "SEEN_LATE",
        "STOP_RINGS",
    ],
    "core_bell": ["NO_SLEEPER_FENCE", "NO_RINGER_FENCE", "NO_SECOND_LOOK", "NO_PIDFD"],
    "pool": [
        "CLAIM_BY_STORE",
        "NO_SWEEP",
        "SWEEP_BEFORE_DRAIN",
        "SWEEP_LATE SWEEP_WITHOUT_NAME",
        "LEASE_AFTER_PUBLISH",
        "TRIM_WITHOUT_CLAIM",
        "TOUCHED_LATE",
    ],
    "dispatch": [
        "NO_SEQUENCE",
        "NO_SEQUENCE NO_CLIENT_LEAVES",
        "START_BY_STORE",
        "RECLAIM_BY_STORE",
        "DISPATCH_AFTER_PUSH",
        "SETTLE_BEFORE_DRAIN",
        "CANCEL_WITHOUT_SEQUENCE",
    ],
}


def check(model: str, faults: str, directory: Path) -> tuple[int, int, str]:
    """(errors, states, all that the checker says) of an exhaustive search through a model."""
    spin = require("spin")
    compiler = require("gcc")
    defines = [f"-D{fault}" for fault in faults.split()]
    options = {"cwd": directory, "check": True, "env": environment(), "capture_output": True, "text": True}
    subprocess.run([spin, *defines, "-a", str(MODELS / f"{model}.pml")], **options)
    # Not optimised: that would take longer than most of the searches.
    subprocess.run([compiler, "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"], **options)
    said = subprocess.run([directory / "pan", "-m100000", "-w22"], **options).stdout
    errors = re.search(r"errors: (\d+)", said)
    states = re.search(r"(\d+) states, stored", said)
    assert errors and states, said
    return int(errors[1]), int(states[1]), said


@pytest.mark.parametrize("model", FAULTS)
def test_a_model_holds(model: str, tmp_path: Path) -> None:
    """In all interleavings: a search that was cut short would say so."""
    errors, states, said = check(model, "", tmp_path)
    assert errors == 0, said
    assert "max search depth too small" not in said
    assert "Search not completed" not in said
    print(f"{model}: {states} states")


@pytest.mark.parametrize(("model", "fault"), [(model, fault) for model, faults in FAULTS.items() for fault in faults])
def test_a_fault_is_found(model: str, fault: str, tmp_path: Path) -> None:
    """Not by any error: by a claim that does not hold."""
    errors, _, said = check(model, fault, tmp_path)
    assert errors > 0, said
    assert "assertion violated" in said


def test_all_faults_are_tried() -> None:
    """Those that a model knows, and no others."""
    for model, faults in FAULTS.items():
        source = (MODELS / f"{model}.pml").read_text()
        known = {name for pair in re.findall(r"#ifn?def (\w+)|defined\((\w+)\)", source) for name in pair if name}
        assert known == {word for fault in faults for word in fault.split()}
