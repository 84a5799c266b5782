"""`make bench`, second part: what a neighbour on the same cores costs a training, and what each setting costs.

Every model of params.yaml trains alone, beside a process that does nothing but compute, and beside a second training of
itself; under the committed settings and, to compare with, without what makes bytes portable, with two threads that wait
quietly or actively, and with freed memory given back. All take turns, for some seconds each, and the ratios are medians
over the rounds. Columns: images per second alone; the ratio of that to the committed settings; the ratios beside a busy
process, and of two trainings together, to the same setting alone; page faults per second alone.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from benchmarks.training_speed import pipeline_way, run
from generative.compute.environment import PORTABLE, QUIET, process_environment
from generative.compute.runtime import start
from generative.compute.settings import ComputeConfig
from generative.data.splits import load_split
from generative.errors import PipelineError
from stages.common.models import read_model
from stages.common.params import read_params
from stages.common.paths import TRAIN
from stages.common.problems import explain

ROUNDS = 3
SECONDS = 1.5
BUSY = "while True: pass"


class Setting(NamedTuple):
    """How the training's process is started."""

    name: str
    threads: int | None = None  # None: as in params.yaml
    portable: bool | None = None  # None: as in params.yaml
    without: str = ""  # variables of `QUIET` that start so are left out


SETTINGS = (
    Setting("as committed"),
    Setting("not portable", portable=False),
    Setting("memory given back", without="MALLOC"),
    Setting("2 threads, quiet", threads=2),
    Setting("2 threads, spinning", threads=2, without="OMP"),
)


class Trained(NamedTuple):
    """What a worker did: images and page faults per second."""

    images: float
    faults: float


def main(arguments: list[str]) -> int:
    """Print one line per model and setting; returns the exit code."""
    options = _parse(arguments)
    if options.worker:
        work(options.worker, ComputeConfig.model_validate_json(options.compute))
        return 0
    columns = ("images/s", "to committed", "beside busy", "two at once", "faults/s")
    print(f"{'model':<14}{'setting':<22}" + "".join(f"{column:>14}" for column in columns))
    for name in options.model or read_params().models:
        for setting, row in zip(SETTINGS, compare(name), strict=True):
            images, ratio, busy, pair, faults = row
            print(f"{name:<14}{setting.name:<22}{images:>14.0f}{ratio:>14.2f}{busy:>14.2f}{pair:>14.2f}{faults:>14.0f}")
        sys.stdout.flush()
    return 0


def compare(name: str) -> list[tuple[float, ...]]:
    """The numbers of each of SETTINGS for the model `name`."""
    rounds: list[list[tuple[float, ...]]] = [[] for _ in SETTINGS]
    with ExitStack() as stack:
        pairs = [[stack.enter_context(worker(name, setting)) for _ in range(2)] for setting in SETTINGS]
        for _ in range(ROUNDS):
            committed = 0.0
            for numbers, pair in zip(rounds, pairs, strict=True):
                (alone,) = train(pair[0])
                with busy_process():
                    (beside,) = train(pair[0])
                together = sum(each.images for each in train(*pair))
                committed = committed or alone.images
                numbers.append(
                    (
                        alone.images,
                        alone.images / committed,
                        beside.images / alone.images,
                        together / alone.images,
                        alone.faults,
                    )
                )
    return [tuple(map(statistics.median, zip(*numbers, strict=True))) for numbers in rounds]


def train(*workers: Any) -> list[Trained]:
    """Let the workers train at the same time."""
    for each in workers:
        each.stdin.write("go\n")
        each.stdin.flush()
    return [Trained(*json.loads(each.stdout.readline())) for each in workers]


@contextmanager
def worker(name: str, setting: Setting) -> Iterator[Any]:
    """A process that trains the model `name` for a while whenever it is told to."""
    compute = read_params().compute
    changes = {"threads": setting.threads, "portable": setting.portable}
    compute = compute.model_copy(update={key: value for key, value in changes.items() if value is not None})
    clean = {key: value for key, value in os.environ.items() if key not in {*QUIET, *PORTABLE}}
    environment = process_environment(clean, portable=compute.portable)
    if setting.without:
        environment = {key: value for key, value in environment.items() if not key.startswith(setting.without)}
    command = [sys.executable, "-m", "benchmarks.neighbours", "--worker", name, "--compute", compute.model_dump_json()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise PipelineError(f"the training of {name} did not start: see above.")
            yield process
        finally:
            process.kill()


@contextmanager
def busy_process() -> Iterator[None]:
    """A neighbour that takes one core."""
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


def work(name: str, compute: ComputeConfig) -> None:
    """Train for SECONDS at each line of the standard input, and write what was done as JSON."""
    device = start(compute)
    split = load_split(TRAIN).to(device)
    model, family = read_model(read_params(), name)
    config = model.training
    step, source = pipeline_way(config, family, split, device, {})
    run(step, source, device, seconds=SECONDS)
    print("ready", flush=True)
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        steps, seconds = run(step, source, device, seconds=SECONDS)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(json.dumps([steps * config.batch_size / seconds, faults / seconds]), flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours")
    parser.add_argument("--model", action="append", help="of params.yaml; all by default")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--compute", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineError as error:
        sys.exit(f"error: {explain(error)}")
