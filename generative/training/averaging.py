"""Averaged weights, and batch normalisations whose statistics fit the final weights."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn


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


@torch.no_grad()
def estimate_statistics(network: nn.Module, inputs: Iterable[tuple[Tensor, ...]]) -> None:
    """Set the statistics of every batch normalisation to their means over batches of `inputs`; leaves eval mode on.

    Running statistics follow the last few batches of the training, and an average of weights has other activations
    than the network whose statistics it copied (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and
    Better Generalization", UAI, section 3.2).
    """
    normalisations = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in normalisations]
    for module in normalisations:
        module.reset_running_stats()
        module.momentum = None  # a cumulative mean
    network.train()
    for arguments in inputs:
        network(*arguments)
    network.eval()
    for module, momentum in zip(normalisations, momenta, strict=True):
        module.momentum = momentum
