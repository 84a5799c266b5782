"""What objectives that descend a gradient share: optimizers with their schedules, averages of weights, their state."""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from generative.objective import TrainingObjective
from generative.training.averaging import MovingAverage
from generative.training.schedules import Decay, make_schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class GradientObjective(TrainingObjective):
    """An objective says what is optimised (`optimise`) and averaged (`keep_average`), and how one batch is used.

    After every `update` all schedules make a step and all averages follow, and a checkpoint keeps the state of all.
    """

    def __init__(self, model: Any, config: Any, fabric: "Fabric", total_steps: int) -> None:
        self.raw_model = model
        self.config = config
        self.fabric = fabric
        self.total_steps = total_steps
        self.steps = 0  # done so far
        self._networks: list[nn.Module] = []  # beside the model
        self._optimizers: list[torch.optim.Optimizer] = []
        self._schedules: list[LRScheduler] = []
        self._averages: list[tuple[MovingAverage, nn.Module]] = []

    def optimise(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Decay | Callable[[Any], LRScheduler] = "none",
    ) -> tuple[Any, Any]:
        """Set up `network` and its `optimizer` on Fabric's device, and return what to call and what to step.

        Args:
            network: the model, a part of it, or a network that the training alone needs.
            optimizer: of its parameters.
            schedule: of the learning rate, or what makes one of the optimizer.
        """
        own = {id(value) for value in self.raw_model.parameters()}
        if any(id(value) not in own for value in network.parameters()):
            self._networks.append(network)
        wrapped, optimizer = self.fabric.setup(network, optimizer)
        self._optimizers.append(optimizer)
        if isinstance(schedule, str):
            self._schedules.append(make_schedule(optimizer, schedule, self.total_steps))
        else:
            self._schedules.append(schedule(optimizer))
        return wrapped, optimizer

    def keep_average(self, network: nn.Module, decay: float) -> MovingAverage:
        """A moving average of the weights of `network`, which follows every step."""
        average = MovingAverage(network, decay)
        self._averages.append((average, network))
        return average

    def descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step of `optimizer` down the gradient of `loss`."""
        optimizer.zero_grad()
        self.fabric.backward(loss)
        optimizer.step()

    @abstractmethod
    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Use one batch: what `step` promises, but for schedules and averages."""

    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        scalars = self.update(x, y, rng)
        for average, network in self._averages:
            average.update(network, self.steps)
        with warnings.catch_warnings() if self.steps == 0 else nullcontext():
            if self.steps == 0:  # torch warns of a schedule whose optimizer has still to wait for its turn
                warnings.simplefilter("ignore", UserWarning)
            for schedule in self._schedules:
                schedule.step()
        self.steps += 1
        return scalars

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": [network.state_dict() for network in self._networks],
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
            "averages": [average.network.state_dict() for average, _ in self._averages],
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        owners: dict[str, list[Any]] = {
            "networks": self._networks,
            "optimizers": self._optimizers,
            "schedules": self._schedules,
            "averages": [average.network for average, _ in self._averages],
        }
        for key, objects in owners.items():
            for owner, values in zip(objects, state[key], strict=True):
                owner.load_state_dict(values)
        self.steps = state["steps"]


class DescentObjective(GradientObjective):
    """One network, one optimizer, one loss: the first of `losses`. `optimise` sets `network` and `optimizer`."""

    network: Any
    optimizer: Any

    @abstractmethod
    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Scalars for images `x` (B, 1, 28, 28) of labels `y` (B,); the one that `losses` names first is minimised."""

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        terms = self.terms(x, y, rng)
        self.descend(self.optimizer, terms[next(iter(self.losses))])
        return {key: term.detach() for key, term in terms.items()}
