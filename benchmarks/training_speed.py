"""`make bench`: how fast each model of params.yaml trains on this machine.

For every model, three numbers:
- images per second of the pipeline's way: the split as one uint8 tensor, batches by index;
- the ratio to a plain loop over a torchvision DataLoader (PIL images, ToTensor, shuffling, no workers) that
  feeds the same objective with the same batch size; both take turns in this process, so that a busy machine
  slows both;
- the share of the machine's float32 matrix-product rate that the model's own operations reach, counted by
  torch's FlopCounterMode (matrix products and convolutions, forward and backward).
"""

import contextlib
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
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor

from generative.data import Split, load_split, to_unit
from generative.errors import PipelineError
from generative.family import FamilyConfig, TrainingObjective
from generative.runtime import ComputeConfig, make_rng, start
from stages.models import read_model
from stages.params import model_names, read_block
from stages.paths import RAW, TRAIN

ROUNDS = 5
SECONDS_PER_ROUND = 2.0
MATRIX_SIZE = 2048

Batches = Iterator[tuple[Tensor, Tensor]]


class Speed(NamedTuple):
    """Images per second, medians over the rounds, and floating-point operations per image."""

    pipeline: float
    plain: float
    ratio: float
    flops: float


def main() -> int:
    """Print one line per model; returns the exit code."""
    compute = read_block("compute", ComputeConfig)
    device = start(compute)
    try:
        split = load_split(TRAIN).to(device)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{compute.threads} threads, {device}, torch {torch.__version__}")
    print(f"{'model':<20}{'batch':>6}{'images/s':>10}{'plain':>10}{'ratio':>7}{'MFLOP/image':>13}{'of peak':>9}")
    for name in model_names():
        peak = matrix_rate(device)
        config, family = read_model(name)
        speed = measure(config, family, split, device)
        share = speed.pipeline * speed.flops / peak
        print(
            f"{name:<20}{config.batch_size:>6}{speed.pipeline:>10.0f}{speed.plain:>10.0f}{speed.ratio:>7.1f}"
            f"{speed.flops / 1e6:>13.1f}{share:>9.0%}",
            flush=True,
        )
    return 0


def measure(config: FamilyConfig, family: Any, split: Split, device: torch.device) -> Speed:
    """Train a model for some seconds each way, in turns."""
    torch.manual_seed(config.seed)
    model = family.Model(config)
    fabric = Fabric(accelerator=device.type, devices=1)
    objective: TrainingObjective = family.Objective(model, config, fabric, 1_000_000)
    rng = make_rng(config.seed, device)
    ways = {"pipeline": by_index(split, config.batch_size, rng), "plain": by_loader(config.batch_size, device)}
    for batches in ways.values():
        run(objective, batches, rng, seconds=0.5)
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        steps, _ = run(objective, ways["pipeline"], rng, seconds=1.0)
    flops = counter.get_total_flops() / steps / config.batch_size
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, batches in ways.items():
            steps, seconds = run(objective, batches, rng, seconds=SECONDS_PER_ROUND)
            rates[way].append(steps * config.batch_size / seconds)
    ratios = [fast / slow for fast, slow in zip(rates["pipeline"], rates["plain"], strict=True)]
    pipeline, plain = (statistics.median(rates[way]) for way in ("pipeline", "plain"))
    return Speed(pipeline, plain, statistics.median(ratios), flops)


def run(objective: TrainingObjective, batches: Batches, rng: torch.Generator, *, seconds: float) -> tuple[int, float]:
    """Update until `seconds` have passed; returns the number of updates and the time they took."""
    synchronise: Callable[[], None] = torch.cuda.synchronize if rng.device.type == "cuda" else _nothing
    synchronise()
    started = time.perf_counter()
    steps = 0
    while time.perf_counter() - started < seconds:
        objective.step(*next(batches), rng)
        steps += 1
    synchronise()
    return steps, time.perf_counter() - started


def by_index(split: Split, batch_size: int, rng: torch.Generator) -> Batches:
    """Endless batches as `generative.training.fit` makes them."""
    while True:
        order = torch.randperm(len(split), generator=rng, device=rng.device)
        for indices in order[: len(split) // batch_size * batch_size].view(-1, batch_size):
            yield to_unit(split.images[indices]), split.labels[indices]


def by_loader(batch_size: int, device: torch.device) -> Batches:
    """Endless batches as a first tutorial makes them."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "FashionMNIST"
        folder.mkdir()
        (folder / "raw").symlink_to(RAW.resolve())
        images = FashionMNIST(root, train=True, transform=ToTensor())
    loader = DataLoader(images, batch_size, shuffle=True, drop_last=True)
    while True:
        for x, y in loader:
            yield x.to(device), y.to(device)


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


class _NoModules(contextlib.nullcontext[None]):
    """In the place of the counter's module tracker, whose hooks forbid the second derivatives of a penalty."""

    parents = frozenset({"Global"})


if __name__ == "__main__":
    sys.exit(main())
