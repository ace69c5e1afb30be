"""The rules of the house catch what they are for, and let through what they should."""

from pathlib import Path

import pytest

from tools.lint_source import breaches

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 60


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.py", "x = 1\n" * 301, 301),
        ("a.pyx", "x = 1\n" * 401, 401),
        ("a.py", LONG_FUNCTION, 1),
        ("a.pyx", "y = 1\n\n" + LONG_FUNCTION.replace("def f()", "cdef int f() noexcept nogil"), 3),
        ("a.pyx", "DEF N = 3\n", 1),
        ("a.pyx", 'include "other.pxi"\n', 1),
        ("a.pxd", "cdef int ring_push(int x) nogil\n", 1),
        ("a.pyx", "cdef int ring_push(\n    int x,\n) nogil:\n    return x\n", 1),
        ("a.pyx", "# release\n\nx = load_acquire_u64(p)\n", 3),
        ("a.pyx", "fence_seq_cst()\n", 1),
        ("a.py", "x = 1  # TO" + "DO\n", 1),
        ("a.c", "int x;\n", 1),
    ],
)
def test_breach_is_found(tmp_path: Path, name: str, text: str, line: int) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert [number for number, _ in breaches(path)] == [line]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "x = 1\n" * 300),
        ("a.pyx", "cdef int f(\n    int x,\n) noexcept nogil:\n" + "    x = 1\n" * 56 + "\n\ncdef int z\n"),
        ("a.pyx", "cdef bytes text_of(int x):\n    return b''\n"),
        ("a.pyx", "cdef int checked(int code) except -1:\n    raise RuntimeError(code)\n"),
        ("a.pyx", "cdef class Ring:\n    cdef int push(self) except -1:\n        return 0\n"),
        ("a.pxd", "cdef enum:\n    X = 1\ncdef extern from 'x.h':\n    int f(int)\n"),
        ("a.pyx", "# release; pairs with the acquire in g\nstore_release_u64(p, 1)\nstore_release_u64(q, 1)\n"),
        ("a.pyx", "x = cas_u64(p, q, 1)  # acquire and release\n"),
        ("a.pyx", "from mosec_cy._linux cimport fence_seq_cst, load_acquire_u64\n"),
    ],
)
def test_what_keeps_the_rules_passes(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert list(breaches(path)) == []
