"""Applying a function to many inputs, some at a time."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_batches(function: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int) -> Tensor:
    """`function` of `inputs` (N, ...), of `batch_size` rows at a time: its results (N, ...) one after the other."""
    return torch.cat([function(batch) for batch in inputs.split(batch_size)])
