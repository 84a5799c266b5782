"""`make bench`: how fast each model of both pipelines trains on this machine.

For every model, three numbers:
- images per second of the pipeline: the split as one uint8 tensor, batches by index, the family's objective;
- the ratio to a plain loop as a first tutorial writes it: a torchvision DataLoader (PIL images, ToTensor,
  shuffling, no workers), the same network with the same batch size, updated by the family's `plain_step`; a dash where
  it offers none. Both take turns in this process, so that a busy machine slows both;
- the share of the machine's float32 matrix-product rate that the model's own operations reach, counted by
  torch (matrix products and convolutions, forward and backward).
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor

from generative.compute.cost import count_multiply_adds
from generative.compute.environment import process_environment, restart_with
from generative.compute.runtime import make_rng, start
from generative.data.splits import Split, load_split
from generative.errors import PipelineError
from generative.family import TrainingConfig
from generative.objective import TrainingObjective
from stages.common.lending import borrow, wanted_extractor
from stages.common.models import read_model
from stages.common.params import read_params, wants_portable_bytes
from stages.common.paths import PIPELINES, RAW, TRAIN
from stages.common.problems import explain
from tools.machine import instructions, processor

ROUNDS = 5
SECONDS_PER_ROUND = 2.0
MATRIX_SIZE = 2048
_COUNTED = 48  # steps whose operations are counted: of every kind that a family has

Batches = Iterator[tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor], object]


class Speed(NamedTuple):
    """Images per second, medians over the rounds, and floating-point operations per image."""

    pipeline: float
    plain: float | None
    ratio: float | None
    flops: float


def main() -> int:
    """Print one line per model; returns the exit code."""
    restart_with(process_environment(os.environ, portable=wants_portable_bytes()))
    params = read_params()
    compute = params.compute
    device = start(compute)
    try:
        split = load_split(TRAIN).to(device)
    except PipelineError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    used = torch.backends.cpu.get_cpu_capability()
    print(f"{processor()}: {instructions()}, {compute.threads} threads, {device}, torch {torch.__version__} ({used})")
    print(f"{'model':<20}{'batch':>6}{'images/s':>10}{'plain':>10}{'ratio':>7}{'MFLOP/image':>13}{'of peak':>9}")
    models = {name: here for here in PIPELINES.values() for name in read_params(here).models}
    for name, here in models.items():
        peak = matrix_rate(device)
        config, family = read_model(read_params(here), name)
        lent = here.lent(name)
        extras = {"extractor": borrow(lent, device)} if wanted_extractor(config) else {}
        speed = measure(config.training, family, split, device, extras)
        share = speed.pipeline * speed.flops / peak
        print(
            f"{name:<20}{config.training.batch_size:>6}{speed.pipeline:>10.0f}{_dash(speed.plain, 10, 0)}"
            f"{_dash(speed.ratio, 7, 1)}{speed.flops / 1e6:>13.1f}{share:>9.0%}",
            flush=True,
        )
    return 0


def measure(config: TrainingConfig, family: Any, split: Split, device: torch.device, extras: dict[str, Any]) -> Speed:
    """Train a model for some seconds each way, in turns; `extras` are further arguments of its objective."""
    ways: dict[str, tuple[Step, Batches]] = {"pipeline": pipeline_way(config, family, split, device, extras)}
    if hasattr(family, "plain_step"):
        torch.manual_seed(config.seed)
        ways["plain"] = (family.plain_step(config, split.num_classes, device), by_loader(config.batch_size, device))
    for step, source in ways.values():
        run(step, source, device, seconds=0.5)
    step, source = ways["pipeline"]
    rounds = [next(source) for _ in range(_COUNTED)]
    flops = 2 * count_multiply_adds(lambda: [step(*batch) for batch in rounds]) / _COUNTED / config.batch_size
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, (step, source) in ways.items():
            steps, seconds = run(step, source, device, seconds=SECONDS_PER_ROUND)
            rates[way].append(steps * config.batch_size / seconds)
    pipeline = statistics.median(rates["pipeline"])
    if "plain" not in rates:
        return Speed(pipeline, None, None, flops)
    ratios = [fast / slow for fast, slow in zip(rates["pipeline"], rates["plain"], strict=True)]
    return Speed(pipeline, statistics.median(rates["plain"]), statistics.median(ratios), flops)


def _dash(number: float | None, width: int, decimals: int) -> str:
    return f"{'–':>{width}}" if number is None else f"{number:>{width}.{decimals}f}"


def pipeline_way(
    config: TrainingConfig, family: Any, split: Split, device: torch.device, extras: dict[str, Any]
) -> tuple[Step, Batches]:
    """The update of the pipeline for a model, and its batches without end."""
    rng = make_rng(config.seed, device)
    torch.manual_seed(config.seed)
    fabric = Fabric(accelerator=device.type, devices=1)
    objective: TrainingObjective = family.Objective(
        family.Model(config, split.num_classes), config, fabric, 1_000_000, **extras
    )
    ranks = {"rank": 0, "world_size": 1}
    return lambda x, y: objective.step(x, y, rng), endless(
        lambda: objective.batches(split, config.batch_size, rng, **ranks)
    )


def run(step: Step, source: Batches, device: torch.device, *, seconds: float) -> tuple[int, float]:
    """Update until `seconds` have passed; returns the number of updates and the time they took."""
    synchronise: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else _nothing
    synchronise()
    started = time.perf_counter()
    steps = 0
    while time.perf_counter() - started < seconds:
        step(*next(source))
        steps += 1
    synchronise()
    return steps, time.perf_counter() - started


def by_loader(batch_size: int, device: torch.device) -> Batches:
    """Endless batches as a first tutorial makes them."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "FashionMNIST"
        folder.mkdir()
        (folder / "raw").symlink_to(RAW.resolve())
        images = FashionMNIST(root, train=True, transform=ToTensor())
    loader = DataLoader(images, batch_size, shuffle=True, drop_last=True)
    for x, y in endless(lambda: iter(loader)):
        yield x.to(device), y.to(device)


def endless(make: Callable[[], Batches]) -> Batches:
    """Epoch after epoch."""
    while True:
        yield from make()


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations per second of a large float32 matrix product on `device`, the best of some."""
    a = torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        float((a @ a)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX_SIZE**3 / best


def _nothing() -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
