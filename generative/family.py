"""What a model family is: the contract that every file in `generative/families/` fulfils.

A family file defines three classes with these names:

- `Config(FamilyConfig)`: its settings, in two blocks: `training`, and `sampling`, which changes no weights;
- `Model(GenerativeModel)`: its networks, how to sample, and where it has one, its latent space;
- `Objective(TrainingObjective)`: its losses and optimizers, one update per batch (`generative.objective`).

Nothing else in the project knows any family by name.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from generative.config import BatchSize, Config, PositiveFloat, PositiveInt, Seed
from generative.data.splits import Split
from generative.plugins import available, load_plugin

PACKAGE = "generative.families"


class TrainingConfig(Config):
    """Settings of training that every family has: all that its weights depend on."""

    seed: Seed
    epochs: PositiveInt
    batch_size: BatchSize
    learning_rate: PositiveFloat

    def describe_schedule(self) -> str:
        """How long and how fast, for the report."""
        return f"{self.epochs} epochs of Adam, learning rate {self.learning_rate:g}, batches of {self.batch_size}"


class SamplingConfig(Config):
    """Settings of sampling and encoding, of a family that has none: they can change without a new training."""

    def limits(self, train_size: int) -> dict[str, int]:
        """By its name here, the greatest possible value of each setting that `train_size` training images limit."""
        return {}


class FamilyConfig(Config):
    """Settings that every family has; `training` and `sampling` become the family's own."""

    family: str
    training: TrainingConfig
    sampling: SamplingConfig = SamplingConfig()

    def describe(self) -> str:
        """What the model is and how it is trained, in one or two sentences for the report."""
        raise NotImplementedError


class GenerativeModel(nn.Module):
    """A trained model: its weights are all that later stages need of it.

    Images are float (B, 1, 28, 28) in [0, 1]. Methods that raise NotImplementedError here are for
    families that say so by the class attributes. `prepare_sampling` comes before all of them.
    """

    conditional: ClassVar[bool] = False  # samples follow the labels they are asked for
    encodes: ClassVar[bool] = False  # has encode, decode, grid_axis
    bounds_likelihood: ClassVar[bool] = False  # has likelihood_bound, log_weights

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config  # the settings of the training
        self.sampling: Any = None

    def prepare_sampling(self, sampling: Any, train: Split) -> None:
        """Take the settings `sampling`, and fit what they ask for to the training images; the weights stay as they are.

        Called once, on the device and in eval mode, after the weights are loaded.
        """
        self.sampling = sampling

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


def available_families() -> list[str]:
    """Names of the family files, sorted; none of them is imported."""
    return available(PACKAGE)


def load_family(name: Any, *, where: str) -> Any:
    """Import one family file and return the module; `where` is the block of settings that names it.

    Raises:
        SettingError: there is no such file.
    """
    return load_plugin(PACKAGE, name, key=f"{where}.family")
