"""The pages of docs/ as text: their fenced blocks, for tests that do what the pages show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.service import ROOT

DOCS = ROOT / "docs"
_FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: `language` and `text`; `place` is its page and line."""

    place: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """All of them, page by page in their order."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        for match in _FENCED.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(f"{page.relative_to(DOCS)}:{line}", match[2], match[3])


def services() -> Iterator[tuple[Block, Block]]:
    """Each complete program of ours, and the console session that follows it."""
    shown = list(blocks())
    for block, following in zip(shown, [*shown[1:], Block("", "", "")], strict=True):
        if block.language == "python" and "from mosec_cy" in block.text and "server.run()" in block.text:
            assert following.language == "console", f"{block.place}: a program without a session that shows its answer"
            yield block, following


def commands(session: Block) -> list[tuple[str, str]]:
    """What is typed after each `$ ` in a console session, and what is shown in answer."""
    typed = re.split(r"^\$ ", session.text, flags=re.MULTILINE)
    assert typed[0] == "", f"{session.place}: a session begins with `$ `"
    return [(command, answer.strip()) for command, _, answer in (part.partition("\n") for part in typed[1:])]


def quoted(page: str, column: int) -> Iterator[str]:
    """The code with which the cells of a column begin, in all tables of a page."""
    for line in (DOCS / page).read_text().splitlines():
        cells = line.split("|")
        if len(cells) > column + 2:
            match = re.match(r"\s*(`+)(.+?)\1(?!`)", cells[column + 1])
            if match:
                yield match[2]
