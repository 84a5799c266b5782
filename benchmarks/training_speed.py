"""`make bench`: how fast each model of params.yaml and exercise.yaml trains on this machine.

For every model, three numbers:
- images per second of the pipeline: the split as one uint8 tensor, batches by index, the family's objective;
- the ratio to a plain loop as a first tutorial writes it: a torchvision DataLoader (PIL images, ToTensor,
  shuffling, no workers), the same network with the same batch size, `torch.optim.Adam` as it comes, the loss
  read after every step. Both take turns in this process, so that a busy machine slows both;
- the share of the machine's float32 matrix-product rate that the model's own operations reach, counted by
  torch's FlopCounterMode (matrix products and convolutions, forward and backward).
"""

import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor

from generative.compute.environment import process_environment, restart_with
from generative.compute.runtime import make_rng, start
from generative.data.splits import Split, batches, load_split
from generative.errors import PipelineError
from generative.family import TrainingConfig
from generative.objective import TrainingObjective
from stages.common.models import parse_model
from stages.common.params import read_params, read_yaml, wants_portable_bytes
from stages.common.paths import RAW, TRAIN
from stages.common.problems import explain
from tools.exercise import MODELS

ROUNDS = 5
SECONDS_PER_ROUND = 2.0
MATRIX_SIZE = 2048

Batches = Iterator[tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor], object]


class Speed(NamedTuple):
    """Images per second, medians over the rounds, and floating-point operations per image."""

    pipeline: float
    plain: float
    ratio: float
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
    instructions = torch.backends.cpu.get_cpu_capability()
    print(f"{processor()} ({instructions}), {compute.threads} threads, {device}, torch {torch.__version__}")
    print(f"{'model':<20}{'batch':>6}{'images/s':>10}{'plain':>10}{'ratio':>7}{'MFLOP/image':>13}{'of peak':>9}")
    for name, block in (params.items("models") | read_yaml(MODELS)).items():
        peak = matrix_rate(device)
        config, family = parse_model(block, where=f"models.{name}")
        speed = measure(config.training, family, split, device)
        share = speed.pipeline * speed.flops / peak
        print(
            f"{name:<20}{config.training.batch_size:>6}{speed.pipeline:>10.0f}{speed.plain:>10.0f}{speed.ratio:>7.1f}"
            f"{speed.flops / 1e6:>13.1f}{share:>9.0%}",
            flush=True,
        )
    return 0


def measure(config: TrainingConfig, family: Any, split: Split, device: torch.device) -> Speed:
    """Train a model for some seconds each way, in turns."""
    ways: dict[str, tuple[Step, Batches]] = {
        "pipeline": pipeline_way(config, family, split, device),
        "plain": (plain_step(config, family, device), by_loader(config.batch_size, device)),
    }
    for step, source in ways.values():
        run(step, source, device, seconds=0.5)
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        steps, _ = run(*ways["pipeline"], device, seconds=1.0)
    flops = counter.get_total_flops() / steps / config.batch_size
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, (step, source) in ways.items():
            steps, seconds = run(step, source, device, seconds=SECONDS_PER_ROUND)
            rates[way].append(steps * config.batch_size / seconds)
    ratios = [fast / slow for fast, slow in zip(rates["pipeline"], rates["plain"], strict=True)]
    pipeline, plain = (statistics.median(rates[way]) for way in ("pipeline", "plain"))
    return Speed(pipeline, plain, statistics.median(ratios), flops)


def pipeline_way(config: TrainingConfig, family: Any, split: Split, device: torch.device) -> tuple[Step, Batches]:
    """The update of the pipeline for a model, and its batches without end."""
    rng = make_rng(config.seed, device)
    torch.manual_seed(config.seed)
    fabric = Fabric(accelerator=device.type, devices=1)
    objective: TrainingObjective = family.Objective(family.Model(config), config, fabric, 1_000_000)
    return lambda x, y: objective.step(x, y, rng), endless(lambda: batches(split, config.batch_size, rng))


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


def plain_step(config: Any, family: Any, device: torch.device) -> Step:
    """The update of a first tutorial for the family's networks, in the default memory layout."""
    torch.manual_seed(config.seed)
    model = family.Model(config).to(device).to(memory_format=torch.contiguous_format)
    if model.conditional:
        discriminator = family.Discriminator(config).to(device).to(memory_format=torch.contiguous_format)
        return _plain_adversarial_step(model.generator, discriminator, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def step(x: Tensor, _: Tensor) -> None:
        if model.bounds_likelihood:
            x_hat, mu, logvar = model(x, torch.randn(len(x), config.latent_dim, device=device))
            divergence = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            loss = (F.mse_loss(x_hat, x, reduction="sum") + divergence) / len(x)
        else:
            loss = F.mse_loss(model(x), x, reduction="sum") / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def _plain_adversarial_step(generator: nn.Module, discriminator: nn.Module, config: Any) -> Step:
    optimizers = [torch.optim.Adam(net.parameters(), lr=config.learning_rate) for net in (generator, discriminator)]
    criterion = nn.BCEWithLogitsLoss()

    def judge(x: Tensor, y: Tensor) -> Tensor:
        judged = discriminator(x, y)
        logits: Tensor = judged[0] if isinstance(judged, tuple) else judged
        return logits

    def step(x: Tensor, y: Tensor) -> None:
        real, fake = torch.ones(len(x), device=x.device), torch.zeros(len(x), device=x.device)
        x_fake = generator(torch.randn(len(x), config.latent_dim, device=x.device), y)
        loss_g = criterion(judge(x_fake, y), real)
        optimizers[0].zero_grad()
        loss_g.backward()
        optimizers[0].step()
        loss_d = (criterion(judge(x, y), real) + criterion(judge(x_fake.detach(), y), fake)) / 2
        optimizers[1].zero_grad()
        loss_d.backward()
        optimizers[1].step()
        loss_g.item(), loss_d.item()

    return step


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


def processor() -> str:
    """What the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _nothing() -> None:
    pass


class _NoModules(contextlib.nullcontext[None]):
    """In the place of the counter's module tracker, whose hooks forbid the second derivatives of a penalty."""

    parents = frozenset({"Global"})


if __name__ == "__main__":
    sys.exit(main())
