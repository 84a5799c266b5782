"""Runs a command, and ends it with all its children when whoever asked for it is gone.

    python -I -S keeper.py DESCRIPTOR COMMAND...

DESCRIPTOR is the read end of a pipe whose other end the asker holds open: a pipe is closed however its process ends,
also by SIGKILL, by the end of a batch job, or where memory was short. Then, or on a signal, the process group is
interrupted, as by Ctrl-C, and killed where it does not end in time. This script imports nothing of the project, so that
it starts in a hundredth of a second.
"""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

GRACE = 20.0  # seconds that an interrupted command has to end by itself
_LOOK = 0.1  # seconds between two looks at the command
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(descriptor: int, command: list[str]) -> int:
    """Run the command in the process group that this process leads; returns the exit code."""
    asked: list[int] = []
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        child = subprocess.Popen(command, preexec_fn=_listen)
    except OSError as error:
        print(f"error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    while child.poll() is None:
        gone, _, _ = select.select([descriptor], [], [], _LOOK)
        if gone or asked:
            _end(child)
    if child.returncode < 0:
        os.killpg(0, signal.SIGKILL)  # it was killed alone: its children too, and this process
    return child.returncode


def _listen() -> None:
    """The command hears the signals, whatever this process was told to ignore."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _end(child: "subprocess.Popen[bytes]") -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.killpg(0, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    os.killpg(0, signal.SIGKILL)  # what outlived it, and this process


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
