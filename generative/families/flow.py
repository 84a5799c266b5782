"""Normalizing flow: an invertible network from images to noise, trained by their exact log-likelihood.

Multi-scale affine couplings (Dinh, Sohl-Dickstein, Bengio 2017, "Density estimation using Real NVP", ICLR) with the
steps of Kingma, Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS: at 14 x 14, at 7 x 7,
and on what is left of the 7 x 7 maps as one vector. Grey levels are dequantised by uniform noise.
"""

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.capabilities.encoding import EncodesImages
from generative.capabilities.likelihood import HasLikelihood, Likelihood
from generative.capabilities.sampling import DrawsSamples
from generative.compute.runtime import average, draw_normal
from generative.config import Fraction, PositiveFloat, PositiveInt
from generative.data.images import IMAGE_SHAPE, NUM_PIXELS, WHITE
from generative.data.splits import Split
from generative.family import FamilyConfig, GenerativeModel, SamplingConfig, TrainingConfig
from generative.networks.flows import Convolutions, convolutional_steps, dense_steps
from generative.training.gradient import DescentObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {
    "training": {
        "epochs": 1,
        "batch_size": 40,
        "learning_rate": 0.002,
        "steps": [1, 1, 1],
        "widths": [8, 8, 16],
        "ema_decay": 0.9,
        "gradient_norm": 10.0,
    }
}

_LEVELS = WHITE + 1
_FARTHEST = 2.0  # log of the greatest scale of a prior
_SIZES = ((2, 14, 14), (4, 7, 7), (196,))  # of the parts of a latent vector: 392 + 196 + 196 dimensions


class Training(TrainingConfig):
    """Settings of the network, each for 14 x 14, 7 x 7 and the vector, and of its training."""

    steps: list[PositiveInt]
    widths: list[PositiveInt]  # of the couplings' networks
    ema_decay: Fraction
    gradient_norm: PositiveFloat  # that no step may exceed

    def model_post_init(self, _: object) -> None:
        if not len(self.steps) == len(self.widths) == len(_SIZES):
            raise ValueError(f"steps and widths must have {len(_SIZES)} numbers each")


class Sampling(SamplingConfig):
    """Settings of sampling."""

    temperature: PositiveFloat  # by which noise is multiplied


class Config(FamilyConfig):
    """Settings of a flow."""

    training: Training
    sampling: Sampling
    footnotes: ClassVar[dict[str, str]] = {
        "mse_x1000": "invertible, with as many latent dimensions as pixels: nothing is lost, and nothing compressed"
    }

    def describe(self) -> str:
        training = self.training
        counts, widths = ("-".join(map(str, numbers)) for numbers in (training.steps, training.widths))
        return (
            f"multi-scale flow of {counts} affine couplings (networks {widths} wide; 14 × 14, 7 × 7, vector) with "
            f"activation normalisation and invertible 1 × 1 convolutions, trained by the exact likelihood of "
            f"dequantised grey levels ({training.describe_schedule()}, falling linearly; averaged weights). "
            f"Samples are drawn at temperature {self.sampling.temperature:g}."
        )

    def sources(self) -> list[str]:
        return [
            "Dinh, Sohl-Dickstein, Bengio 2017, density estimation using Real NVP, ICLR",
            "Kingma, Dhariwal 2018, Glow, NeurIPS",
        ]


class Model(GenerativeModel, DrawsSamples, EncodesImages, HasLikelihood):
    """Images (B, 1, 28, 28) in [0, 1] to latent vectors (B, 784), standard normal if the model is right."""

    likelihood_kind = "exact"
    likelihood_of = "dequantised"

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        (steps_14, steps_7, steps), (width_14, width_7, width) = config.steps, config.widths
        self.at_14 = convolutional_steps(4, steps_14, width_14, 14)
        self.prior_14 = Convolutions(2, 4, width_14, 14)
        self.at_7 = convolutional_steps(8, steps_7, width_7, 7)
        self.prior_7 = Convolutions(4, 8, width_7, 7)
        self.at_1 = dense_steps(math.prod(_SIZES[2]), steps, width)
        self.prior = nn.Parameter(torch.zeros(1, 2 * math.prod(_SIZES[2])))  # means and log-scales
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors (B, 784) of dequantised images, and log |det dz/dx| (B,)."""
        h, total = stretch(x)
        h, log_det = self.at_14(_fold(h))
        total = total + log_det
        h, first = h.chunk(2, 1)
        first, log_det = _whiten(first, self.prior_14(h.contiguous()))
        total = total + log_det
        h, log_det = self.at_7(_fold(h))
        total = total + log_det
        h, second = h.chunk(2, 1)
        second, log_det = _whiten(second, self.prior_7(h.contiguous()))
        total = total + log_det
        h, log_det = self.at_1(h.flatten(1))
        third, last = _whiten(h, self.prior)
        return torch.cat([first.flatten(1), second.flatten(1), third], 1), total + log_det + last

    def inverse(self, z: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) of latent vectors (B, 784), some outside [0, 1] where the model is not right."""
        parts = z.split([math.prod(size) for size in _SIZES], 1)
        first, second, third = (part.view(-1, *size) for part, size in zip(parts, _SIZES, strict=True))
        h = self.at_1.inverse(_colour(third, self.prior)).view(-1, *_SIZES[1])
        h = self.at_7.inverse(torch.cat([h, _colour(second, self.prior_7(h))], 1))
        h = F.pixel_shuffle(h, 2)
        h = self.at_14.inverse(torch.cat([h, _colour(first, self.prior_14(h))], 1))
        return shrink(F.pixel_shuffle(h, 2))

    @torch.no_grad()
    def fit_normalisations(self, x: Tensor, fabric: "Fabric") -> None:
        """Fit each activation normalisation to dequantised images: Kingma, Dhariwal 2018, section 3.1."""

        def mean(value: Tensor) -> Tensor:
            return average(value, fabric)

        h = self.at_14.fit(_fold(stretch(x)[0]), mean).chunk(2, 1)[0]
        h = self.at_7.fit(_fold(h), mean).chunk(2, 1)[0]
        self.at_1.fit(h.flatten(1), mean)

    def log_likelihood(self, x: Tensor, rng: torch.Generator) -> Likelihood:
        return Likelihood(log_density(*self(x)), {})

    def encode(self, x: Tensor) -> Tensor:
        """Latent vectors of grey levels, each in the middle of its interval."""
        z: Tensor = self.forward((x * WHITE + 0.5) / _LEVELS)[0]
        return z

    def decode(self, z: Tensor) -> Tensor:
        return ((self.inverse(z) * _LEVELS - 0.5) / WHITE).clamp(0, 1)

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return self.decode(self.sampling.temperature * draw_normal((len(labels), NUM_PIXELS), rng))


