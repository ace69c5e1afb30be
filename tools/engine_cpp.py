"""The engine's own functions as C++ in which a checker of memory models has replaced the atomics.

Cython turns a function that needs no Python into plain C. Its text, with the names as they are in the sources, and the
inline functions of `linux.pxd` with their memory orders, are what `models/relacy` is compiled with: nothing is copied
by hand that could differ from what runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src_pyx"
ENGINE = SOURCES / "mosec_cy" / "_engine"
PACKAGE = "8mosec_cy_7_engine_"  # as Cython writes it into names

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
SHARED_WORD = re.compile(r"\buint(32|64)_t (?:const )?\*(?=words?\b)")  # a pointer to what other threads write
ATOMIC = re.compile(r"^ *static inline (\w+) (\w+)\(([^)]*)\) (\{[^}]*__atomic_[^}]*\})", re.MULTILINE)

Fault = tuple[str, str, str]
"""In which function, what it calls, what it calls instead."""

FAULTY = """
static inline void no_fence() {}
static inline int swap_by_store(rl::atomic<uint64_t> *p, uint64_t *expected, uint64_t desired) {
    uint64_t found = p->load(rl::mo_acquire, $);
    if (found != *expected) {
        *expected = found;
        return 0;
    }
    p->store(desired, rl::mo_release, $);
    return 1;
}
static inline int swap_relaxed(rl::atomic<uint64_t> *p, uint64_t *expected, uint64_t desired) {
    return p->compare_exchange_strong(*expected, desired, rl::mo_relaxed, $);
}
static inline uint64_t nothing_touched(rl::atomic<uint64_t> *) { return 0; }
static inline uint32_t no_count(rl::atomic<uint32_t> *, uint32_t) { return 0; }
"""


@cache
def translated(module: str) -> str:
    """The C that Cython makes of an engine's module, without comments."""
    directives = ["boundscheck=False", "wraparound=False", "initializedcheck=False", "cdivision=True"]
    command = [sys.executable, "-m", "cython", "-3", "-I", str(SOURCES), "--module-name", f"mosec_cy._engine.{module}"]
    command += [part for directive in directives for part in ("-X", directive)]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "module.c")
        subprocess.run([*command, str(ENGINE / f"{module}.pyx"), "-o", str(made)], check=True)
        return COMMENT.sub("", made.read_text())


def functions(module: str, names: Iterable[str]) -> dict[str, str]:
    """Of each function of an engine's module, the C that Cython makes of it.

    Raises:
        LookupError: there is no such function.
    """
    prefix = f"__pyx_f_{PACKAGE}{len(module)}{module}_"
    found = {}
    for name in names:
        begin = rf"^static [^;\n]*\b{prefix}{name}\([^;\n]*\{{\n"
        match = re.search(rf"{begin}.*?^\}}", translated(module), re.MULTILINE | re.DOTALL)
        if match is None:
            raise LookupError(f"{module}.pyx has no function {name}")
        found[name] = plain(match[0], module)
    return found


def plain(text: str, module: str) -> str:
    """With the names of the sources, and shared words as the checker's atomics."""
    for other in sorted({*re.findall(rf"{PACKAGE}\d+([a-z][a-z0-9]*)_[A-Za-z]", text), module}, key=len, reverse=True):
        text = re.sub(rf"__pyx_[a-z]+_{PACKAGE}{len(other)}{other}_", "", text)
    for cython, here in (("__pyx_v_", ""), ("__pyx_", "c_"), ("CYTHON_UNUSED ", ""), ("CYTHON_INLINE ", "inline ")):
        text = text.replace(cython, here)
    return SHARED_WORD.sub(r"rl::atomic<uint\1_t> *", re.sub(r"\n\s*\n", "\n", text))


def atomics() -> Iterator[str]:
    """The inline functions of `linux.pxd` that are atomic, on the checker's atomics; their orders stay."""
    for result, name, arguments, body in ATOMIC.findall((ENGINE / "linux.pxd").read_text()):
        yield f"static inline {result} {name}({on_atomics(arguments)}) {body}"


def on_atomics(arguments: str) -> str:
    return re.sub(r"^(?:const )?uint(32|64)_t \*p\b", r"rl::atomic<uint\1_t> *p", arguments)


def with_faults(found: dict[str, str], faults: Iterable[Fault]) -> dict[str, str]:
    """The functions in which `fault`, if it is k, puts in the k-th of the faults.

    Raises:
        LookupError: a function does not call what its fault replaces.
    """
    changed = dict(found)
    for number, (name, called, instead) in enumerate(faults, 1):
        changed[name], count = re.subn(rf"\b{called}\b", f"(fault == {number} ? {instead} : {called})", changed[name])
        if not count:
            raise LookupError(f"{name} does not call {called}")
    return changed


def engine(model: Path) -> tuple[str, list[Fault]]:
    """What a model is to be compiled with, and the faults that it names."""
    text = model.read_text()
    found: dict[str, str] = {}
    for module, names in re.findall(r"^ \* engine: (\w+) (.+)$", text, re.MULTILINE):
        found |= functions(module, names.split())
    faults: list[Fault] = re.findall(r"^ \* fault: (\w+) (\w+) (\w+)$", text, re.MULTILINE)
    return "\n".join([*atomics(), FAULTY, *with_faults(found, faults).values(), ""]), faults
