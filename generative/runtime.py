"""Device, threads and determinism, and random states of their own."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from generative.config import Config
from generative.errors import PipelineError
from generative.portable import use_portable

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class ComputeConfig(Config):
    """Where and how to compute (params: `compute`)."""

    accelerator: Literal["cpu", "cuda"]
    devices: Annotated[int, Field(ge=1, le=64)]
    precision: Literal["32-true", "bf16-mixed"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    portable: bool  # the same bytes on every x86-64 with AVX2: also needs `generative.environment.PORTABLE`


def start(config: ComputeConfig) -> torch.device:
    """Make torch deterministic, set its threads, and return the device to work on.

    With the same processor (where `config.portable`: any x86-64 with AVX2), thread count and seeds, everything
    computed after this is bitwise the same.

    Raises:
        PipelineError: the accelerator is not there, or has fewer devices than asked for.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # for debugging; slow
    torch.set_flush_denormal(True)  # gradients below 1e-38 count as 0: on CPUs, products with them are slow
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(config.threads)
    use_portable(config.portable)
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise PipelineError("params: 'compute.accelerator' is 'cuda', but torch finds no GPU here: set it to 'cpu'.")
    if config.accelerator == "cuda" and torch.cuda.device_count() < config.devices:
        raise PipelineError(
            f"params: 'compute.devices' is {config.devices}, but torch finds {torch.cuda.device_count()} GPU here."
        )
    return torch.device(config.accelerator)


def make_rng(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random state of its own for `device`, so that no other code can disturb its draws."""
    return torch.Generator(device=device).manual_seed(seed)


def draw_noise(count: int, dim: int, rng: torch.Generator, fabric: "Fabric") -> Tensor:
    """Standard normal noise (count, dim) for this process's share of a batch.

    Every process draws the noise of the whole batch and keeps the rows of its own images, so that the noise
    does not depend on how many processes share the batch.
    """
    eps = torch.randn(count * fabric.world_size, dim, generator=rng, device=rng.device)
    return eps[fabric.global_rank :: fabric.world_size]


def average(value: Tensor, fabric: "Fabric") -> Tensor:
    """The mean of `value` over all processes; the value itself where there is one."""
    if fabric.world_size == 1:
        return value
    mean = fabric.all_reduce(value, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean
