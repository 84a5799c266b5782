"""Runs stages on a Dask cluster: each as soon as its inputs are ready, the longest way to the end first.

A stage is a task without data: its inputs are files, and a task is handed in when the stages that it needs are done and
some worker has room for it. (Dask would keep tasks that hang together on one worker, and run finished ones again with a
lost one.) Dask picks the worker, and runs a task again elsewhere if its worker dies; a training goes on from its
checkpoint. A failed stage keeps the stages that need it from running, and no others.
"""

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from distributed import CancelledError, Future, wait
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from generative.errors import PipelineError
from stages.download import SOURCE_VARIABLE
from tools.cluster import CORES, DEVICES, Engine, open_engine
from tools.dvc_locks import AbandonedLocks, flock_held, misses_flock, uses_hard_links
from tools.place import Place
from tools.schedule import Room, Stage, longest_ways, schedule
from tools.stage_process import INTERRUPTED, Ended, EndWithWorker, look_at_folder, run_stage, stop_stages
from tools.terminal import StatusLines

_MOMENT = 0.5  # seconds that a look at what has ended may take
_GRACE = 30.0  # seconds that interrupted stages have to end


@dataclass
class Report:
    """What a run says when it is over."""

    code: int
    seconds: dict[str, float] = field(default_factory=dict)  # that stages took which were not merely restored


