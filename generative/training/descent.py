"""What networks with one loss and one optimizer share: the update, and what a checkpoint keeps of it."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from generative.objective import TrainingObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class DescentObjective(TrainingObjective):
    """One update per batch, down the gradient of the first of `losses`."""

    def prepare(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        fabric: "Fabric",
        schedule: Callable[[Any], LRScheduler],
    ) -> None:
        """Set up `network` and its `optimizer` on Fabric's device; `schedule` makes the learning rate's schedule."""
        self.fabric = fabric
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self.schedule = schedule(self.optimizer)

    @abstractmethod
    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Scalars for images `x` (B, 1, 28, 28) of labels `y` (B,); the one that `losses` names first is minimised."""

    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        terms = self.terms(x, y, rng)
        self.optimizer.zero_grad()
        self.fabric.backward(terms[self.losses[0]])
        self.optimizer.step()
        self.schedule.step()
        return {key: term.detach() for key, term in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
