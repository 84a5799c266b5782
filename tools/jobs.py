"""`make repro`: the stages of the pipeline side by side, each as soon as its inputs are ready, on all cores.

Every stage is run by `dvc --wait-for-lock repro -s STAGE`, so that `dvc.lock` becomes that of a serial run. A stage
that reads the param block `compute` keeps `compute.threads` cores busy on each device; as many of those run at once as
there are cores for, the one with the longest way to the end of the pipeline first. Where that is one at a time on this
machine, the run is an ordinary `dvc repro`, which starts faster. Stages with nothing to do are not started. A failed
stage keeps the stages that need it from running, and no others. With CLUSTER or SCHEDULER the stages run in the jobs of
a batch system, or on a Dask cluster that runs already: docs/cluster.md.

`make model NAME=...` and `make zoo MODELS=...` run what some models need and put them beside the others, of which only
what git keeps is read. So does `make zoo`: of the root's models it reads what git keeps.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.repo import Repo, lock_repo

from generative.compute.environment import process_environment
from generative.errors import PipelineError, SettingError
from generative.io.files import read_json, write_json
from generative.io.leases import HeldError, held
from stages.common.params import read_params, wants_portable_bytes
from stages.common.paths import EXTRACTOR_PREFIX, PIPELINES, REAL, ROOT, Pipeline
from tools.check import judge
from tools.entry import run_tool
from tools.machine import note_machine
from tools.pipelines import address, homes_of_models, together
from tools.place import add_place_arguments, only_run, place_of
from tools.schedule import Stage
from tools.staleness import GATES, UnansweredError, stale_stages

MEASURED = Path(".dvc/tmp/stage_seconds.json")  # how long each stage took here
COMMITTED = Path(__file__).with_name("stage_seconds.json")  # and elsewhere, for the first run
PUBLISH = "publish@{}"  # the last stage of one model
_REPRO = ("dvc", "--wait-for-lock", "repro", "-s")
_KILLED = 128  # and the number of the signal: the exit code of what a signal ended, as shells have it


def main(arguments: list[str]) -> int:
    """Run the pipeline of the working directory; returns the exit code."""
    options = _parse(arguments)
    with only_run(Path(), "run this again"):
        return _work(options)


def _work(options: argparse.Namespace) -> int:
    environment = process_environment(os.environ, portable=wants_portable_bytes())
    stages, done = _look(options)
    for name in stages.keys() - done:
        refuse_second_writer(name)
    if _one_at_a_time(options, stages):
        return _one_after_the_other(options, environment)
    homes = dict.fromkeys((ROOT, options.here))
    for gate in [address(home, gate) for home in homes for gate in GATES]:  # then less is left to do, as a rule
        if gate in stages and gate not in done:
            if code := _call([*_REPRO, gate], environment):
                print(f"error: {gate} failed with exit code {code}", file=sys.stderr)
                return 1
            stages, done = _look(options)
    if len(done) == len(stages):
        print("Data and pipelines are up to date.")
        _conclude(options, worked=False)
        return 0
    from tools.runner import run  # Dask takes half a second to import, and most runs have nothing to do
    from tools.terminal import as_time

    started = time.monotonic()
    report = run(stages, options.place, portable=wants_portable_bytes(), done=done)
    _remember(report.seconds)
    if not report.code:
        print(f"Data and pipelines are up to date, in {as_time(time.monotonic() - started)}.")
        if options.models:
            _warn_of_other_models(options.models, stages)
        _conclude(options, worked=True)
    return report.code


def _one_after_the_other(options: argparse.Namespace, environment: dict[str, str]) -> int:
    """An ordinary `dvc repro`."""
    code = _call(["dvc", "repro", *options.targets], environment)
    if not code:
        _conclude(options, worked=True)
    return code


def _call(command: list[str], environment: dict[str, str]) -> int:
    """Run a command, which gets every signal that this process gets; returns the exit code."""
    sys.stdout.flush()
    process = subprocess.Popen(command, env=environment)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in numbers}
    code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
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
    here = options.place.is_here and not options.models
    return here and (options.jobs == 1 or bool(widest and options.cores < 2 * widest))


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
        try:
            if (here.checkpoints / f"{folder}.lock").exists():
                with held(here.checkpoints / f"{folder}.lock"):
                    pass
        except HeldError as holder:
            raise PipelineError(
                f"'{name}' is still being trained by a process that outlived its run, {holder}: end it and run again; "
                "the training goes on after its last finished epoch."
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
    (cores, devices), seconds = cores_and_devices(), expected_seconds(list(names))
    return {
        name: Stage(
            frozenset(needed.addressing for needed in graph.successors(stage)),
            cores if _computes(stage) else 0,
            seconds[name],
            devices if _computes(stage) else 0,
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


def cores_and_devices() -> tuple[int, int]:
    """CPU cores, and devices of another accelerator, that a computing stage keeps busy."""
    try:
        compute = read_params().compute
    except SettingError:
        return 1, 0  # what is wrong, check_params will say
    return compute.cores, compute.devices if compute.accelerator != "cpu" else 0


def _computes(stage: Any) -> bool:
    return any("compute" in getattr(dep, "params", ()) for dep in stage.deps)


def expected_seconds(names: list[str]) -> dict[str, float]:
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


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make repro", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="stages to run with what they need; all by default")
    parser.add_argument("--pipeline", choices=sorted(PIPELINES), default="", help="the folder of another pipeline")
    parser.add_argument(
        "--models", type=str.split, default=[], help="make, score and draw these alone, beside the others"
    )
    add_place_arguments(parser)
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="without a word on the committed results"
    )
    options = parser.parse_args(arguments)
    options.place = place_of(options)
    options.here = PIPELINES[options.pipeline]
    options.whole = not options.models and not options.targets
    if options.models and not options.pipeline:
        options.here = homes_of_models().get(options.models[0], ROOT)  # `make model` finds it wherever it is
    if options.here != ROOT and not options.models:
        options.models = read_params(options.here).models
    return options


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