def run(
    stages: Mapping[str, Stage],
    place: Place,
    *,
    portable: bool,
    done: Collection[str] = (),
    after: Callable[[str], None] | None = None,
) -> Report:
    """Run stages and say how far they are and how they end.

    Args:
        stages: by the names that are shown.
        place: where they run.
        portable: as in `generative.compute.settings.ComputeConfig`.
        done: those that need not run.
        after: called with the name of each stage that has succeeded.

    Raises:
        PipelineError: the cluster cannot be had.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    widest = max((stage.cores for stage in stages.values()), default=0)
    devices = max((stage.devices for stage in stages.values()), default=0)
    status = StatusLines(total=len(stages), done=len(done), everywhere=not place.is_here)
    try:
        with open_engine(place, widest=widest, devices=devices) as engine:
            status.say(f"dashboard: {engine.dashboard}")
            crew = _DaskCrew(stages, engine, status, portable=portable, after=after)
            crew.left = len(stages) - len(done)
            with crew, status:
                outcome = schedule(stages, crew, done=done)
    except (CancelledError, ClosedClientError, CommClosedError) as error:
        raise PipelineError(
            f"the connection to the scheduler{f' at {place.scheduler}' if place.scheduler else ''} was lost "
            f"({type(error).__name__}): run the same command again."
        ) from None
    except KeyboardInterrupt:
        print("interrupted: run the same command again, trainings go on from the last finished epoch", file=sys.stderr)
        return Report(INTERRUPTED)
    for name, code in outcome.failed.items():
        print(f"error: {name} failed {crew.describe_failure(name, code)}", file=sys.stderr)
    if outcome.skipped:
        print(f"not run, since they need what failed: {', '.join(outcome.skipped)}", file=sys.stderr)
    seconds = {name: ended.seconds for name, ended in crew.ended.items() if ended.worked and not ended.code}
    return Report(int(bool(outcome.failed)), seconds)


class _DaskCrew:
    """The workers of a Dask cluster."""

    def __init__(
        self,
        stages: Mapping[str, Stage],
        engine: Engine,
        status: StatusLines,
        *,
        portable: bool,
        after: Callable[[str], None] | None,
    ) -> None:
        self.ended: dict[str, Ended] = {}
        self._stages = stages
        self._engine = engine
        self._status = status
        self._portable = portable
        self._after = after
        self._run = f"run-{uuid.uuid4().hex[:12]}"
        self._futures: dict[str, Future[Any]] = {}
        self._urgency = longest_ways(stages)
        self.left = 0  # stages that are still to be run
        self._workers: dict[str, str] = {}  # hosts by address
        self._lost_for_good: dict[str, str] = {}  # why stages failed that no worker brought to an end
        self._abandoned: list[AbandonedLocks] = []
        self._by_hard_links = False

    def __enter__(self) -> "_DaskCrew":
        self._engine.client.subscribe_topic(self._run, self._hear)
        if not self._engine.place.is_here:
            if self._engine.place.cluster:
                self._engine.client.register_plugin(EndWithWorker())
            self._by_hard_links = uses_hard_links(Path())
            folders = {stage.folder for stage in self._stages.values()} if self._by_hard_links else ()
            self._abandoned = [AbandonedLocks(folder, self._status.say) for folder in folders]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End what still runs: after an interruption, or an error of this process."""
        if kind is not None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # stages end first, and jobs are cancelled
        if self._futures:
            with suppress(Exception):  # workers that do not answer end with their connection
                self._engine.client.run(stop_stages, self._run, on_error="ignore")
                wait(list(self._futures.values()), timeout=_GRACE)
        with suppress(Exception):
            self._engine.client.unsubscribe_topic(self._run)

    def room(self) -> Room:
        """Of the workers that are there, of which new ones are looked at first."""
        self._status.note = self._engine.look_after_workers(self.left)
        self._look_at_workers()
        for locks in self._abandoned:
            locks.look()
        capacity = self._engine.capacity()
        return Room(capacity.stages, capacity.cores, capacity.devices)

    def start(self, name: str) -> None:
        """Hand a stage in."""
        stage = self._stages[name]
        needed = {CORES: stage.cores, DEVICES: stage.devices}
        forwarded = {key: os.environ[key] for key in (SOURCE_VARIABLE,) if key in os.environ}
        self._status.handed_in(name)
        self._futures[name] = self._engine.client.submit(
            run_stage,
            stage.command or ("repro", "-s", name),
            str(stage.folder.resolve()),
            run=self._run,
            label=name,
            portable=self._portable,
            columns=self._status.columns,
            forwarded=forwarded,
            key=f"{name} {self._run}",
            pure=False,
            priority=self._urgency[name],
            resources={key: count for key, count in needed.items() if count},
        )

    def wait(self) -> dict[str, int]:
        """Exit codes of what has ended."""
        if not self._futures:
            time.sleep(_MOMENT)
            return {}
        with suppress(TimeoutError):
            wait(list(self._futures.values()), timeout=_MOMENT, return_when="FIRST_COMPLETED")
        codes = {}
        for name, future in list(self._futures.items()):
            if future.done():
                codes[name] = self._conclude(name, future)
                del self._futures[name]
        self.left -= len(codes)
        return codes

    def describe_failure(self, name: str, code: int) -> str:
        """How, and where to read more."""
        if name in self._lost_for_good:
            return self._lost_for_good[name]
        log = self._stages[name].folder / self.ended[name].log
        return f"with exit code {code}: {log} has what it said"

    def _conclude(self, name: str, future: Future[Any]) -> int:
        if future.status == "finished":
            ended: Ended = future.result()
            self.ended[name] = ended
            if not ended.code and self._after:
                self._after(name)
            self._status.ended(name, ended)
            return ended.code
        error = future.exception()
        if isinstance(error, KilledWorker):
            why = "since its workers died again and again: is there enough memory, and time for an epoch?"
        else:
            why = f"without an exit code: {type(error).__name__}: {error}"
        self._lost_for_good[name] = why
        self._status.ended(name, Ended(1, 0.0, worked=False, host="", log=""))
        return 1

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        _, what = event
        self._status.hear(**what["stage"])

    def _look_at_workers(self) -> None:
        if self._engine.place.is_here:
            return
        info = self._engine.client.scheduler_info(n_workers=-1)["workers"]
        now = {address: str(worker["host"]) for address, worker in info.items()}
        for address in self._workers.keys() - now.keys():
            self._status.say(f"a worker on {self._workers[address]} is gone: its stages run again elsewhere")
            for locks in self._abandoned:
                locks.worker_lost()
        new = [address for address in now if address not in self._workers]
        fine = self._examine(new) if new else set()
        self._workers = {address: host for address, host in now.items() if address in self._workers or address in fine}

    def _examine(self, workers: list[str]) -> set[str]:
        """Those of new workers that see the folder of the run and the locks of this machine; others did not answer.

        Raises:
            PipelineError: one does not see them.
        """
        folder = Path.cwd()

        def ask(function: Callable[..., str], *arguments: str) -> dict[str, Any]:
            return dict(self._engine.client.run(function, *arguments, workers=workers, on_error="return"))

        with flock_held(folder) as path:
            answers = [ask(look_at_folder, str(folder)), {} if self._by_hard_links else ask(misses_flock, path)]
        fine = set(workers) & answers[0].keys()
        for address, answer in (pair for part in answers for pair in part.items()):
            if isinstance(answer, ImportError | AttributeError):
                raise PipelineError(
                    f"a worker does not have the code of this project ({answer}): start it by .venv/bin/dask, in this "
                    "folder."
                )
            if isinstance(answer, BaseException):
                fine.discard(address)  # gone again, or not yet there: it is asked again
            elif answer:
                raise PipelineError(f"{answer}.")
        return fine


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