class Objective(DescentObjective):
    """Negative log-likelihood in bits per dimension; the weights that are kept are a moving average."""

    losses = {"bits_per_dim": "negative log-likelihood, bits per dimension"}  # noqa: RUF012

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        self.network, self.optimizer = self.optimise(model, optimizer, "linear")
        self.average = self.keep_average(model, config.ema_decay)

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        if self.steps == 0:
            self.raw_model.fit_normalisations(self._dequantise(x, rng), self.fabric)
        return super().update(x, y, rng)

    def descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step whose gradient is cut to the greatest norm; none where it is not finite."""
        optimizer.zero_grad()
        self.fabric.backward(loss)
        gradients = [value.grad for value in self.raw_model.parameters() if value.grad is not None]
        squares = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        share = (self.config.gradient_norm * squares.rsqrt()).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(share).nan_to_num_(0.0, 0.0, 0.0)
        optimizer.step()

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {"bits_per_dim": bits_per_dim(log_density(*self.network(self._dequantise(x, rng)))).mean()}

    def _dequantise(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """This process's share of a batch, with noise that does not depend on how many share it."""
        ranks = self.fabric.world_size
        noise = torch.rand(len(x) * ranks, *IMAGE_SHAPE, generator=rng, device=rng.device)
        return (x * WHITE + noise[self.fabric.global_rank :: ranks]) / _LEVELS

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        noise = torch.rand(x.shape, generator=rng, device=rng.device)
        return {"bits_per_dim": bits_per_dim(log_density(*self.average.network((x * WHITE + noise) / _LEVELS))).mean()}

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        averaged: Any = self.average.network
        images: Tensor = averaged.decode(draw_normal((len(labels), NUM_PIXELS), rng))
        return images

    def finish(self, train: Split) -> None:
        self.raw_model.load_state_dict(self.average.network.state_dict())


def log_density(z: Tensor, log_det: Tensor) -> Tensor:
    """log p(x) in nats, (B,), of latent vectors `z` (B, d) under N(0, I): the change of variables."""
    return log_det - (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi)) / 2


def bits_per_dim(nats: Tensor) -> Tensor:
    """Bits per dimension of 8-bit images whose dequantised intensities in [0, 1] have log-densities `nats`."""
    return math.log2(_LEVELS) - nats / (NUM_PIXELS * math.log(2))


def stretch(x: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities in [0, 1] on a logarithmic scale around 0, and log |det| (B,): black and near-black get room."""
    whole = math.log1p(_LEVELS)
    log_det = math.log(_LEVELS / whole) - torch.log1p(_LEVELS * x)
    return torch.log1p(_LEVELS * x) / whole - 0.5, log_det.flatten(1).sum(1)


def shrink(y: Tensor) -> Tensor:
    """The inverse of `stretch`."""
    return torch.expm1((y + 0.5) * math.log1p(_LEVELS)) / _LEVELS


def _fold(x: Tensor) -> Tensor:
    """2 x 2 pixels as channels."""
    return F.pixel_unshuffle(x.contiguous(), 2).contiguous(memory_format=torch.channels_last)


def _whiten(z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """`z` of a Gaussian with these means and log-scales as standard normal, and log |det| (B,)."""
    mean, log_scale = _mean_and_log_scale(parameters)
    scaled = (z - mean) * (-log_scale).exp()
    return scaled, -log_scale.flatten(1).sum(1).expand(len(z))


def _colour(z: Tensor, parameters: Tensor) -> Tensor:
    """The inverse of `_whiten`."""
    mean, log_scale = _mean_and_log_scale(parameters)
    return mean + log_scale.exp() * z


def _mean_and_log_scale(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, raw = parameters.chunk(2, 1)
    return mean, _FARTHEST * torch.tanh(raw / _FARTHEST)
