"""Taking noise away: what diffusion models have in common for whoever looks at their networks."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class TakesNoiseAway(Protocol):
    """Means of images under noise. Whoever has these methods has the capability; nothing has to be inherited."""

    def tell_labels(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """What to tell the network for an image of each label (B,)."""

    def condition(self, told: Tensor) -> Any:
        """What images are known to be, of which something is told: a named tuple of tensors (B, ...)."""

    def denoise(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        """Means (B, 1, 28, 28) of images with noise of the levels (B,), on the model's own scale."""
