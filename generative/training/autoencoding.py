"""What the families of autoencoders share: settings, the objective's base, and the squared error."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from generative.config import NonNegativeInt
from generative.family import SamplingConfig
from generative.networks.coders import CoderSettings
from generative.networks.mixture import fitted_vectors
from generative.training.descent import DescentObjective
from generative.training.schedules import Decay, make_schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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


class AutoencodingObjective(DescentObjective):
    """Training of an encoder and its decoder with Adam."""

    def __init__(self, model: Any, config: Any, fabric: "Fabric", total_steps: int) -> None:
        self.raw_model = model
        self.config = config
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        self.prepare(model, optimizer, fabric, lambda adam: make_schedule(adam, config.decay, total_steps))

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) decoded from the encoder's own answer to images `x`."""

    def preview(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor | None:
        """Reconstructions, from the encoder's own answer."""
        return self.reconstruct(x)
