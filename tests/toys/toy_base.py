"""What the toys share: in the copy it lies in generative/networks/."""

import torch
from torch import Tensor, nn

from generative.family import FamilyConfig, GenerativeModel, TrainingConfig
from generative.training.gradient import DescentObjective

SMALL = {"training": {"epochs": 1, "batch_size": 40}}


class Training(TrainingConfig):
    """Settings of a template."""


class ToyConfig(FamilyConfig):
    """Settings of a toy."""

    training: Training

    def describe(self) -> str:
        return f"one template per class ({self.training.describe_schedule()})."

    def sources(self) -> list[str]:
        return ["Nobody 2026, toys, nowhere"]


class ToyModel(GenerativeModel):
    """One image per class, whose layer starts at zero."""

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.templates = nn.Embedding(num_classes, 784)
        nn.init.zeros_(self.templates.weight)

    def forward(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.templates(y)).view(-1, 1, 28, 28)

    def noisy(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """Templates with noise."""
        x = self(y.clamp(min=0))
        return (x + 0.1 * torch.randn(x.shape, generator=rng, device=rng.device)).clamp(0, 1)


class ToyObjective(DescentObjective):
    """Squared error."""

    losses = {"squared_error": "squared error, summed over the pixels"}  # noqa: RUF012

    def __init__(self, model, config, fabric, total_steps) -> None:  # type: ignore[no-untyped-def]
        super().__init__(model, config, fabric, total_steps)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
        self.network, self.optimizer = self.optimise(model, optimizer)

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {"squared_error": (self.network(y) - x).square().flatten(1).sum(1).mean()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return self.terms(x, y, rng)
