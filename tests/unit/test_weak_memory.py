"""What processes do to each other in shared memory holds under the C++11 memory model too, as on aarch64: the engine's
own functions, with the memory orders that they name, between the threads of `models/relacy`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.tools import environment, require
from tools import engine_cpp

MODELS = engine_cpp.ROOT / "models" / "relacy"
NAMES = sorted(path.stem for path in MODELS.glob("*.cpp"))


@pytest.mark.parametrize("model", NAMES)
def test_a_model_holds_and_finds_each_fault(model: str, tmp_path: Path) -> None:
    compiler = require("g++")
    require("/usr/include/relacy/relacy.hpp")
    source = MODELS / f"{model}.cpp"
    engine, faults = engine_cpp.engine(source)
    (tmp_path / "engine.inc").write_text(engine)
    command = [compiler, "-std=c++14", "-O1", "-w", "-I", str(tmp_path), "-I", str(MODELS), str(source), "-o", "model"]
    subprocess.run(command, cwd=tmp_path, check=True, env=environment())

    def said(fault: int) -> tuple[int, str]:
        done = subprocess.run(
            [tmp_path / "model", str(fault)], check=False, env=environment(), capture_output=True, text=True
        )
        return done.returncode, done.stdout

    status, text = said(0)
    assert status == 0, text
    print(f"{model}: {text.split()[-1]} orders")
    assert faults
    for number, fault in enumerate(faults, 1):
        status, text = said(number)
        assert status == 1, f"not found: {fault}"
        # Not by any failure: by a claim that does not hold.
        assert any(what in text for what in ("DATA RACE", "DEADLOCK", "USER ASSERT FAILED")), text


def test_orders_are_those_of_the_engine() -> None:
    atomics = "\n".join(engine_cpp.atomics())
    assert (
        "store_release_u64(rl::atomic<uint64_t> *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }"
        in atomics
    )
    assert atomics.count("static inline") == (engine_cpp.ENGINE / "linux.pxd").read_text().count("__atomic_"), (
        "each has one operation, and all are here"
    )


def test_what_is_not_in_the_engine_is_not_checked() -> None:
    """A model that names a function, or a call in it, that is no more is to be changed with the engine."""
    with pytest.raises(LookupError, match=r"ring\.pyx has no function word_give"):
        engine_cpp.functions("ring", ["word_give"])
    found = engine_cpp.functions("ring", ["word_start"])
    with pytest.raises(LookupError, match="word_start does not call store_release_u64"):
        engine_cpp.with_faults(found, [("word_start", "store_release_u64", "store_relaxed_u64")])
