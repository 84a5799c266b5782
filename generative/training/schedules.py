"""How a learning rate changes over a training."""

from typing import Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

Decay = Literal["none", "linear"]

_WARMUP = 0.02  # share of the steps over which the learning rate rises
_FINAL = 0.01  # share of the learning rate that is left at the end


def make_schedule(optimizer: torch.optim.Optimizer, decay: Decay, total_steps: int) -> LambdaLR:
    """A schedule to be stepped after each of `total_steps` updates.

    `none` leaves the learning rate as it is; `linear` raises it over the first 2% of the steps and then lets
    it fall to a hundredth.
    """
    warmup = max(1, round(_WARMUP * total_steps))

    def share(step: int) -> float:
        if decay == "none":
            return 1.0
        return min((step + 1) / warmup, max(_FINAL, 1 - step / max(1, total_steps)))

    return LambdaLR(optimizer, share)
