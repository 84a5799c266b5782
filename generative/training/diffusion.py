"""What the families of diffusion models share: settings, model, and objective; they differ in what a condition is.

Ho, Jain, Abbeel 2020, "Denoising Diffusion Probabilistic Models", NeurIPS, as Karras et al. 2022 write them
(`generative.networks.denoiser`), guided without a classifier (Ho, Salimans 2022, arXiv:2207.12598) at medium levels of
noise (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
Diffusion Models", NeurIPS). The network that guides knows no condition, is smaller and sees fewer images (Karras et al.
2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", CVPR, section 4, and "Guiding a Diffusion
Model with a Bad Version of Itself", NeurIPS).
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from generative.capabilities.diagnosing import Diagnostic, HasDiagnostics, Strip
from generative.capabilities.sampling import DrawsSamples
from generative.compute.runtime import draw_noise, draw_normal
from generative.config import Fraction, PositiveFloat, PositiveInt
from generative.data.images import IMAGE_SHAPE, WHITE
from generative.data.splits import Split, batches, to_unit
from generative.family import FamilyConfig, GenerativeModel, SamplingConfig, TrainingConfig
from generative.networks.denoiser import (
    Denoiser,
    Step,
    guide,
    loss_weight,
    noise_levels,
    solve,
    to_intensities,
    to_model,
)
from generative.networks.mixture_denoiser import SUBSPACE, MixtureDenoiser
from generative.training.gradient import DescentObjective
from generative.training.muon import Muon

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {
    "epochs": 1,
    "batch_size": 40,
    "learning_rate": 0.002,
    "matrix_rate": 0.02,
    "channels": [8, 16],
    "guide_channels": [8, 8],
    "width": 16,
    "rank": 4,
    "ema_decay": 0.9,
}
SMALL_SAMPLING = {"evaluations": 4}

_PATH = 8  # evaluations of the path that is shown
_SHOWN = 10  # classes at most
_GUIDE_STRIDE = 4  # the guiding network is trained on every which image of a batch

_TwoWidths = Annotated[list[Annotated[int, Field(ge=8, le=4096, multiple_of=8)]], Field(min_length=2, max_length=2)]
Level = Annotated[float, Field(ge=0, le=1000)]  # of noise


class DiffusionTraining(TrainingConfig):
    """Settings of the two networks and of their training."""

    matrix_rate: PositiveFloat  # learning rate of Muon, which has the convolutions; learning_rate is that of the rest
    channels: _TwoWidths  # of the U-Net at 14 x 14 and at 7 x 7
    guide_channels: _TwoWidths  # of the one that guides it
    width: PositiveInt  # of what a condition becomes
    rank: Annotated[int, Field(ge=1, le=SUBSPACE)]  # directions of each Gaussian
    noise_mean: Annotated[float, Field(ge=-10, le=10)]  # of the logarithm of the noise level
    noise_std: Annotated[float, Field(gt=0, le=5)]
    ema_decay: Fraction

    def describe_schedule(self) -> str:
        return (
            f"{self.epochs} epochs of Muon and Adam, learning rates {self.matrix_rate:g} and {self.learning_rate:g} "
            f"falling linearly, batches of {self.batch_size}"
        )


class DiffusionSampling(SamplingConfig):
    """Settings of sampling."""

    guidance: Annotated[float, Field(ge=0, le=100)]  # 1: none; 0: the guiding network alone, at the levels it acts at
    guided_from: Level  # noise levels between which guidance acts
    guided_to: Level
    evaluations: Annotated[int, Field(ge=1, le=1000)]  # of the network for an image; the guiding one's come beside
    noise_excess: Annotated[float, Field(ge=0.5, le=2)]  # by how much noisier than its level an image counts

    @model_validator(mode="after")
    def _levels_are_in_order(self) -> Self:
        if self.guided_from > self.guided_to:
            raise ValueError(f"guided_from must be at most guided_to, {self.guided_to:g}")
        return self


_PREVIEWS = DiffusionSampling(guidance=1.5, guided_from=0.1, guided_to=20.0, evaluations=10, noise_excess=1.0)


class DiffusionConfig(FamilyConfig):
    """Settings of a diffusion model."""

    training: DiffusionTraining
    sampling: DiffusionSampling

    def describe(self) -> str:
        training, sampling = self.training, self.sampling
        return (
            f"U-Net ({training.channels[0]} and {training.channels[1]} channels) that takes noise away from images, "
            f"beside {self.mixture()} that says what is known in closed form, conditioned on {self.condition()} "
            f"({training.describe_schedule()}; averaged weights). Samples take {sampling.evaluations} evaluations of "
            f"the network, with guidance {sampling.guidance:g} by a smaller one ({training.guide_channels[0]} and "
            f"{training.guide_channels[1]} channels) that knows no condition."
        )

    @abstractmethod
    def condition(self) -> str:
        """What samples are asked for by, in words."""

    @abstractmethod
    def mixture(self) -> str:
        """The mixture of Gaussians, in words."""

    def sources(self) -> list[str]:
        return [
            "Ho, Jain, Abbeel 2020, denoising diffusion probabilistic models, NeurIPS",
            "Ho, Salimans 2022, classifier-free diffusion guidance, arXiv:2207.12598",
            "Karras et al. 2022, the design space of diffusion-based generative models, NeurIPS",
            "Lu et al. 2022, DPM-Solver++, arXiv:2211.01095",
            "Karras et al. 2024, guiding a diffusion model with a bad version of itself, NeurIPS",
            "Kynkäänniemi et al. 2024, guidance in a limited interval, NeurIPS",
            "Li et al. 2024, alleviating exposure bias with shifted time steps, ICLR",
            "Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks",
        ]


class Condition(NamedTuple):
    """What images are known to be: vectors (B, D), and logits (B, J) of the Gaussians of the mixture."""

    vector: Tensor
    prior: Tensor


class Guide(NamedTuple):
    """What means are pushed away from, by a weight, at the levels of noise between two."""

    weight: float  # 1: not at all
    first: float
    last: float
    denoise: Callable[[Tensor, Tensor], Tensor]  # means of images, given noisy ones and their levels (B,)

    def acts_at(self, sigma: float) -> bool:
        """Whether it changes what is taken away at a level of noise."""
        return self.weight != 1 and self.first <= sigma <= self.last


class DiffusionModel(GenerativeModel, DrawsSamples, HasDiagnostics):
    """A network that knows a condition, one that does not, and the mixture of Gaussians that both mend.

    A family adds what makes conditions of its labels or texts, and what the Gaussians are of.

    Args:
        config: settings of the training.
        num_classes: of the data.
        gaussians: J.
    """

    conditional = True

    def __init__(self, config: Any, num_classes: int, gaussians: int) -> None:
        super().__init__(config, num_classes)
        self.mixture = MixtureDenoiser(gaussians, config.rank)
        self.denoiser = Denoiser(tuple(config.channels), config.width)
        self.guide = Denoiser(tuple(config.guide_channels), config.width)

    @abstractmethod
    def fit_mixture(self, images: Tensor, train: Split) -> None:
        """Fit the mixture to training images, on the scale of what is denoised (N, 784) and as they are stored."""

    @abstractmethod
    def condition(self, told: Tensor) -> Condition:
        """Conditions of B images, of which `told` (B, ...) tells something."""

    @abstractmethod
    def tell_labels(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """What to tell for an image of each label (B,)."""

    def denoise(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Means of images (B, 1, 28, 28), given them with noise of the levels (B,) and what they are known to be."""
        mean: Tensor = self.denoiser(x, sigma, self.mixture(x, sigma, condition.prior), condition.vector)
        return mean

    def denoise_untold(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The same of the guiding network, which knows nothing of them."""
        mean: Tensor = self.guide(x, sigma, self.mixture(x, sigma, self.mixture.log_weights.expand(len(x), -1)))
        return mean

    def forward(self, grey: Tensor, sigma: Tensor, noise: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Means of images, given them with noise: of the network (B, ...), and of the guiding one for every fourth.

        Noise is added here, since what comes from outside may have been rounded to fewer bits.

        Args:
            grey: the images as grey levels, uint8 (B, 1, 28, 28).
            sigma: levels of noise (B,).
            noise: standard normal, of the images' shape.
            told: of each image.
        """
        sigma = sigma.float()
        x = to_model(to_unit(grey)) + sigma[:, None, None, None] * noise.float()
        few = slice(None, None, _GUIDE_STRIDE)
        return self.denoise(x, sigma, self.condition(told)), self.denoise_untold(x[few], sigma[few])

    def guides(self, told: Tensor, sampling: DiffusionSampling) -> list[Guide]:
        """All that means are to be pushed away from."""
        return [Guide(sampling.guidance, sampling.guided_from, sampling.guided_to, self.denoise_untold)]

    @property
    def nfe(self) -> int:
        evaluations: int = self.sampling.evaluations
        return evaluations

    def steps(self, told: Tensor, sampling: DiffusionSampling, rng: torch.Generator) -> Iterator[Step]:
        """The steps from noise to images (B, ...); the last mean is the images, as the denoiser sees them."""
        condition, guides = self.condition(told), self.guides(told, sampling)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            seen = torch.full((len(x),), sigma * sampling.noise_excess, device=x.device)
            mean = self.denoise(x, seen, condition)
            guided = [guide(mean, each.denoise(x, seen), each.weight) for each in guides if each.acts_at(sigma)]
            return torch.stack(guided).sum(0) - (len(guided) - 1) * mean if guided else mean

        levels = noise_levels(sampling.evaluations)
        return solve(denoise, levels[0] * draw_normal((len(told), *IMAGE_SHAPE), rng), levels)

    def draw_images(self, told: Tensor, sampling: DiffusionSampling, rng: torch.Generator) -> Tensor:
        """One image (B, 1, 28, 28) in [0, 1] for each row of what is told."""
        *_, last = self.steps(told, sampling, rng)
        return to_intensities(last.mean)

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return self.draw_images(self.tell_labels(labels, rng), self.sampling, rng)

    def diagnose(self, examples: Split, rng: torch.Generator) -> dict[str, Diagnostic]:
        """The path from noise to one image of each class: what the sampler holds, and what the network takes it for."""
        labels = torch.tensor(self.classes[:_SHOWN], device=examples.labels.device)
        told = self.tell_labels(labels, rng)
        path = list(self.steps(told, self.sampling.model_copy(update={"evaluations": _PATH}), rng))
        rows = [f"σ = {step.sigma:.2g}" for step in path]
        held = torch.stack([to_intensities(step.x * (1 + step.sigma**2) ** -0.5) for step in path])
        means = torch.stack([to_intensities(step.mean) for step in path])
        return {
            "noisy_path": Strip("what the sampler holds, from noise to image, scaled to be seen", held, rows),
            "denoised_path": Strip("what the network takes it for at each level of noise", means, rows),
        }


class DiffusionObjective(DescentObjective):
    """Squared errors of the denoised image of both networks, weighted by the level of noise; averaged weights."""

    losses = {  # noqa: RUF012
        "loss": "all that is minimised",
        "loss_denoising": "squared error of the denoised image, weighted",
        "loss_guide": "the same of the guiding network",
    }

    def __init__(self, model: Any, config: Any, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        matrices = [layer.weight for part in (model.denoiser, model.guide) for layer in part.network.inner()]
        theirs = set(map(id, matrices))
        others = [weight for weight in model.parameters() if id(weight) not in theirs]
        rates = {"matrix_rate": config.matrix_rate, "learning_rate": config.learning_rate}
        self.network, self.optimizer = self.optimise(model, Muon(matrices, others, **rates), "linear")
        self.average = self.keep_average(model, config.ema_decay)

    def batches(  # type: ignore[override]  # of this objective: the first call fits the mixture
        self, train: Split, batch_size: int, rng: torch.Generator, *, rank: int, world_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        chosen = self.choose(train, rng)
        if self.steps == 0:
            self.raw_model.fit_mixture(to_model(to_unit(chosen.images)).flatten(1), chosen)
        return batches(chosen, batch_size, rng, rank=rank, world_size=world_size)

    def choose(self, train: Split, rng: torch.Generator) -> Split:
        """The images of an epoch, as many as there are."""
        return train

    @abstractmethod
    def tell(self, x: Tensor, y: Tensor, chances: Tensor) -> Tensor:
        """What is told (B, ...) of images (B, 1, 28, 28) in [0, 1] of labels (B,), by random numbers (B,) in [0, 1)."""

    def further_losses(self, model: Any, told: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What else is to be minimised, by name, of what `model` was told (B, ...) of the images."""
        return {}

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        share = slice(self.fabric.global_rank, None, self.fabric.world_size)
        chances = torch.rand(2, len(x) * self.fabric.world_size, generator=rng, device=rng.device)
        noise = draw_noise(x.shape, rng, self.fabric)
        told, sigma = self.tell(x, y, chances[0, share]), self._noise_levels(chances[1])[share]
        return self._errors(self.network, self.raw_model, (x, y), told, sigma, noise)

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        chances = torch.rand(2, len(x), generator=rng, device=rng.device)
        averaged: Any = self.average.network
        told, sigma = self.tell(x, y, chances[0]), self._noise_levels(chances[1])
        return self._errors(averaged, averaged, (x, y), told, sigma, draw_normal(x.shape, rng))

    def _errors(
        self, network: Any, model: Any, images: tuple[Tensor, Tensor], told: Tensor, sigma: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        x, y = images
        means, guiding = network(to_grey(x), sigma, noise, told)
        clean, few = to_model(x), slice(None, None, _GUIDE_STRIDE)
        parts = {
            "loss_denoising": denoising_error(means, clean, sigma),
            "loss_guide": denoising_error(guiding, clean[few], sigma[few]),
            **self.further_losses(model, told, x, y),
        }
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def _noise_levels(self, chances: Tensor) -> Tensor:
        """Log-normal noise levels (N,), one in each of N equally likely parts of their distribution."""
        quantiles = (torch.arange(len(chances), device=chances.device) + chances) / len(chances)
        normal = torch.special.ndtri(quantiles.clamp(1e-6, 1 - 1e-6))
        return torch.exp(self.config.noise_mean + self.config.noise_std * normal)

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        averaged: Any = self.average.network
        images: Tensor = averaged.draw_images(averaged.tell_labels(labels, rng), _PREVIEWS, rng)
        return images

    def finish(self, train: Split) -> None:
        self.raw_model.load_state_dict(self.average.network.state_dict())


def denoising_error(means: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """The mean over images (B, 1, 28, 28) of the squared error of their means, weighted by the levels of noise (B,)."""
    return (loss_weight(sigma) * (means.float() - clean).square().mean((1, 2, 3))).mean()


def to_grey(x: Tensor) -> Tensor:
    """Intensities in [0, 1] of grey levels as these, uint8: `to_uint8` for what is known to be finite."""
    return (x * WHITE).round().to(torch.uint8)
