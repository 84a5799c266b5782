"""What the families of generative adversarial networks share: losses and the averaged generator."""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Loss = Literal["least_squares", "logistic"]


def discriminator_loss(logits_real: Tensor, logits_fake: Tensor, loss: Loss) -> Tensor:
    """Mean loss of the discriminator, for logits (B,) of real and of generated images.

    Logistic: Goodfellow et al. 2014, "Generative Adversarial Nets", NeurIPS, equation 1. Least squares: Mao et
    al. 2017, "Least Squares Generative Adversarial Networks", ICCV, equation 9.
    """
    if loss == "least_squares":
        return ((logits_real - 1).square().mean() + logits_fake.square().mean()) / 2
    return F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()


def generator_loss(logits_fake: Tensor, loss: Loss) -> Tensor:
    """Mean loss of the generator, for logits (B,) of generated images; `logistic` is the non-saturating form."""
    if loss == "least_squares":
        return (logits_fake - 1).square().mean() / 2
    return F.softplus(-logits_fake).mean()


class MovingAverage:
    """A copy of a network whose weights are an exponential moving average of the network's.

    Its memory grows with the updates made, up to `decay`. No update waits for the device.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follow `network` after its update number `step`, counted from 0; buffers are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(self.network.parameters()), list(network.parameters()), None)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
