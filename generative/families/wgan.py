"""Wasserstein GAN: a critic whose loss estimates the distance between samples and images.

Arjovsky, Chintala, Bottou 2017, "Wasserstein Generative Adversarial Networks", ICML, algorithm 1: several updates of
the critic for one of the generator. The estimate holds for a critic whose slope is nowhere above 1, or another bound.
Three ways to keep it there, which can be combined:

- its weights are clipped (Arjovsky et al. 2017, algorithm 1);
- a penalty on the norm of its gradient between real and generated images (Gulrajani et al. 2017, "Improved Training of
  Wasserstein GANs", NeurIPS, equation 3);
- beside it, a term that keeps it from judging an image differently when other neurons are dropped (Wei et al. 2018,
  "Improving the Improved Training of Wasserstein GANs: A Consistency Term and Its Dual Effect", ICLR, equation 4).

A slope needs a measure of how far apart two images are. Here that is the Euclidean distance of what the critic looks
at: grey levels and enlarged fine detail (`generative.networks.convolutional.DetailView`). Measured in pixels alone,
faint grain on cloth is no distance at all, and stays (docs/recipes.md).

The model keeps its critic, so that its gradients can be looked at.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from generative.capabilities.diagnosing import Curves, Diagnostic, HasDiagnostics, Table
from generative.compute.portable import Linear
from generative.compute.runtime import draw_normal
from generative.config import Fraction, NonNegativeFloat, PositiveInt
from generative.data.splits import Split, to_unit
from generative.family import FamilyConfig
from generative.networks.convolutional import FEATURES, DetailView, Generator, discriminator_layers
from generative.training import convolutional
from generative.training.adversarial import AdversarialModel, consistency_term, gradient_norms, gradient_penalty
from generative.training.convolutional import ConvolutionalObjective, ConvolutionalTraining, round_to_grey_levels

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {"training": convolutional.SMALL | {"critic_steps": 2}}

_NEIGHBOURHOOD = 0.05  # standard deviation of the noise that makes an image one beside it
_NORMS = torch.linspace(-2, 2, 81)  # log10, of a critic's gradients
_BANDWIDTH = 0.05  # of the density over them


class Training(ConvolutionalTraining):
    """Settings of the two networks and of their losses."""

    critic_steps: PositiveInt
    clip: NonNegativeFloat
    penalty_weight: NonNegativeFloat
    consistency_weight: NonNegativeFloat
    dropout: Fraction

    @model_validator(mode="after")
    def _something_bounds_the_slope(self) -> Self:
        if not self.clip and not self.penalty_weight:
            raise ValueError("clip or penalty_weight must be above 0: a critic of any slope estimates no distance")
        if self.consistency_weight and not self.dropout:
            raise ValueError("consistency_weight needs a dropout above 0: without it an image is judged alike anyway")
        return self

    def describe_bounds(self) -> str:
        """What keeps the slope of the critic bounded."""
        ways = []
        if self.clip:
            ways.append(f"weights clipped to {self.clip:g}")
        if self.penalty_weight:
            ways.append(f"a gradient penalty of weight {self.penalty_weight:g}")
        if self.consistency_weight:
            ways.append(f"a consistency term of weight {self.consistency_weight:g}")
        if self.dropout:
            ways[-1] += f" under dropout of {self.dropout:g}"
        return " and ".join(ways)


class Config(FamilyConfig):
    """Settings of a Wasserstein GAN."""

    training: Training

    def describe(self) -> str:
        training = self.training
        return (
            f"convolutional generator (noise of {training.latent_dim} dimensions) against a critic that is updated "
            f"{training.critic_steps} times as often, with the Wasserstein loss, {training.describe_bounds()} "
            f"({training.describe_schedule()}; the critic's learning rate stays as it is).{training.describe_average()}"
        )

    def sources(self) -> list[str]:
        found = ["Arjovsky et al. 2017, Wasserstein generative adversarial networks, ICML"]
        if self.training.penalty_weight:
            found.append("Gulrajani et al. 2017, improved training of Wasserstein GANs, NeurIPS")
        if self.training.consistency_weight:
            found.append("Wei et al. 2018, improving the improved training of Wasserstein GANs, ICLR")
        return [*found, *convolutional.SOURCES]


class Critic(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to one number (B,), high where the image looks real, and features (B, FEATURES).

    `view` is what it looks at, (B, 2, 28, 28), and `of_view` what it thinks of that.

    Args:
        channels: of its first layer.
        dropout: share of the outputs of every layer that is dropped in training.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        view, *layers = discriminator_layers(channels, dropout)
        assert isinstance(view, DetailView)
        self.view = view
        self.features = nn.Sequential(*layers)
        self.judge = Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.features(self.view(x))
        return self.judge(features).squeeze(1), features

    def of_view(self, view: Tensor) -> Tensor:
        """The number (B,) for images whose views (B, 2, 28, 28) are given."""
        judged: Tensor = self.judge(self.features(view))
        return judged.squeeze(1)


class Model(AdversarialModel, HasDiagnostics):
    """The generator, and its critic: samples need the generator alone."""

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.generator = Generator(config.latent_dim, config.channels, num_classes=0)
        self.critic = Critic(config.discriminator_channels, config.dropout)

    def gradient_norms(self, x: Tensor) -> Tensor:
        """The norm (B,) of the critic's gradient in what it sees of images `x` (B, 1, 28, 28)."""
        with torch.inference_mode(False), torch.enable_grad():
            return gradient_norms(self.critic.of_view, self.critic.view(x.clone())).detach()

    def diagnose(self, examples: Split, rng: torch.Generator) -> dict[str, Diagnostic]:
        """How steep the critic is, around real images and between them and samples."""
        x = to_unit(examples.images)
        x_fake = round_to_grey_levels(self.sample(examples.labels, rng))
        share = torch.rand((len(x), 1, 1, 1), generator=rng, device=x.device)
        places = {
            "around real images": (x + _NEIGHBOURHOOD * draw_normal(tuple(x.shape), rng)).clamp(0, 1),
            "between real and generated": torch.lerp(x_fake, x, share),
        }
        norms = {place: self.gradient_norms(images) for place, images in places.items()}
        density = {place: _density(values) for place, values in norms.items()}
        numbers = [[values.mean(), values.std(), (values > 1).float().mean()] for values in norms.values()]
        return {
            "gradient_norms": Curves(
                "how steep the critic is", "log10 of the gradient's norm (0: norm 1)", "density", _NORMS, density
            ),
            "gradient_shares": Table(
                "norm of the critic's gradient",
                torch.tensor(numbers),
                list(norms),
                ["mean", "standard deviation", "share above 1"],
            ),
        }


