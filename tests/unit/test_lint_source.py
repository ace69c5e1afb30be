"""The rules of the house catch what they are for, and let through what they should."""

from pathlib import Path

import pytest

from tools.lint_source import breaches

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 60


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.py", LONG_FUNCTION, 1),
        ("a.pyx", "y = 1\n\n" + LONG_FUNCTION.replace("def f()", "cdef int f() noexcept nogil"), 3),
        ("a.pyx", "DEF N = 3\n", 1),
        ("a.pyx", 'include "other.pxi"\n', 1),
        ("a.pxd", "cdef int ring_push(int x) nogil\n", 1),
        ("a.pyx", "cdef int ring_push(\n    int x,\n) nogil:\n    return x\n", 1),
        ("a.pyx", "# release\n\nx = load_acquire_u64(p)\n", 3),
        ("a.pyx", "fence_seq_cst()\n", 1),
        ("a.pyx", "x = fetch_or_u64(p, 1)  # acquire and release\n", 1),
        ("a.pyx", "# release; pairs with the acquire in ring_peek\nstore_release_u64(p, 1)\n", 2),
        ("a.pyx", "# release; pairs with the acquire in\n# ring_pop and ring_peek\nstore_release_u64(p, 1)\n", 3),
        ("a.pyx", "store_release_u64(p, 1)  # pairs with the acquire in Sender._under_way\n", 1),
        ("a.pyx", "store_release_u64(p, 1)  # pairs with the acquire in stop_slot\n", 1),
        ("a.pyx", "store_release_u64(p, 1)  # pairs with the reader's own acquire\n", 1),
        ("a.pyx", "x = load_relaxed_u64(p)  # relaxed; a hint for ring_peek\n", 1),
        ("a.pyx", "# pairs with the acquire in ring_pop\nstore_release_u64(p, 1)\ny = 1\nfence_seq_cst()\n", 4),
        ("a.pyx", "core.service.statistics.connections = 3\n", 1),
        ("a.pyx", "link.shared.overdue |= 1\n", 1),
        ("a.pyx", "end.memory.head = 0\n", 1),
        ("a.pyx", "bell.sleeping = 0\n", 1),
        ("a.pyx", "x = 1     # see Sender._fits\n", 1),
        ("a.pxd", "# As Service.reports\ncdef int f() noexcept nogil\n", 1),
        ("a.pml", "x = 1     /* Channel._slept: looks again */\n", 1),
        ("a.cpp", "x = 1;    /* SlotShared.commands */\n", 1),
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
        ("a.py", "x = 1\n" * 500),
        ("a.pyx", "cdef int f(\n    int x,\n) noexcept nogil:\n" + "    x = 1\n" * 56 + "\n\ncdef int z\n"),
        ("a.pyx", "cdef bytes text_of(int x):\n    return b''\n"),
        ("a.pyx", "cdef int checked(int code) except -1:\n    raise RuntimeError(code)\n"),
        ("a.pyx", "cdef class Ring:\n    cdef int push(self) except -1:\n        return 0\n"),
        ("a.pxd", "cdef enum:\n    X = 1\ncdef extern from 'x.h':\n    int f(int)\n"),
        ("a.pyx", "# release; pairs with the acquire in ring_pop\nstore_release_u64(p, 1)\nstore_release_u64(q, 1)\n"),
        ("a.pyx", "# release; pairs with the acquire\n# in ring_pop, and others\nstore_release_u64(p, 1)\n"),
        ("a.pyx", "x = cas_u64(p, q, 1)  # acquire and release; the same as in word_start\n"),
        ("a.pyx", "store_release_u32(p, 1)  # pairs with the acquire in Channel.take\n"),
        (
            "a.pyx",
            "fence_seq_cst()  # pairs with the one in look\n\n\ncdef int look() noexcept nogil:\n    pass\n",
        ),
        ("a.pyx", "class A:\n    def b(self):\n        fence_seq_cst()  # pairs with the one in A.b\n"),
        ("a.pyx", "x = load_relaxed_u64(p)  # relaxed; a gauge\n"),
        ("a.pyx", "if link.shared.overdue == 1 and s.statistics.late >= 2:\n    x = link.shared.bell\n"),
        (
            "a.pyx",
            "link.statistics = NULL     # as SlotShared.command and Channel.take, not numpy.float64 or Server.run\n",
        ),
        ("a.pml", "x = 1     /* Channel._sleep: looks again */\n"),
        ("a.pyx", "from mosec_cy._engine.linux cimport fence_seq_cst, load_acquire_u64\n"),
    ],
)
def test_what_keeps_the_rules_passes(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert list(breaches(path)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src_pyx/a.pyx", "# the word is spo" + "ilt\n"),
        ("src_pyx/a.pxd", "cdef void row_" + "up(int x) noexcept nogil\n"),
        ("mosec_cy/a.py", "class Worker" + "Row: ...\n"),
        ("mosec_cy/a.py", "x = take_" + "back(1)\n"),
        ("docs/a.md", "A batch is handed " + "out.\n"),
        ("tests/a.py", "class TestHand" + "Ahead: ...\n"),
        ("tests/a.py", "HAND" + "ED = 3\n"),
    ],
)
def test_banned_word_is_found(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(text)
    ((line, what),) = breaches(path, tmp_path)
    assert line == 1
    assert "the glossary says" in what


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mosec_cy/a.py", "# unspoken: a batch is dispatched, the verdict of the parser is kept, rows of a table\n"),
        ("docs/a.md", "Bookshelf, trousers, burial, handler, background, handed over.\n"),
        ("examples/a.py", "class Ver" + "dict: ...\n"),
        ("CHANGELOG.md", "A batch is handed " + "out.\n"),
    ],
)
def test_proper_words_pass(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert list(breaches(path, tmp_path)) == []
