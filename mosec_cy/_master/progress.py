"""How far replicas have come that are not ready yet, and the telling of it: by a line now and then, or a live block.

The block is a few lines at the cursor of a terminal that are drawn over again; what any process prints goes above them.
"""

from __future__ import annotations

import enum
import io
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

from mosec_cy._master.reactor import Reactor, Timer
from mosec_cy.log import get_logger, is_for_terminal, on_screen

LINE_EVERY = 5.0  # s
DRAW_EVERY = 0.2  # s
READY_EVERY = 1.0  # s
_MOST_GROUPS = 8  # that a line names
_SINGLY = 16  # replicas of a stage; of more a line tells how many have become ready, and not which

_log = get_logger()


class Step(enum.Enum):
    """What a replica does; the values are what a worker says to the master."""

    IMPORTING = "importing"  # from the start of its process
    LOADING = "loading"  # in `__init__`
    WARMING_UP = "warming up"
    TRYING = "trying an example"  # in a dry run
    FAILED = "failed"  # and waits for its next process
    READY = "ready"


_TAKES_TIME = {Step.IMPORTING, Step.LOADING, Step.WARMING_UP, Step.TRYING}


@dataclass
class _Replica:
    stage: str
    name: str
    began: float  # its process
    step: Step
    since: float  # the step; of a failed one: when its next process starts


class Row(NamedTuple):
    """A stage in the live block."""

    stage: str
    ready: int
    total: int
    others: str  # what those do that are not ready


class Progress:
    """The replicas by a key of the caller's. Times are arguments, in s."""

    def __init__(self) -> None:
        self._replicas: dict[int, _Replica] = {}
        self._since = 0.0

    @property
    def busy(self) -> bool:
        """Some replica does what may take time."""
        return any(replica.step in _TAKES_TIME for replica in self._replicas.values())

    def begin(self, key: int, stage: str, name: str, now: float) -> None:
        """A process of the replica starts."""
        if not self.busy:
            self._since = now
        self._replicas[key] = _Replica(stage, name, now, Step.IMPORTING, now)

    def enter(self, key: int, step: Step, now: float) -> None:
        """The replica is at that step from now on."""
        if not self.busy:
            self._since = now
        replica = self._replicas[key]
        replica.step, replica.since = step, now

    def fail(self, key: int, stage: str, name: str, until: float) -> None:
        """The replica waits for its next process."""
        self._replicas[key] = _Replica(stage, name, until, Step.FAILED, until)

    def is_ready(self, key: int, now: float) -> float:
        """The replica is ready; seconds since its process started."""
        self.enter(key, Step.READY, now)
        return now - self._replicas[key].began

    def replicas_of(self, stage: str) -> tuple[int, int]:
        """How many are ready, and how many there are."""
        found = [replica for replica in self._replicas.values() if replica.stage == stage]
        return sum(replica.step is Step.READY for replica in found), len(found)

    def step_of(self, key: int) -> Step:
        return self._replicas[key].step

    def forget(self, key: int) -> None:
        """The replica is no more."""
        self._replicas.pop(key, None)

    def seconds(self, now: float) -> float:
        """How long some replica has been busy."""
        return now - self._since

    def line(self, activity: str, now: float) -> str:
        """What all replicas do that are not ready: those of a stage that do the same are one group."""
        groups = list(self._groups(now))
        named = ", ".join(f"{_who(group)} {text}" for group, text in groups[:_MOST_GROUPS])
        more = f" and {len(groups) - _MOST_GROUPS} more" if len(groups) > _MOST_GROUPS else ""
        ready = sum(replica.step is Step.READY for replica in self._replicas.values())
        count = f"{ready} of {len(self._replicas)} ready"
        return f"still {activity} after {_duration(self.seconds(now))}: {named}{more} ({count})"

    def rows(self, now: float) -> list[Row]:
        """The stages that have replicas which are not ready, in their order."""
        texts: dict[str, list[str]] = {}
        for group, text in self._groups(now):
            texts.setdefault(group[0].stage, []).append(f"{len(group)} {text}")
        return [Row(stage, *self.replicas_of(stage), ", ".join(texts[stage])) for stage in texts]

    def _groups(self, now: float) -> Iterator[tuple[list[_Replica], str]]:
        def kind(replica: _Replica) -> tuple[str, Step]:
            return replica.stage, replica.step

        unready = [replica for _, replica in sorted(self._replicas.items()) if replica.step is not Step.READY]
        order = {stage: place for place, stage in enumerate(dict.fromkeys(replica.stage for replica in unready))}
        unready.sort(key=lambda replica: (order[replica.stage], replica.step.value))
        for (_, step), found in itertools.groupby(unready, kind):
            group = list(found)
            first = min(replica.since for replica in group)
            if step is Step.FAILED:
                yield group, f"failed, tried again in {_duration(max(first - now, 0))}"
            else:
                yield group, f"{step.value} for {_duration(now - first)}"


