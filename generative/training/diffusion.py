"""What the families of diffusion models share: settings, model, and objective; they differ in what a condition is.

Ho, Jain, Abbeel 2020, "Denoising Diffusion Probabilistic Models", NeurIPS, as Karras et al. 2022 write them
(`generative.networks.denoiser`), guided without a classifier (Ho, Salimans 2022, arXiv:2207.12598) at medium levels of
noise (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
Diffusion Models", NeurIPS).
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from generative.capabilities.diagnosing import Diagnostic, HasDiagnostics, Strip
from generative.capabilities.sampling import DrawsSamples
from generative.compute.runtime import draw_noise, draw_normal
from generative.config import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from generative.data.images import IMAGE_SHAPE
from generative.data.splits import Split, batches, to_unit
from generative.family import FamilyConfig, GenerativeModel, SamplingConfig, TrainingConfig
from generative.networks.denoiser import (
    LARGEST,
    Condition,
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
    "width": 16,
    "components": 2,
    "rank": 4,
    "ema_decay": 0.9,
}
SMALL_SAMPLING = {"evaluations": 4}

_PATH = 8  # evaluations of the path that is shown
_SHOWN = 10  # classes at most

_TwoWidths = Annotated[list[Annotated[int, Field(ge=8, le=4096, multiple_of=8)]], Field(min_length=2, max_length=2)]


class DiffusionTraining(TrainingConfig):
    """Settings of the denoiser and of its training."""

    matrix_rate: PositiveFloat  # learning rate of Muon, which has the convolutions; learning_rate is that of the rest
    channels: _TwoWidths  # of the U-Net at 14 x 14 and at 7 x 7
    width: PositiveInt  # of what a condition becomes
    components: PositiveInt  # Gaussians of each class
    rank: Annotated[int, Field(ge=1, le=SUBSPACE)]  # directions of each
    unconditional: Fraction  # share of the images whose condition is not told
    noise_mean: Annotated[float, Field(ge=-10, le=10)]  # of the logarithm of the noise level
    noise_std: PositiveFloat
    ema_decay: Fraction

    def describe_schedule(self) -> str:
        return (
            f"{self.epochs} epochs of Muon and Adam, learning rates {self.matrix_rate:g} and {self.learning_rate:g} "
            f"falling linearly, batches of {self.batch_size}"
        )


class DiffusionSampling(SamplingConfig):
    """Settings of sampling."""

    guidance: NonNegativeFloat  # 1: none; 0: as if no condition were told, at the levels where it acts
    guided_from: NonNegativeFloat  # noise levels between which guidance acts
    guided_to: PositiveFloat
    evaluations: Annotated[int, Field(ge=1, le=1000)]  # of the network for an image at most; a guided step takes two
    noise_excess: Annotated[float, Field(ge=0.5, le=2)]  # by how much noisier than its level an image counts


_PREVIEWS = DiffusionSampling(guidance=1.5, guided_from=0.1, guided_to=20.0, evaluations=16, noise_excess=1.0)


class DiffusionConfig(FamilyConfig):
    """Settings of a diffusion model."""

    training: DiffusionTraining
    sampling: DiffusionSampling

    def describe(self) -> str:
        training, sampling = self.training, self.sampling
        return (
            f"U-Net ({training.channels[0]} and {training.channels[1]} channels) that takes noise away from images, "
            f"beside a mixture of {training.components} Gaussians per class that says what is known in closed form, "
            f"conditioned on {self.condition()} ({training.describe_schedule()}; averaged weights). Samples take "
            f"{sampling.evaluations} evaluations of the network, with guidance {sampling.guidance:g}."
        )

    @abstractmethod
    def condition(self) -> str:
        """What samples are asked for by, in words."""

    def sources(self) -> list[str]:
        return [
            "Ho, Jain, Abbeel 2020, denoising diffusion probabilistic models, NeurIPS",
            "Ho, Salimans 2022, classifier-free diffusion guidance, arXiv:2207.12598",
            "Karras et al. 2022, the design space of diffusion-based generative models, NeurIPS",
            "Lu et al. 2022, DPM-Solver++, arXiv:2211.01095",
            "Kynkäänniemi et al. 2024, guidance in a limited interval, NeurIPS",
            "Ning et al. 2024, the exposure bias in diffusion models, ICLR",
            "Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks",
        ]


class DiffusionModel(GenerativeModel, DrawsSamples, HasDiagnostics):
    """The denoiser; a family adds what makes conditions of its labels or texts."""

    conditional = True

    def __init__(self, config: Any, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.denoiser = Denoiser(
            tuple(config.channels), config.width, MixtureDenoiser(num_classes, config.components, config.rank)
        )

    @abstractmethod
    def condition(self, told: Tensor) -> Condition:
        """Conditions of B images, of which `told` (B, ...) tells something."""

    @abstractmethod
    def untold(self, count: int, device: torch.device) -> Tensor:
        """What tells nothing, `count` times."""

    @abstractmethod
    def tell_labels(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """What to tell for an image of each label (B,)."""

    def forward(self, x: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
        """Means of images (B, 1, 28, 28), given them with noise of the levels (B,) and what is told of them."""
        mean: Tensor = self.denoiser(x, sigma, self.condition(told))
        return mean

    def levels(self, sampling: DiffusionSampling) -> list[float]:
        """The noise levels of as many steps as the evaluations allow, and 0."""
        for steps in range(sampling.evaluations, 1, -1):
            levels = noise_levels(steps)
            if steps + sum(is_guided(sigma, sampling) for sigma in levels[:-1]) <= sampling.evaluations:
                return levels
        return noise_levels(1)

    @property
    def nfe(self) -> int:
        levels = self.levels(self.sampling)[:-1]
        return len(levels) + sum(is_guided(sigma, self.sampling) for sigma in levels)

    def steps(self, told: Tensor, sampling: DiffusionSampling, rng: torch.Generator) -> Iterator[Step]:
        """The steps from noise to images (B, ...); the last mean is the images, as the denoiser sees them."""
        count = len(told)
        both = self.condition(torch.cat([told, self.untold(count, told.device)]))
        condition = Condition(*(part[:count] for part in both))

        def denoise(x: Tensor, sigma: float) -> Tensor:
            seen = torch.full((2 * count,), sigma * sampling.noise_excess, device=x.device)
            if not is_guided(sigma, sampling):
                mean: Tensor = self.denoiser(x, seen[:count], condition)
                return mean
            told, untold = self.denoiser(x.repeat(2, 1, 1, 1), seen, both).chunk(2)
            return guide(told, untold, sampling.guidance)

        levels = self.levels(sampling)
        return solve(denoise, levels[0] * draw_normal((count, *IMAGE_SHAPE), rng), levels)

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


def is_guided(sigma: float, sampling: DiffusionSampling) -> bool:
    """Whether guidance changes what is taken away at a level of noise."""
    return sampling.guidance != 1 and sampling.guided_from <= sigma <= sampling.guided_to and sigma < LARGEST


class DiffusionObjective(DescentObjective):
    """Squared error of the denoised image, weighted by the level of noise; weights that are kept are an average."""

    losses = {"loss": "squared error of the denoised image, weighted"}  # noqa: RUF012

    def __init__(self, model: Any, config: Any, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        matrices = [layer.weight for layer in model.denoiser.network.inner()]
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
            flat = to_model(to_unit(chosen.images)).flatten(1)
            self.raw_model.denoiser.mixture.fit(flat, chosen.labels, self.config.seed)
        return batches(chosen, batch_size, rng, rank=rank, world_size=world_size)

    def choose(self, train: Split, rng: torch.Generator) -> Split:
        """The images of an epoch, as many as there are."""
        return train

    @abstractmethod
    def tell(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """What is told (B, ...) of images (B, 1, 28, 28) in [0, 1] of labels (B,), a process's share of a batch."""

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        ranks = self.fabric.world_size
        share = slice(self.fabric.global_rank, None, ranks)
        chances = torch.rand(2, len(x) * ranks, generator=rng, device=rng.device)
        told = self.tell(x, y, rng)
        silent = (chances[0, share] < self.config.unconditional).view(-1, *[1] * (told.dim() - 1))
        told = torch.where(silent, self.raw_model.untold(len(x), told.device), told)
        noise = draw_noise(x.shape, rng, self.fabric)
        return {"loss": denoising_error(self.network, x, told, self._noise_levels(chances[1])[share], noise)}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        sigma = self._noise_levels(torch.rand(len(x), generator=rng, device=rng.device))
        noise = draw_normal(x.shape, rng)
        return {"loss": denoising_error(self.average.network, x, self.tell(x, y, rng), sigma, noise)}

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


def denoising_error(network: Any, x: Tensor, told: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The mean over images (B, 1, 28, 28) in [0, 1] of the squared error of the denoised ones, weighted by the level.

    Args:
        network: gives means of images, given noisy ones, levels (B,) and what is told.
        x: the images.
        told: of each.
        sigma: noise levels (B,).
        noise: standard normal, of the images' shape.
    """
    clean = to_model(x)
    means = network(clean + sigma[:, None, None, None] * noise, sigma, told).float()
    return (loss_weight(sigma) * (means - clean).square().mean((1, 2, 3))).mean()
