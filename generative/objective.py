"""What a training objective is: losses and optimizers of one network, called once per batch by the training loop.

`generative.training.gradient` has what nearly all of them share.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from generative.data.splits import Split, batches, steps_per_epoch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainingObjective(ABC):
    """How a network is trained: called once per batch by `generative.training.loop.fit`.

    `losses` names the quantities that are minimised, each with the words for an axis: what it is, and, where several
    are drawn together, behind the last comma in which unit.
    Training stops if one is not finite or explodes. Those in `scaleless` may grow, as a critic's loss does, and must
    only be finite.
    """

    losses: Mapping[str, str]
    scaleless: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, model: Any, config: Any, fabric: "Fabric", total_steps: int) -> None:
        """Prepare networks and optimizers for `total_steps` steps on Fabric's device."""

    @classmethod
    def steps_per_epoch(cls, count: int, batch_size: int) -> int:
        """How many batches of `batch_size` an epoch over `count` images has."""
        return steps_per_epoch(count, batch_size)

    @classmethod
    def batches(
        cls, train: Split, batch_size: int, rng: torch.Generator, *, rank: int, world_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, `steps_per_epoch` of them: the share of process `rank` in each.

        Images (B, ...) and labels (B,) as `step` takes them: here images (B, 1, 28, 28) in [0, 1], each once, in an
        order drawn from `rng`. Another objective may want pairs, two domains, or every class in each batch.
        """
        return batches(train, batch_size, rng, rank=rank, world_size=world_size)

    @abstractmethod
    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Update the weights once.

        Args:
            x: images (B, 1, 28, 28) in [0, 1].
            y: labels int64 (B,).
            rng: random state on the device.

        Returns:
            Scalars without gradient, left on the device, so that no step waits for it: `losses`, and what else is to be
            seen. One that is not to be had at every step may be missing; it is averaged over the steps that have it.
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
        return self.draw(y, rng)

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor | None:
        """Samples (B, 1, 28, 28) in [0, 1] that the model would draw if the training ended now; None if it draws none.

        Args:
            labels: int64 (B,), 0 to 9; an unconditional model reads only their number.
            rng: random state on the device.
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