def _who(group: list[_Replica]) -> str:
    return group[0].name if len(group) == 1 else f"{group[0].stage} × {len(group)}"


class Report:
    """Tells of the progress for as long as some replica is busy.

    Args:
        progress: the state; changed through the report alone.
        reactor: calls back.
        activity: what goes on, such as "starting".
    """

    def __init__(self, reactor: Reactor, activity: Callable[[], str]) -> None:
        self._progress = Progress()
        self._reactor = reactor
        self._activity = activity
        self._block: LiveBlock | None = None
        self._timer: Timer | None = None
        self._stopped = False
        self._became_ready: dict[str, list[float]] = {}  # stages of many replicas: in how many seconds

    def begin(self, key: int, stage: str, name: str) -> None:
        self._progress.begin(key, stage, name, time.monotonic())
        self._go_on()

    def enter(self, key: int, step: Step) -> None:
        self._progress.enter(key, step, time.monotonic())
        self._go_on()
        self._rest_if_done()

    def ready(self, key: int, stage: str, name: str) -> None:
        """The replica is ready."""
        seconds = self._progress.is_ready(key, time.monotonic())
        if self._progress.replicas_of(stage)[1] <= _SINGLY:
            _log.info("%s ready after %.1f s", name, seconds)
        else:
            if not self._became_ready:
                self._reactor.call_later(READY_EVERY, self._tell_ready)
            self._became_ready.setdefault(stage, []).append(seconds)
        self._rest_if_done()

    def failed(self, key: int, stage: str, name: str, delay: float) -> None:
        """The replica has no process; the next one starts after `delay` s."""
        self._progress.fail(key, stage, name, time.monotonic() + delay)
        self._rest_if_done()

    def step_of(self, key: int) -> str:
        """In words."""
        return self._progress.step_of(key).value

    def forget(self, key: int) -> None:
        self._progress.forget(key)
        self._rest_if_done()

    def stop(self) -> None:
        """Say nothing more."""
        self._stopped = True
        self._rest()

    def close(self) -> None:
        """Let go of the terminal; it may be a forked copy."""
        if self._block is not None:
            self._block.close()

    def _go_on(self) -> None:
        if self._timer is None and not self._stopped and self._progress.busy:
            if self._block is None:
                self._block = LiveBlock.open()
            self._timer = self._reactor.call_later(DRAW_EVERY if self._block.works else LINE_EVERY, self._tell)

    def _tell(self) -> None:
        assert self._block is not None
        self._timer = None
        now = time.monotonic()
        if self._block.works:
            title = f"{self._activity()}, {_duration(self._progress.seconds(now))}"
            self._block.draw(title, self._progress.rows(now), now)
        else:
            _log.info("%s", self._progress.line(self._activity(), now))
        self._go_on()

    def _tell_ready(self) -> None:
        for stage, seconds in self._became_ready.items():
            counts = self._progress.replicas_of(stage)
            _log.info("%s × %d ready after at most %.1f s (%d of %d)", stage, len(seconds), max(seconds), *counts)
        self._became_ready.clear()

    def _rest_if_done(self) -> None:
        if not self._progress.busy:
            self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._block is not None:
            self._block.clear()


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


# ---- the block -----------------------------------------------------------------------------------------

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
        if is_for_terminal() and on_screen() and find_spec("rich") is not None:
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
    """A shell has the terminal meanwhile; one that controls no session has no such thing."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:
        return False
