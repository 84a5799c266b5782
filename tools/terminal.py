"""What a run of several stages side by side shows: their messages, and below them a line for each running stage.

In the line of a stage stands what it last drew over: its progress bar, with epoch, losses and images per second. Where
the output is no terminal, the lines are printed once a minute.
"""

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tools.stage_process import Ended

_NAME_WIDTH = 26
_HOST_WIDTH = 12
_TIME_WIDTH = 7
_FILE_WIDTH = 140  # columns of a line where there is no terminal
_EVERY = 60.0  # seconds between two lines of a stage where there is no terminal


@dataclass
class _Line:
    """A stage that was handed in."""

    since: float
    host: str = ""  # that runs it; none yet
    now: str = ""  # what it last drew


class StatusLines:
    """A line for each stage that runs, below what they say; taken away at the end of the context."""

    def __init__(self, *, total: int, done: int, everywhere: bool = False) -> None:
        self.note = ""  # about the whole run
        self._lines: dict[str, _Line] = {}
        self._total, self._done = total, done
        self._everywhere = everywhere  # on several machines, whose names are shown
        self._started = time.monotonic()
        self._console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._live = Live(console=self._console, get_renderable=self._table, transient=True, refresh_per_second=4)
        width = self._console.width if self._console.is_terminal else _FILE_WIDTH
        self.columns = max(40, width - _NAME_WIDTH - _TIME_WIDTH - (_HOST_WIDTH if everywhere else 0))  # for a bar

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._closing = threading.Event()
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._closing.set()
            self._ticker.join()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line)

    def handed_in(self, label: str) -> None:
        """Show a stage that waits for its worker."""
        self._lines[label] = _Line(time.monotonic())

    def hear(self, *, label: str, host: str, started: bool = False, line: str = "", now: str = "") -> None:
        """Take what a worker tells of a stage: that it has started, a line that it said, or what it draws now."""
        shown = self._lines.get(label)
        if shown is not None:
            if started and shown.host:
                self.say(f"[{label}] starts again on {host}")
            shown.host = host
            shown.now = now or shown.now
        if line:
            self.say(f"[{label}] {line}")

    def ended(self, label: str, stage: Ended) -> None:
        """Say how a stage ended."""
        self._lines.pop(label, None)
        self._done += not stage.code
        how = (
            f"failed with exit code {stage.code}"
            if stage.code
            else "done"
            if stage.worked
            else "restored or up to date"
        )
        where = f" on {stage.host}" if self._everywhere and stage.host else ""
        self.say(f"[{label}] {how}{where} after {as_time(stage.seconds)} ({self._done} of {self._total} stages)")

    def _rows(self) -> list[tuple[str, str, str, str]]:
        now = time.monotonic()
        return [
            (label, line.host, as_time(now - line.since), line.now if line.host else "waits for a worker")
            for label, line in list(self._lines.items())
        ]

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_NAME_WIDTH - 1, no_wrap=True)
        if self._everywhere:
            table.add_column(width=_HOST_WIDTH - 1, no_wrap=True, overflow="ellipsis")
        table.add_column(width=_TIME_WIDTH - 1, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for label, host, seconds, shown in self._rows():
            table.add_row(Text(label), *([Text(host)] if self._everywhere else []), seconds, Text(shown))
        total = f"{self._done} of {self._total} stages" + (f"; {self.note}" if self.note else "")
        spent = as_time(time.monotonic() - self._started)
        table.add_row(Text("total"), *([Text("")] if self._everywhere else []), spent, Text(total))
        return table

    def _tick(self) -> None:
        while not self._closing.wait(_EVERY):
            for label, host, seconds, shown in self._rows():
                where = f"{host} " if self._everywhere and host else ""
                self.say(f"[{label}] {where}{seconds} {shown}".rstrip())
            if self.note:
                self.say(self.note)


def as_time(seconds: float) -> str:
    """Minutes and seconds, 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