def _density(norms: Tensor) -> Tensor:
    """The density of `norms` (N,) over their log10, at `_NORMS`: a Gaussian around each."""
    distances = (_NORMS[:, None] - norms.cpu().clamp(min=1e-12).log10()) / _BANDWIDTH
    return torch.exp(-distances.square() / 2).mean(1) / (_BANDWIDTH * math.sqrt(2 * math.pi))


class Objective(ConvolutionalObjective):
    """Each batch updates the critic; every `critic_steps`-th the generator too.

    The critic's learning rate stays as it is, so that its estimates are equally good at all times and can be compared.
    """

    losses: Mapping[str, str] = {"loss_g": "generator", "loss_d": "critic: minus the estimated distance"}
    scaleless = ("loss_g", "loss_d")

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        self.set_up(model.critic, discriminator_decay="none")

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        turn = self.steps % self.config.critic_steps == self.config.critic_steps - 1
        with torch.set_grad_enabled(turn):
            x_fake = self.generate(y, rng)
        scalars = self.update_critic(x, x_fake, rng)
        if turn:
            loss_g = -self.judge(x_fake)[0].float().mean()
            self.descend(self.optimizer_g, loss_g)
            scalars["loss_g"] = loss_g.detach()
        return scalars

    def update_critic(self, x: Tensor, x_fake: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One step of the critic on real and generated images (B, 1, 28, 28); returns what there is to see."""
        config = self.config
        judged, features = self.discriminator(torch.cat([x, x_fake.detach()]))
        judged_real, judged_fake = judged.chunk(2)
        loss_d = judged_fake.mean() - judged_real.mean()
        scalars = {"loss_d": loss_d.detach(), "critic_estimate": -loss_d.detach()}
        loss = loss_d
        if config.penalty_weight:
            share = torch.rand(len(x), generator=rng, device=x.device)
            critic = self.raw_model.critic
            penalty = gradient_penalty(critic.of_view, x, x_fake, share, critic.view)
            loss = loss + config.penalty_weight * penalty
            scalars["penalty"] = penalty.detach()
        if config.consistency_weight:
            with self.fabric.autocast():
                again, features_again = self.raw_discriminator(x)
            term = consistency_term(judged_real, again, features[: len(x)], features_again)
            loss = loss + config.consistency_weight * term
            scalars["consistency"] = term.detach()
        self.descend(self.optimizer_d, loss)
        if config.clip:
            with torch.no_grad():
                for weight in self.raw_discriminator.parameters():
                    weight.clamp_(-config.clip, config.clip)
        return scalars

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        judged_fake = self.discriminator(self.draw(y, rng))[0].mean()
        loss_d = judged_fake - self.discriminator(x)[0].mean()
        return {"loss_g": -judged_fake, "loss_d": loss_d, "critic_estimate": -loss_d}
