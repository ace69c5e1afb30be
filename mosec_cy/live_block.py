"""A few lines at the cursor of a terminal that are drawn over again; what any process prints goes above them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mosec_cy import log

if TYPE_CHECKING:
    from mosec_cy.progress import Row

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_GAP = 2  # empty lines
_CLEAR = "\r\x1b[J"  # from the cursor's line to the end of the screen


class LiveBlock:
    """The block, or none where `works` is false: no terminal that shows the log as text, no rich, or it stalls.

    After each drawing the cursor is back on the first of the empty lines above the block. What workers write to the
    same terminal begins there, lines of the log clear the rest of theirs, and the next drawing is below them. The block
    is written without waiting, by a descriptor of its own; a terminal that takes no more has none from then on.
    """

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._shown = False

    @staticmethod
    def open() -> LiveBlock:
        """On the terminal that standard error is."""
        terminal = -1
        if log.is_for_terminal() and log.on_screen() and find_spec("rich") is not None:
            try:
                # Opened anew: what is set for this descriptor does not hold for those of other processes.
                terminal = os.open(os.ttyname(2), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError:  # it is not to be found by a name here
                terminal = -1
        return LiveBlock(terminal)

    @property
    def works(self) -> bool:
        return self._terminal >= 0

    def draw(self, title: str, rows: Sequence[Row], now: float) -> None:
        """Draw it over what was drawn before; `now` in s turns the sign that shows that all is alive."""
        try:
            size = os.get_terminal_size(self._terminal)
            if _in_background(self._terminal):
                return
        except OSError:
            self.close()
            return
        spinner = _SPINNER[int(now * 10) % len(_SPINNER)]
        lines = render(f"{spinner} {title}", rows, size.columns or 80, (size.lines or 24) - _GAP - 1)
        self._write(_CLEAR + "\n" * _GAP + "\n".join(lines) + f"\r\x1b[{_GAP + len(lines) - 1}A")
        self._shown = True

    def clear(self) -> None:
        """Leave nothing of it."""
        if self._shown and self.works:
            self._write(_CLEAR)
        self._shown = False

    def close(self) -> None:
        if self.works:
            os.close(self._terminal)
            self._terminal = -1

    def _write(self, text: str) -> None:
        data = text.encode()
        try:
            written = os.write(self._terminal, data)
        except OSError:
            written = 0
        if written < len(data):
            self.close()


def render(title: str, rows: Sequence[Row], width: int, height: int) -> list[str]:
    """The lines of the block, at most `height` of at most `width` columns."""
    from rich.console import Console
    from rich.text import Text

    room = max(height - 1, 0)
    shown = rows if len(rows) <= room else rows[: max(room - 1, 0)]
    lines = [Text(title, style="cyan")]
    names = [Text(f"  {row.stage}", style="bold") for row in shown]
    widest = min(max((name.cell_len for name in names), default=0), width // 3)
    for name, row in zip(names, shown, strict=True):
        name.truncate(widest, overflow="ellipsis", pad=True)
        lines.append(Text.assemble(name, f"  {row.ready}/{row.total} ready  {row.others}"))
    if len(shown) < len(rows):
        lines.append(Text(f"  and {len(rows) - len(shown)} more stages"))
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # None: nothing bold either
        width=max(width, 1),
        highlight=False,
    )
    with console.capture() as captured:
        for line in lines[: max(height, 1)]:
            line.truncate(max(width - 1, 1), overflow="ellipsis")
            console.print(line)
    return captured.get().splitlines()


def _in_background(terminal: int) -> bool:
    """A shell has the terminal meanwhile; one that is nobody's controlling terminal has no such thing."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:
        return False
