"""What a training objective is: losses and optimizers of one network, called once per batch by the training loop."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from generative.data.splits import Split

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainingObjective(ABC):
    """How a network is trained: called once per batch by `generative.training.loop.fit`.

    `losses` names the quantities that are minimised; training stops if one is not finite or explodes.
    """

    losses: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __init__(self, model: Any, config: Any, fabric: "Fabric", total_steps: int) -> None:
        """Prepare networks and optimizers for `total_steps` updates on Fabric's device."""

    @abstractmethod
    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Update the weights once.

        Args:
            x: images (B, 1, 28, 28) in [0, 1].
            y: labels int64 (B,).
            rng: random state on the device.

        Returns:
            Scalars without gradient, at least `losses`; left on the device, so that no step waits for it.
        """

    @abstractmethod
    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Scalars that average over a batch of the validation split; changes nothing."""

    def preview(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor | None:
        """Images (B, 1, 28, 28) in [0, 1] that show how far the training is; None if there is nothing to see.

        Args:
            x: validation images (B, 1, 28, 28) in [0, 1], the same after every epoch, sorted by class.
            y: their labels int64 (B,).
            rng: random state on the device, the same after every epoch.
        """
        return None

    def finish(self, train: Split) -> None:  # noqa: B027 (few families need it)
        """Called once after the last epoch, for weights that are not learned by descent."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's weights that the next step depends on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
