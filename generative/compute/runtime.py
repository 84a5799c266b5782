"""Device, threads and determinism, and random states of their own."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generative.compute.portable import use_portable
from generative.compute.settings import ComputeConfig
from generative.errors import SettingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def start(config: ComputeConfig, *, where: str = "compute") -> torch.device:
    """Make torch deterministic, set its threads, and return the device to work on.

    With the same processor (where `config.portable`: any x86-64 with AVX2), thread count and seeds, everything
    computed after this is bitwise the same.

    Args:
        config: what is asked for.
        where: dotted name of these settings, used in messages.

    Raises:
        SettingError: the accelerator is not there, or has fewer devices than asked for.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # for debugging; slow
    torch.set_flush_denormal(True)  # gradients below 1e-38 count as 0: on CPUs, products with them are slow
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(config.threads)
    use_portable(config.portable)
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise SettingError(f"'{where}.accelerator' is 'cuda', but torch finds no GPU here: set it to 'cpu'.")
    if config.accelerator == "cuda" and torch.cuda.device_count() < config.devices:
        raise SettingError(
            f"'{where}.devices' is {config.devices}, but torch finds {torch.cuda.device_count()} GPU here."
        )
    return torch.device(config.accelerator)


def make_rng(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random state of its own for `device`, so that no other code can disturb its draws."""
    return torch.Generator(device=device).manual_seed(seed)


def draw_normal(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    """Standard normal numbers of any shape on the device of `rng`."""
    return torch.randn(*shape, generator=rng, device=rng.device)


def draw_noise(shape: Sequence[int], rng: torch.Generator, fabric: "Fabric") -> Tensor:
    """Standard normal noise for this process's share of a batch, of as many images as the first of `shape` says.

    Every process draws the noise of the whole batch and keeps the rows of its own images, so that the noise
    does not depend on how many processes share the batch.
    """
    count, *rest = shape
    return draw_normal((count * fabric.world_size, *rest), rng)[fabric.global_rank :: fabric.world_size]


def average(value: Tensor, fabric: "Fabric") -> Tensor:
    """The mean of `value` over all processes; the value itself where there is one."""
    if fabric.world_size == 1:
        return value
    mean = fabric.all_reduce(value, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def gather(value: Tensor, fabric: "Fabric") -> list[Tensor]:
    """`value`, of the same shape in every process, of each process by rank, on the CPU."""
    if fabric.world_size == 1:
        return [value.cpu()]
    own = value.to(fabric.device)
    parts = [torch.empty_like(own) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(parts, own)
    return [part.cpu() for part in parts]
