"""What a run of several stages side by side shows: their messages, and below them a line for each running stage.

Every stage writes to a terminal of its own, so that it draws its progress bars; what it last drew over stands in its
line. Where the output is no terminal, the lines are printed once a minute.
"""

import codecs
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fcntl import ioctl
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and cursor movements (ECMA-48, section 5.4)
_HINTS = (
    "Updating lock file",
    "Use `dvc push`",
    "To track the changes",
    "To enable auto",
    "dvc config core",
    "git add",
    "> python -m",
)
_NAME_WIDTH = 26
_TIME_WIDTH = 7
_FILE_WIDTH = 140  # columns of a line where there is no terminal
_EVERY = 60.0  # seconds between two lines of a stage where there is no terminal
_READ = 1 << 16
_DRAIN = 5.0  # seconds to wait for the last words of a stage that has ended


class Screen:
    """What a program's output looks like on a terminal of one line: finished lines, and what it draws over."""

    def __init__(self) -> None:
        self.current = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # a carriage return at the end of a piece may belong to a line feed

    def feed(self, content: bytes) -> Iterator[str]:
        """Take what was written, and give the lines that it finishes."""
        text = self._held + self._decode.decode(content)
        self._held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n")
        *lines, rest = _CONTROL.sub("", text).split("\n")
        for line in lines:
            yield (self.current + line).rpartition("\r")[2].rstrip()
            self.current = ""
        self.current = (self.current + rest).rpartition("\r")[2]


class RunningStage:
    """A command that runs on a terminal of its own."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], status: "StatusLines") -> None:
        self.name = name
        self.screen = Screen()
        self.worked = False  # rather than being restored or skipped
        self._status = status
        self._started = time.monotonic()
        self._ended: float | None = None
        ours, theirs = pty.openpty()
        columns = max(40, status.width - _NAME_WIDTH - _TIME_WIDTH)
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._relay = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._relay.start()

    @property
    def seconds(self) -> float:
        """Since it started, or that it took."""
        return (self._ended or time.monotonic()) - self._started

    def poll(self) -> int | None:
        """The exit code once it has ended and its last line is printed, None before."""
        code = self.process.poll()
        if code is not None and self._ended is None:
            self._relay.join(_DRAIN)
            self._ended = time.monotonic()
            self._status.ended(self, code)
        return code

    def _read(self, terminal: int) -> None:
        with os.fdopen(terminal, "rb", buffering=0) as stream, suppress(OSError):  # EIO: the last writer is gone
            while content := stream.read(_READ):
                for line in self.screen.feed(content):
                    self.worked |= line.startswith("Running stage")
                    if line and not line.strip().startswith(_HINTS):
                        self._status.say(self.name, line)


class StatusLines:
    """A line for each running stage of `running`, below what they say; taken away at the end of the context."""

    def __init__(self, running: Mapping[str, RunningStage], *, total: int, done: int) -> None:
        self._running = running
        self._total, self._done = total, done
        self._started = time.monotonic()
        self._console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._live = Live(console=self._console, get_renderable=self._lines, transient=True, refresh_per_second=4)
        self.width = self._console.width if self._console.is_terminal else _FILE_WIDTH

    @property
    def seconds(self) -> float:
        """Since the run started."""
        return time.monotonic() - self._started

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

    def say(self, name: str, line: str) -> None:
        """Print a line of the stage `name`."""
        self._console.print(f"[{name}] {line}")

    def ended(self, stage: RunningStage, code: int) -> None:
        """Say how a stage ended."""
        self._done += not code
        how = f"failed with exit code {code}" if code else "done" if stage.worked else "restored or up to date"
        self.say(stage.name, f"{how} after {as_time(stage.seconds)} ({self._done} of {self._total} stages)")

    def _alive(self) -> list[RunningStage]:
        return [stage for stage in list(self._running.values()) if stage.process.returncode is None]

    def _lines(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_NAME_WIDTH - 1, no_wrap=True)
        table.add_column(width=_TIME_WIDTH - 1, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for stage in self._alive():
            table.add_row(Text(stage.name), as_time(stage.seconds), Text(stage.screen.current.strip()))
        return table

    def _tick(self) -> None:
        while not self._closing.wait(_EVERY):
            for stage in self._alive():
                self.say(stage.name, f"{as_time(stage.seconds)} {stage.screen.current.strip()}".rstrip())


def as_time(seconds: float) -> str:
    """Minutes and seconds, 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
