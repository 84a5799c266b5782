"""What a worker does: runs one stage by `dvc repro -s` on a terminal of its own, and tells the run how far it is.

The terminal makes the stage draw its progress bars. All that it says also goes into a log in `.dvc/tmp/logs` of the
folder, which all machines share.
"""

import codecs
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from typing import Any

from dask.typing import Key
from distributed import Status, Worker, WorkerPlugin, get_worker

from generative.compute.environment import process_environment
from tools import keeper
from tools.dvc_locks import ABANDONED, mend_rwlock

LOGS = Path(".dvc/tmp/logs")
INTERRUPTED = 130
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
_NOTHING = "didn't change, skipping"
_READ = 1 << 16
_EVERY = 0.5  # seconds between two reports of what a stage last drew
# What DVC says when another process of it was killed in the middle of its work; what a stage has made is then in the
# cache, and the same command finds it there.
_OF_LOCKS = ("RWLock-file", "Unable to acquire lock", "is busy, it is being blocked by")
_PERHAPS = "ERROR: unexpected error"  # also of locks, but not only
_PAUSE = 2.0  # seconds before the same command is run again
_TRIES = int(1.5 * ABANDONED / _PAUSE)  # of the same command: longer than a lock is left with nobody to hold it
_DRAIN = 5.0  # seconds to wait for the last words of a stage that has ended

_WORKING = (Status.running, Status.paused, Status.closing_gracefully)

_stopping: set[str] = set()  # runs that were interrupted, by their names


@dataclass(frozen=True)
class Ended:
    """How a stage ended."""

    code: int
    seconds: float
    worked: bool  # rather than being restored or skipped
    host: str
    log: str  # where its output is, relative to its folder


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


@dataclass
class KeptProcess:
    """A command on a terminal of its own that ends when this process does, and when it is told to."""

    command: list[str]
    environment: Mapping[str, str]
    folder: Path
    columns: int
    say: Callable[[str], None]  # gets every finished line
    screen: Screen = field(default_factory=Screen)

    def __post_init__(self) -> None:
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.columns, 0, 0))
        gone, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, str(gone), *self.command],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                pass_fds=[gone],
                start_new_session=True,
            )
        finally:
            os.close(theirs)
            os.close(gone)
        self._relay = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._relay.start()

    def wait(self, seconds: float) -> int | None:
        """The exit code, 128 and the number of what a signal ended; None if it runs on for as long."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._relay.join(_DRAIN)
        self.stop()
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """Let it end, with all its children."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _read(self, terminal: int) -> None:
        with os.fdopen(terminal, "rb", buffering=0) as stream, suppress(OSError):  # EIO: the last writer is gone
            while content := stream.read(_READ):
                for line in self.screen.feed(content):
                    self.say(line)


def run_stage(
    command: tuple[str, ...],
    folder: str,
    *,
    run: str,
    label: str,
    portable: bool,
    columns: int,
    forwarded: dict[str, str],
) -> Ended:
    """Run a stage, and return how it ended; what it says and draws goes to the topic `run` of the scheduler.

    Args:
        command: that DVC runs.
        folder: with .dvc/, absolute, on a file system that all workers share.
        run: the name of the run that this is part of.
        label: what the run calls the stage.
        portable: as in `generative.compute.settings.ComputeConfig`.
        columns: of its terminal.
        forwarded: variables of the environment beside those of this worker.
    """
    worker, host, where = get_worker(), socket.gethostname(), Path(folder)
    task = worker.get_current_task()
    started, worked = time.monotonic(), False

    def report(**what: Any) -> None:
        with suppress(Exception):  # the run may be over by now
            worker.log_event(run, {"stage": {"label": label, "host": host, **what}})

    if run in _stopping:
        return Ended(INTERRUPTED, 0.0, worked, host, "")
    report(started=True)
    log = where / LOGS / f"{label.replace('/', '_')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        blocked, again = False, 0

        def say(line: str) -> None:
            nonlocal worked, blocked
            print(line, file=file, flush=True)
            worked |= line.startswith("Running stage")
            blocked |= any(words in line for words in _OF_LOCKS) or (_PERHAPS in line and not again)
            if line and not line.strip().startswith(_HINTS) and not line.endswith(_NOTHING):
                report(line=line)

        def is_over() -> bool:
            return run in _stopping or not is_wanted(worker, task)

        environment = stage_environment({**os.environ, **forwarded}, portable=portable)
        for again in range(_TRIES):  # noqa: B007  # `say` looks at it
            mend_rwlock(where, " ".join(command))
            blocked = False
            process = KeptProcess(["dvc", "--wait-for-lock", *command], environment, where, columns, say)
            code = _watch(process, is_over, report)
            if not (code and blocked) or is_over():
                break
            time.sleep(_PAUSE)
    return Ended(code, time.monotonic() - started, worked, host, str(LOGS / log.name))


def _watch(process: KeptProcess, is_over: Callable[[], bool], report: Callable[..., None]) -> int:
    shown, stopped = "", False
    while (code := process.wait(_EVERY)) is None:
        if not stopped and is_over():
            process.stop()
            stopped = True
        if process.screen.current != shown:
            shown = process.screen.current
            report(now=shown.strip())
    return INTERRUPTED if stopped else code


def is_wanted(worker: Worker, task: Key) -> bool:
    """Whether the worker works, and the scheduler still wants a task of it: not if the run is gone."""
    known = worker.state.tasks.get(task)
    return worker.status in _WORKING and known is not None and known.state in ("executing", "long-running")


class EndWithWorker(WorkerPlugin):
    """Ends the process of a worker some seconds after the worker: asyncio may wait there for ever."""

    name = "end-with-worker"

    def teardown(self, worker: Worker) -> None:
        """The worker closes: on a signal, or because its scheduler is gone."""
        timer = threading.Timer(keeper.GRACE / 4, os._exit, args=(0,))
        timer.daemon = True
        timer.start()


def stage_environment(current: Mapping[str, str], *, portable: bool) -> dict[str, str]:
    """`current` with what DVC and a stage need, whatever started this process."""
    here, path = str(Path(sys.executable).parent), current.get("PATH", os.defpath)
    known = path if here in path.split(os.pathsep) else f"{here}{os.pathsep}{path}"
    environment = {**current, "PATH": known}
    return process_environment(environment, portable=portable)


def stop_stages(run: str) -> None:
    """Make this worker end the stages of a run, and start no others of it."""
    _stopping.add(run)


def look_at_folder(folder: str) -> str:
    """What is wrong with this worker's view of a folder of the run; empty if nothing is."""
    if not (Path(folder) / ".dvc").is_dir():
        return f"{socket.gethostname()} has no {folder}, which must lie on a file system that all machines share"
    return ""
