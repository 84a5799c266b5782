"""What a model family is: the contract that every file in `generative/families/` fulfils.

A family file defines three classes with these names:

- `Config(FamilyConfig)`: its settings, one block under `models` in params.yaml;
- `Model(GenerativeModel)`: its networks, how to sample, and where it has one, its latent space;
- `Objective(TrainingObjective)`: its losses and optimizers, one update per batch.

Nothing else in the project knows any family by name.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from generative.config import Config, PositiveFloat, PositiveInt, Seed
from generative.data import Split
from generative.kinds import available, load_kind

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
    has_likelihood: ClassVar[bool] = False  # has likelihood_bound, log_weights

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

    def log_weights(self, x: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """log p(x, z) - log q(z | x), (B, count), in nats per image, of `count` posterior samples z for each image.

        The mean over them estimates the evidence lower bound; the logarithm of their mean exponential is the
        importance-weighted bound (Burda, Grosse, Salakhutdinov 2016, "Importance Weighted Autoencoders", ICLR,
        equation 8), which reaches log p(x) as `count` grows.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LikelihoodBound:
    """Terms of the evidence lower bound, each (B,) in nats per image, and the means of the posterior.

    The bound is -(loss_recon + loss_kl).
    """

    loss_recon: Tensor
    loss_kl: Tensor
    posterior_means: Tensor  # (B, d)


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

    def preview(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor | None:
        """Images (B, 1, 28, 28) in [0, 1] that show how far the training is; None if there is nothing to see.

        Args:
            x: validation images (B, 1, 28, 28) in [0, 1], the same after every epoch, sorted by class.
            y: their labels int64 (B,).
            rng: random state on the device, the same after every epoch.
        """
        return None

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
    return available(PACKAGE)


def load_family(name: Any, *, where: str) -> Any:
    """Import one family file and return the module; `where` is the params block that names it.

    Raises:
        PipelineError: there is no such file.
    """
    return load_kind(PACKAGE, name, key=f"{where}.family")
