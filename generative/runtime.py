"""Device, threads and determinism, and random states of their own."""

import os
from typing import Annotated, Literal

import torch
from pydantic import Field

from generative.config import Config
from generative.errors import PipelineError


class ComputeConfig(Config):
    """Where and how to compute (params: `compute`)."""

    accelerator: Literal["cpu", "cuda"]
    precision: Literal["32-true", "bf16-mixed"]
    threads: Annotated[int, Field(ge=1, le=1024)]


def start(config: ComputeConfig) -> torch.device:
    """Make torch deterministic, set its threads, and return the device to work on.

    With the same machine, thread count and seeds, everything computed after this is bitwise the same.

    Raises:
        PipelineError: the accelerator is not there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(config.threads)
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise PipelineError("params: 'compute.accelerator' is 'cuda', but torch finds no GPU here: set it to 'cpu'.")
    return torch.device(config.accelerator)


def make_rng(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random state of its own for `device`, so that no other code can disturb its draws."""
    return torch.Generator(device=device).manual_seed(seed)
