"""What a person sees who looks at a terminal: the few control sequences that the log and its live block use."""

from __future__ import annotations

import re

_PART = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """An endless screen of `columns` columns: `lines` as they stand after all that was fed."""

    def __init__(self, columns: int = 100) -> None:
        self.columns = columns
        self.lines = [""]
        self._row = 0
        self._column = 0

    def feed(self, text: str) -> Screen:
        for match in _PART.finditer(text):
            number, command, move, shown = match.groups()
            if command:
                self._obey(command, int(number) if number.isdigit() else 0)
            elif move == "\r":
                self._column = 0
            elif move == "\n":
                self._to(self._row + 1)
                self._column = 0  # as the terminal's driver adds the carriage return
            else:
                self._show(shown)
        return self

    def _obey(self, command: str, number: int) -> None:
        if command == "A":
            assert number <= self._row, "the cursor leaves the screen"
            self._row -= number
        elif command in "JK":
            assert number == 0
            self.lines[self._row] = self.lines[self._row][: self._column]
            if command == "J":
                del self.lines[self._row + 1 :]
        else:
            assert command == "m", f"{command!r} is unknown"

    def _show(self, text: str) -> None:
        for at in range(0, len(text), self.columns):
            if at or self._column == self.columns:
                self._to(self._row + 1)
                self._column = 0
            part = text[at : at + self.columns]
            line = self.lines[self._row].ljust(self._column)
            self._column += len(part)
            self.lines[self._row] = line[: self._column - len(part)] + part + line[self._column :]

    def _to(self, row: int) -> None:
        self.lines += [""] * (row + 1 - len(self.lines))
        self._row = row
