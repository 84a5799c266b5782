"""`make bench`, second part: what a neighbour on the same cores costs a training, and what memory costs it.

Every model of params.yaml trains alone, beside a process that does nothing but compute, and beside a second training of
itself, each for some seconds, in turns; under the committed settings and, to compare with, with two threads that wait
quietly or actively, or with freed memory given back. The ratios are to the same setting alone, and page faults are
counted while it is alone.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric

from benchmarks.training_speed import endless, run
from generative.data import batches, load_split
from generative.environment import QUIET, process_environment
from generative.errors import PipelineError
from generative.runtime import ComputeConfig, make_rng, start
from stages.models import read_model
from stages.params import model_names, read_block
from stages.paths import TRAIN

ROUNDS = 5
SECONDS = 2.0
BUSY = "while True: pass"


class Setting(NamedTuple):
    """How the training's process is started."""

    name: str
    threads: int | None  # None: as in params.yaml
    without: str = ""  # variables of `QUIET` that start so are left out


SETTINGS = (
    Setting("as committed", None),
    Setting("memory given back", None, without="MALLOC"),
    Setting("2 threads, quiet", 2),
    Setting("2 threads, spinning", 2, without="OMP"),
)


class Trained(NamedTuple):
    """What a worker did: images and page faults per second."""

    images: float
    faults: float


def main(arguments: list[str]) -> int:
    """Print one line per model and setting; returns the exit code."""
    options = _parse(arguments)
    if options.worker:
        work(options.worker, options.threads)
        return 0
    print(f"{'model':<14}{'setting':<22}{'images/s':>10}{'beside busy':>13}{'two at once':>13}{'faults/s':>11}")
    for name in options.model or model_names():
        for setting in SETTINGS:
            alone, busy, pair, faults = compare(name, setting)
            print(f"{name:<14}{setting.name:<22}{alone:>10.0f}{busy:>13.2f}{pair:>13.2f}{faults:>11.0f}", flush=True)
    return 0


def compare(name: str, setting: Setting) -> tuple[float, float, float, float]:
    """Images per second alone, the ratios to it beside a busy process and of two at once together, page faults."""
    rounds = []
    with worker(name, setting) as first, worker(name, setting) as second:
        for _ in range(ROUNDS):
            (alone,) = train(first)
            with busy_process():
                (beside,) = train(first)
            pair = sum(each.images for each in train(first, second))
            rounds.append((alone.images, beside.images / alone.images, pair / alone.images, alone.faults))
    images, busy_ratio, pair_ratio, faults = (statistics.median(column) for column in zip(*rounds, strict=True))
    return images, busy_ratio, pair_ratio, faults


def train(*workers: Any) -> list[Trained]:
    """Let the workers train at the same time."""
    for each in workers:
        each.stdin.write("go\n")
        each.stdin.flush()
    return [Trained(*json.loads(each.stdout.readline())) for each in workers]


@contextmanager
def worker(name: str, setting: Setting) -> Iterator[Any]:
    """A process that trains the model `name` for a while whenever it is told to."""
    compute = read_block("compute", ComputeConfig)
    clean = {key: value for key, value in os.environ.items() if key not in QUIET}
    environment = process_environment(clean, portable=compute.portable)
    if setting.without:
        environment = {key: value for key, value in environment.items() if not key.startswith(setting.without)}
    threads = setting.threads or compute.threads
    command = [sys.executable, "-m", "benchmarks.neighbours", "--worker", name, "--threads", str(threads)]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise PipelineError(f"the training of {name} did not start: see above.")
        yield process


@contextmanager
def busy_process() -> Iterator[None]:
    """A neighbour that takes one core."""
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


def work(name: str, threads: int) -> None:
    """Train for SECONDS at each line of the standard input, and write what was done as JSON."""
    compute = read_block("compute", ComputeConfig).model_copy(update={"threads": threads})
    device = start(compute)
    split = load_split(TRAIN).to(device)
    config, family = read_model(name)
    rng = make_rng(config.seed, device)
    torch.manual_seed(config.seed)
    fabric = Fabric(accelerator=device.type, devices=1)
    objective = family.Objective(family.Model(config), config, fabric, 1_000_000)
    source = endless(lambda: batches(split, config.batch_size, rng))

    def update(x: torch.Tensor, y: torch.Tensor) -> None:
        objective.step(x, y, rng)

    run(update, source, device, seconds=SECONDS)
    print("ready", flush=True)
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        started = time.perf_counter()
        steps, seconds = run(update, source, device, seconds=SECONDS)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(json.dumps([steps * config.batch_size / seconds, faults / (time.perf_counter() - started)]), flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours")
    parser.add_argument("--model", action="append", help="of params.yaml; all by default")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineError as error:
        sys.exit(f"error: {error}")
