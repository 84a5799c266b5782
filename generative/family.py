"""What a model family is: the contract that every file in `generative/families/` fulfils.

A family file defines three classes with these names:

- `Config(FamilyConfig)`: its settings, one block under `models` in params.yaml;
- `Model(GenerativeModel)`: its networks, how to sample, and where it has one, its latent space;
- `Objective(TrainingObjective)`: its losses and optimizers, one update per batch.

Nothing else in the project knows any family by name.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from generative.config import Config, PositiveFloat, PositiveInt, Seed
from generative.data import Split
from generative.errors import PipelineError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PACKAGE = "generative.families"


class FamilyConfig(Config):
    """Settings that every family has."""

    family: str
    seed: Seed
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat

    def describe(self) -> str:
        """What the model is and how it is trained, in one or two sentences for the report."""
        raise NotImplementedError

    def _describe_schedule(self) -> str:
        return f"{self.epochs} epochs of Adam, learning rate {self.learning_rate:g}, batches of {self.batch_size}"


class GenerativeModel(nn.Module):
    """A trained model: its weights are all that later stages need of it.

    Images are float (B, 1, 28, 28) in [0, 1]. Methods that raise NotImplementedError here are for
    families that say so by the class attributes.
    """

    conditional: ClassVar[bool] = False  # samples follow the labels they are asked for
    encodes: ClassVar[bool] = False  # has encode, decode, grid_axis
    has_likelihood: ClassVar[bool] = False  # has likelihood_bound

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label.

        Args:
            labels: int64 (B,), 0 to 9; an unconditional model reads only their number.
            rng: random state on the labels' device.

        Returns:
            Images (B, 1, 28, 28) in [0, 1].
        """
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """Latent vectors (B, d) of images `x`; one point, not a draw, where the encoder is stochastic."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) of latent vectors (B, d)."""
        raise NotImplementedError

    def grid_axis(self, count: int) -> Tensor:
        """Coordinates (count, d), increasing in each column, that cover the latent space evenly."""
        raise NotImplementedError

    def likelihood_bound(self, x: Tensor, rng: torch.Generator) -> "LikelihoodBound":
        """A bound on log p(x), for images (B, 1, 28, 28); one posterior sample per image."""
        raise NotImplementedError


@dataclass(frozen=True)
class LikelihoodBound:
    """Terms of the evidence lower bound, each (B,) in nats per image; the bound is -(loss_recon + loss_kl)."""

    loss_recon: Tensor
    loss_kl: Tensor


class TrainingObjective(ABC):
    """How a network is trained: called once per batch by `generative.training.fit`.

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

    def finish(self, train: Split) -> None:  # noqa: B027 (few families need it)
        """Called once after the last epoch, for what is fitted to the trained model."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's weights that the next step depends on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""


def available_families() -> list[str]:
    """Names of the family files, sorted; none of them is imported."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    return sorted(module.name for module in iter_modules(spec.submodule_search_locations))


def load_family(name: Any, *, where: str) -> Any:
    """Import one family file and return the module; `where` is the params block that names it.

    Raises:
        PipelineError: there is no such file.
    """
    families = available_families()
    if name not in families:
        raise PipelineError(
            f"params: '{where}.family' is {name!r}, but must be one of {', '.join(families)} "
            "(a file in generative/families/)."
        )
    return import_module(f"{PACKAGE}.{name}")
