"""`make repro JOBS=N`: stages side by side, each as soon as its inputs are ready.

Every stage is run by `dvc --wait-for-lock repro -s STAGE`, so that `dvc.lock` becomes that of a serial run. A stage
that reads the param block `compute` uses `compute.threads` threads, which are part of its result; as many of those run
at once as the cores have threads for. Where that is one at a time, the run is an ordinary `dvc repro`, which starts
faster. A failed stage keeps the stages that need it from running, and no others.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Protocol

from dvc.repo import Repo

from generative.errors import PipelineError
from generative.runtime import ComputeConfig
from stages.params import read_block, read_params

INTERRUPTED = 130
_POLL = 0.05  # seconds between two looks at the running stages
_GRACE = 20.0  # seconds that an interrupted stage has to end by itself


class Process(Protocol):
    """What the scheduler needs of a running stage; `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""


@dataclass(frozen=True)
class Stage:
    """What the scheduler knows of a stage."""

    needs: frozenset[str]  # the stages whose outputs it reads
    threads: int = 0  # that it computes with; 0 for one that hardly computes


@dataclass(frozen=True)
class Outcome:
    """How a run ended: stages that failed with their exit codes, and those that were left out because of them."""

    failed: dict[str, int]
    skipped: list[str]


def main(arguments: list[str]) -> int:
    """Run the pipeline of the working directory; returns the exit code."""
    options = _parse(arguments)
    stages = read_stages()
    widest = max((stage.threads for stage in stages.values()), default=0)
    if options.jobs == 1 or (widest and options.cores < 2 * widest):
        if options.jobs > 1:
            print(f"{options.cores} cores have room for one stage of {widest} threads (compute.threads) at a time")
        sys.stdout.flush()
        os.execvp("dvc", ["dvc", "repro"])  # noqa: S606 (it takes the place of this process, and its signals)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    running: dict[str, _Stage] = {}
    try:
        outcome = schedule(stages, jobs=options.jobs, cores=options.cores, start=lambda name: _start(name, running))
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the children end first
        stop([stage.process for stage in running.values()])
        print("interrupted: run the same command again, trainings go on from the last finished epoch", file=sys.stderr)
        return INTERRUPTED
    for name, code in outcome.failed.items():
        print(f"error: {name} failed with exit code {code}", file=sys.stderr)
    if outcome.skipped:
        print(f"not run, since they need what failed: {', '.join(outcome.skipped)}", file=sys.stderr)
    return int(bool(outcome.failed))


def read_stages() -> dict[str, Stage]:
    """The stages of dvc.yaml, in its order."""
    graph = Repo().index.graph
    threads = read_block("compute", ComputeConfig).threads if "compute" in read_params() else 0
    return {
        stage.addressing: Stage(
            frozenset(needed.addressing for needed in graph.successors(stage)), threads if _computes(stage) else 0
        )
        for stage in graph
    }


def _computes(stage: Any) -> bool:
    return any("compute" in getattr(dep, "params", ()) for dep in stage.deps)


def schedule(stages: Mapping[str, Stage], *, jobs: int, cores: int, start: Callable[[str], Process]) -> Outcome:
    """Run every stage once, none before the stages it needs have succeeded.

    Args:
        stages: by name; of those that are ready, the first comes first.
        jobs: stages that may run at once.
        cores: threads that the running stages may have together; one stage may always run.
        start: begins a stage.
    """
    waiting, done = dict(stages), set[str]()
    running: dict[str, Process] = {}
    failed: dict[str, int] = {}
    while waiting or running:
        for name, stage in list(waiting.items()):
            busy = sum(stages[other].threads for other in running)
            fits = len(running) < jobs and (not busy or not stage.threads or busy + stage.threads <= cores)
            if fits and stage.needs <= done:
                running[name] = start(name)
                del waiting[name]
        for name, process in list(running.items()):
            if (code := process.poll()) is not None:
                del running[name]
                if code:
                    failed[name] = code
                else:
                    done.add(name)
        if not running and not any(stage.needs <= done for stage in waiting.values()):
            break  # what waits needs something that failed
        time.sleep(_POLL)
    return Outcome(failed, list(waiting))


def stop(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Interrupt every process with all its children, and kill what does not end in time."""
    alive = [process for process in processes if process.poll() is None]
    for process in alive:
        _signal_group(process, signal.SIGINT)
    deadline = time.monotonic() + _GRACE
    for process in alive:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        _signal_group(process, signal.SIGKILL)  # also a child that outlived it
        process.wait()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # its own session: the group has its number


class _Stage:
    """A running `dvc repro -s`, whose lines are printed with its name before them."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            ["dvc", "--wait-for-lock", "repro", "-s", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._relay = threading.Thread(target=self._print, args=(name,), daemon=True)
        self._relay.start()

    def _print(self, name: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip():
                print(f"[{name}] {line.rstrip()}", flush=True)

    def poll(self) -> int | None:
        """The exit code once it has ended and its last line is printed, None before."""
        code = self.process.poll()
        if code is not None:
            self._relay.join(_GRACE)
        return code


def _start(name: str, running: dict[str, _Stage]) -> _Stage:
    running[name] = _Stage(name)
    return running[name]


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make repro", description=__doc__)
    parser.add_argument("jobs", type=_positive, metavar="JOBS", help="stages at once")
    parser.add_argument("--cores", type=_positive, default=available_cores(), help="CPU cores to use")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineError as error:
        sys.exit(f"error: {error}")
