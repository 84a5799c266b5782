"""`make repro`: the stages of the pipeline side by side, each as soon as its inputs are ready, on all cores.

Every stage is run by `dvc --wait-for-lock repro -s STAGE`, so that `dvc.lock` becomes that of a serial run. A stage
that reads the param block `compute` keeps `compute.threads` cores busy on each device; as many of those run at once as
there are cores for, the one with the longest way to the end of the pipeline first. Where that is one at a time, the
run is an ordinary `dvc repro`, which starts faster. Stages with nothing to do are not started. A failed stage keeps the
stages that need it from running, and no others.

`make model NAME=...` and `make zoo MODELS=...` run what some models need and put them beside the others, of which only
what git keeps is read. So does `make zoo`: of the root's models it reads what git keeps.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import filelock
import networkx as nx
from dvc.repo import Repo, lock_repo
from joblib import cpu_count

from generative.compute.environment import process_environment
from generative.errors import PipelineError, SettingError
from generative.io.files import read_json, write_json
from stages.common.params import read_params, wants_portable_bytes
from stages.common.paths import EXTRACTOR_PREFIX, PIPELINES, REAL, ROOT, Pipeline
from tools.check import judge
from tools.entry import INTERRUPTED, run_tool
from tools.machine import note_machine
from tools.pipelines import address, homes_of_models, together
from tools.staleness import GATES, UnansweredError, stale_stages
from tools.terminal import RunningStage, StatusLines, as_time

MEASURED = Path(".dvc/tmp/stage_seconds.json")  # how long each stage took here
COMMITTED = Path(__file__).with_name("stage_seconds.json")  # and elsewhere, for the first run
_POLL = 0.05  # seconds between two looks at the running stages
PUBLISH = "publish@{}"  # the last stage of one model
_REPRO = ("dvc", "--wait-for-lock", "repro", "-s")
_KILLED = 128  # and the number of the signal: the exit code of what a signal ended, as shells have it
_GRACE = 20.0  # seconds that an interrupted stage has to end by itself


class Process(Protocol):
    """What the scheduler needs of a running stage; `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""


@dataclass(frozen=True)
class Stage:
    """What the scheduler knows of a stage."""

    needs: frozenset[str]  # the stages whose outputs it reads
    cores: int = 0  # that it keeps busy; 0 for one that hardly computes
    seconds: float = 0.0  # that it takes, about


@dataclass(frozen=True)
class Outcome:
    """How a run ended: stages that failed with their exit codes, and those that were left out because of them."""

    failed: dict[str, int]
    skipped: list[str]


def main(arguments: list[str]) -> int:
    """Run the pipeline of the working directory; returns the exit code."""
    options = _parse(arguments)
    environment = process_environment(os.environ, portable=wants_portable_bytes())
    stages, done = _look(options)
    for name in stages.keys() - done:
        refuse_second_writer(name)
    if _one_at_a_time(options, stages):
        return _one_after_the_other(options, environment)
    homes = dict.fromkeys((ROOT, options.here))
    for gate in [address(home, gate) for home in homes for gate in GATES]:  # then less is left to do, as a rule
        if gate in stages and gate not in done:
            if code := subprocess.run([*_REPRO, gate], env=environment, check=False).returncode:
                print(f"error: {gate} failed with exit code {code}", file=sys.stderr)
                return 1
            stages, done = _look(options)
    if len(done) == len(stages):
        print("Data and pipelines are up to date.")
        _conclude(options, worked=False)
        return 0
    code = _run(stages, done, options, environment)
    if not code:
        if options.models:
            _warn_of_other_models(options.models, stages)
        _conclude(options, worked=True)
    return code


def _one_after_the_other(options: argparse.Namespace, environment: dict[str, str]) -> int:
    """An ordinary `dvc repro`, which gets every signal that this process gets."""
    sys.stdout.flush()
    process = subprocess.Popen(["dvc", "repro", *options.targets], env=environment)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in numbers}
    code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if not code:
        _conclude(options, worked=True)
    return code if code >= 0 else _KILLED - code


def _conclude(options: argparse.Namespace, *, worked: bool) -> None:
    """After a whole pipeline: note what machine made its results, and say whether they are the committed ones."""
    if options.whole and options.check:
        if worked:
            with suppress(PipelineError, OSError):  # the run itself has succeeded
                note_machine(options.here)
        print(judge(options.here, finished=True).sentence)


def _warn_of_other_models(models: Sequence[str], own: Collection[str]) -> None:
    with suppress(UnansweredError):
        if stale := [name for name in stale_stages() if name not in own]:
            print(
                f"note: other models are of other code, params or data than {', '.join(models)} ({', '.join(stale)}): "
                "compare with care; `make repro` and `make zoo` bring all up to date."
            )


def _look(options: argparse.Namespace) -> tuple[dict[str, Stage], set[str]]:
    """The stages that are asked for, and those among them that have nothing to do."""
    with Repo() as repo:
        if options.models:
            stages = stages_of_models(repo, options.here, options.models)
        else:
            stages = read_stages(repo, options.targets)
        return stages, set() if _one_at_a_time(options, stages) else unchanged(repo, stages)


def _one_at_a_time(options: argparse.Namespace, stages: Mapping[str, Stage]) -> bool:
    """Whether the run is an ordinary `dvc repro`, which looks by itself what there is to do."""
    widest = max((stage.cores for stage in stages.values()), default=0)
    return not options.models and (options.jobs == 1 or bool(widest and options.cores < 2 * widest))


def _run(stages: dict[str, Stage], done: set[str], options: argparse.Namespace, environment: dict[str, str]) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    running: dict[str, RunningStage] = {}
    status = StatusLines(running, total=len(stages), done=len(done))

    def start(name: str) -> RunningStage:
        running[name] = RunningStage(name, [*_REPRO, name], environment, status)
        return running[name]

    try:
        with status:
            outcome = schedule(stages, jobs=options.jobs, cores=options.cores, start=start, done=done)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the children end first
        stop([stage.process for stage in running.values()])
        print("interrupted: run the same command again, trainings go on from the last finished epoch", file=sys.stderr)
        return INTERRUPTED
    _remember({name: stage.seconds for name, stage in running.items() if stage.worked})
    for name, code in outcome.failed.items():
        print(f"error: {name} failed with exit code {code}", file=sys.stderr)
    if outcome.skipped:
        print(f"not run, since they need what failed: {', '.join(outcome.skipped)}", file=sys.stderr)
    if not outcome.failed:
        print(f"Data and pipelines are up to date, in {as_time(status.seconds)}.")
    return int(bool(outcome.failed))


def refuse_second_writer(name: str) -> None:
    """Make sure that no training of an earlier run still writes what DVC would clear away before this stage starts.

    Raises:
        PipelineError: one does.
    """
    home, _, stage = name.rpartition(":")
    kind, _, item = stage.partition("@")
    if kind in ("train", "train_extractor"):
        here = next(here for here in PIPELINES.values() if str(here.definition) == (home or str(ROOT.definition)))
        folder = f"{EXTRACTOR_PREFIX}{item}" if kind == "train_extractor" else item
        path = here.checkpoints / f"{folder}.lock"
        if path.exists():
            try:
                with filelock.FileLock(path, timeout=0):
                    pass
            except filelock.Timeout:
                raise PipelineError(
                    f"'{name}' is still being trained by a process that outlived its run: end it (`fuser {path}` tells "
                    "its number) and run again; the training goes on after its last finished epoch."
                ) from None


def read_stages(repo: Repo, targets: Collection[str] = ()) -> dict[str, Stage]:
    """The stages of the root's dvc.yaml in its order, or those that the stages `targets` need.

    Raises:
        PipelineError: there is no stage of the name of a target.
    """
    graph = repo.index.graph
    names = {stage.addressing: stage for stage in graph}
    for target in targets:
        if target not in names:
            raise PipelineError(f"there is no stage '{target}'; there are: {', '.join(names)}.")
    wanted = {stage for target in targets for stage in (names[target], *nx.descendants(graph, names[target]))}
    cores, seconds = _cores_of_a_stage(), _expected_seconds(list(names))
    return {
        name: Stage(
            frozenset(needed.addressing for needed in graph.successors(stage)),
            cores if _computes(stage) else 0,
            seconds[name],
        )
        for name, stage in names.items()
        if stage in wanted or (not targets and name == address(ROOT, stage.name))
    }


def stages_of_models(repo: Repo, here: Pipeline, models: Sequence[str]) -> dict[str, Stage]:
    """What models of a pipeline need up to their publication, and then the stages that put them beside the others.

    Raises:
        PipelineError: the params have no such model, or one without results that would stand beside them.
    """
    known = read_params(here).models
    for model in models:
        if model not in known:
            raise PipelineError(
                f"{here.params} has no model '{model}', only {', '.join(known)}: add a block of this name under "
                "'models'."
            )
    others = {name: home for home in dict.fromkeys((ROOT, here)) for name in read_params(home).models}
    unpublished = [
        name for name, home in others.items() if name not in models and not home.metrics("scores", name).exists()
    ]
    if unpublished:
        raise PipelineError(
            f"{here.params} has models without results to stand beside {', '.join(models)}: {', '.join(unpublished)}. "
            "Take them out for now, or make them too."
        )
    targets = [address(here, PUBLISH.format(model)) for model in models]
    targets += [address(here, gate) for gate in GATES]
    own = read_stages(repo, [*targets, *_real_images()])
    names = [address(here, name) for name in together(here)]
    every = read_stages(repo, names)
    last = {name: every[name] for name in names}
    kept = own.keys() | last.keys()
    return own | {name: replace(stage, needs=stage.needs & kept) for name, stage in last.items()}


def _real_images() -> list[str]:
    """The stage that publishes real images, if it has not yet done so for every extractor of the params."""
    published = [ROOT.plot_data(REAL) / f"{name}.tsv" for name in read_params().extractors]
    return [] if all(path.exists() for path in published) else ["publish_real"]


def unchanged(repo: Repo, stages: Mapping[str, Stage]) -> set[str]:
    """Stages that have nothing to do, and none before them that has: DVC would skip them."""
    found: set[str] = set()
    with lock_repo(repo):
        for stage in nx.dfs_postorder_nodes(repo.index.graph):  # what a stage needs comes first
            name = stage.addressing
            if name in stages and stages[name].needs <= found and not stage.changed():
                found.add(name)
    return found


def _cores_of_a_stage() -> int:
    """CPU cores that a computing stage keeps busy."""
    try:
        return read_params().compute.cores
    except SettingError:
        return 1  # what is wrong, check_params will say


def _computes(stage: Any) -> bool:
    return any("compute" in getattr(dep, "params", ()) for dep in stage.deps)


def _expected_seconds(names: list[str]) -> dict[str, float]:
    """What each stage took last time, here or where the committed times are from; the longest of its kind if new."""
    known = _read_seconds(COMMITTED) | _read_seconds(MEASURED)

    def longest(kind: str) -> float:
        return max((value for name, value in known.items() if _kind_of(name) == kind), default=1.0)

    return {name: known[name] if name in known else longest(_kind_of(name)) for name in names}


def _kind_of(name: str) -> str:
    """What a stage does, for whichever model and in whichever pipeline."""
    return name.rpartition(":")[2].split("@")[0]


def _remember(seconds: dict[str, float]) -> None:
    with suppress(OSError):
        write_json(MEASURED, _read_seconds(MEASURED) | {name: round(value, 1) for name, value in seconds.items()})


def _read_seconds(path: Path) -> dict[str, float]:
    """Seconds by stage; none where the file is missing or damaged, since only the order depends on them."""
    with suppress(OSError, PipelineError, AttributeError, TypeError, ValueError):
        return {name: float(value) for name, value in read_json(path).items()}
    return {}


def schedule(
    stages: Mapping[str, Stage],
    *,
    jobs: int,
    cores: int,
    start: Callable[[str], Process],
    done: Collection[str] = (),
) -> Outcome:
    """Run every stage once, none before the stages it needs have succeeded.

    Args:
        stages: by name; of those that are ready, the one with the longest way to the end comes first.
        jobs: stages that may run at once.
        cores: that the running stages may keep busy together; one stage may always run.
        start: begins a stage.
        done: stages that need not run.
    """
    urgency = _longest_ways(stages)
    finished = set(done)
    waiting = {name: stages[name] for name in sorted(stages, key=lambda name: -urgency[name]) if name not in finished}
    running: dict[str, Process] = {}
    failed: dict[str, int] = {}
    while waiting or running:
        for name, stage in list(waiting.items()):
            busy = sum(stages[other].cores for other in running)
            fits = len(running) < jobs and (not busy or not stage.cores or busy + stage.cores <= cores)
            if fits and stage.needs <= finished:
                running[name] = start(name)
                del waiting[name]
        for name, process in list(running.items()):
            if (code := process.poll()) is not None:
                del running[name]
                if code:
                    failed[name] = code
                else:
                    finished.add(name)
        if not running and not any(stage.needs <= finished for stage in waiting.values()):
            break  # what waits needs something that failed
        time.sleep(_POLL)
    return Outcome(failed, [name for name in stages if name in waiting])


def _longest_ways(stages: Mapping[str, Stage]) -> dict[str, float]:
    """Seconds from the start of each stage to the end of the pipeline, had it a core of its own."""
    graph = nx.DiGraph([(needed, name) for name, stage in stages.items() for needed in stage.needs if needed in stages])
    graph.add_nodes_from(stages)
    ways: dict[str, float] = {}
    for name in reversed(list(nx.topological_sort(graph))):
        ways[name] = stages[name].seconds + max((ways[after] for after in graph.successors(name)), default=0.0)
    return ways


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
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


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # its own session: the group has its number


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make repro", description=__doc__)
    cores = cpu_count()  # that this process may use, also in a container with a quota
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="stages to run with what they need; all by default")
    parser.add_argument("--pipeline", choices=sorted(PIPELINES), default="", help="the folder of another pipeline")
    parser.add_argument(
        "--models", type=str.split, default=[], help="make, score and draw these alone, beside the others"
    )
    parser.add_argument("--jobs", type=_positive, default=cores, help="stages at once; 1 for an ordinary `dvc repro`")
    parser.add_argument("--cores", type=_positive, default=cores, help="CPU cores to use")
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="without a word on the committed results"
    )
    options = parser.parse_args(arguments)
    options.here = PIPELINES[options.pipeline]
    options.whole = not options.models and not options.targets
    if options.models and not options.pipeline:
        options.here = homes_of_models().get(options.models[0], ROOT)  # `make model` finds it wherever it is
    if options.here != ROOT and not options.models:
        options.models = read_params(options.here).models
    return options


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
