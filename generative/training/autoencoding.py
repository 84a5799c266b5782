"""What the families of autoencoders share: settings, the objective's base, and the squared error."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from generative.config import NonNegativeInt
from generative.family import SamplingConfig
from generative.networks.coders import CoderSettings
from generative.networks.mixture import fitted_vectors
from generative.training.gradient import DescentObjective
from generative.training.schedules import Decay

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {
    "training": {"epochs": 3, "batch_size": 40, "hidden": [32], "channels": 8, "latent_dim": 2, "learning_rate": 0.005},
    "sampling": {"mixture_components": 3, "refine_steps": 2},
}


class AutoencodingTraining(CoderSettings):
    """Settings of the two networks, and of their training with Adam."""

    decay: Decay


class AutoencodingSampling(SamplingConfig):
    """How images are encoded, and which density stands in for the prior."""

    refine_steps: NonNegativeInt
    mixture_components: NonNegativeInt

    def limits(self, train_size: int) -> dict[str, int]:
        return {"mixture_components": fitted_vectors(train_size)}

    def describe_refinement(self) -> str:
        """A sentence about what happens to the encoder's answer, with a space before it; empty if nothing does."""
        if not self.refine_steps:
            return ""
        return f" Encoding an image ends with {self.refine_steps} gradient steps on its latent vector."

    def sources(self) -> list[str]:
        """Of the refinement, where there is one."""
        return ["Kim et al. 2018, semi-amortized variational autoencoders, ICML"] if self.refine_steps else []


class AutoencodingObjective(DescentObjective):
    """Training of an encoder and its decoder with Adam."""

    def __init__(self, model: Any, config: Any, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        self.network, self.optimizer = self.optimise(model, optimizer, config.decay)

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) decoded from the encoder's own answer to images `x`."""

    def preview(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor | None:
        """Reconstructions, from the encoder's own answer."""
        return self.reconstruct(x)


def plain_autoencoding_step(
    model: nn.Module, config: Any, device: torch.device, loss: Callable[[Any, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], None]:
    """The update of a first tutorial: the default memory layout, Adam as it comes, the loss read after every step."""
    model = model.to(device).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def step(x: Tensor, _: Tensor) -> None:
        value = loss(model, x) / len(x)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        value.item()

    return step
