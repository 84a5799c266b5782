"""Bernoulli restricted Boltzmann machine: binary pixels and hidden units, and no gradient that autograd could take.

Trained by persistent contrastive divergence (Tieleman 2008, "Training Restricted Boltzmann Machines using
Approximations to the Likelihood Gradient", ICML). Grey levels are taken as probabilities, and drawn anew each time.
The update is that of a machine whose units are counted from their means (Melchior, Fischer, Wiskott 2016, "How to
Center Deep Boltzmann Machines", JMLR), which is the same model.

The partition function is estimated by annealed importance sampling (Salakhutdinov, Murray 2008, "On the Quantitative
Analysis of Deep Belief Networks", ICML) from a machine of the data's base rates, and the likelihood bounded from below
by annealing in reverse (Burda, Grosse, Salakhutdinov 2015, "Accurate and Conservative Estimates of MRF Log-likelihood
using Reverse Annealing", AISTATS).
"""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.capabilities.diagnosing import Diagnostic, HasDiagnostics, Strip
from generative.capabilities.likelihood import BoundsLikelihood, Likelihood
from generative.capabilities.sampling import DrawsSamples
from generative.compute.portable import matmul
from generative.compute.runtime import average, make_rng
from generative.config import PositiveInt
from generative.data.images import IMAGE_SHAPE, NUM_PIXELS
from generative.data.splits import Split, to_unit
from generative.family import FamilyConfig, GenerativeModel, SamplingConfig, TrainingConfig
from generative.training.gradient import GradientObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {
    "training": {"hidden": 20, "epochs": 1, "batch_size": 40, "learning_rate": 0.1},
    "sampling": {"annealed_steps": 20, "annealing_steps": 50, "annealing_chains": 20},
}

_WEIGHT_SPREAD = 0.01  # of the first weights
_OFFSET_RATE = 0.01  # at which the means follow the units
_RAREST = 1e-5  # base rate of a pixel that is never on
_FILTERS = 10  # along each side of the figure
_SHOWN_STEPS = (0, 1, 10, 100, 1000)  # of Gibbs chains


class Training(TrainingConfig):
    """Settings of the machine and of its training; there are as many persistent chains as images in a batch."""

    hidden: PositiveInt
    gibbs_steps: PositiveInt  # of every chain between two updates

    def describe_schedule(self) -> str:
        return (
            f"{self.epochs} epochs, learning rate {self.learning_rate:g} falling linearly, batches of {self.batch_size}"
        )


class Sampling(SamplingConfig):
    """Settings of what is drawn and how the partition function is estimated."""

    annealed_steps: PositiveInt  # from base rates to a sample
    annealing_steps: PositiveInt  # temperatures of annealed importance sampling
    annealing_chains: PositiveInt

    def limits(self, train_size: int) -> dict[str, int]:
        return {"annealing_chains": train_size}


class Config(FamilyConfig):
    """Settings of a restricted Boltzmann machine."""

    training: Training
    sampling: Sampling
    footnotes: ClassVar[dict[str, str]] = {
        "frechet_distance": "its samples are the probabilities of the pixels, given the hidden units of the last step",
        "log_p_estimate_binary": "of binary pixels, drawn once: not comparable with densities of grey levels",
    }

    def describe(self) -> str:
        training, sampling = self.training, self.sampling
        return (
            f"restricted Boltzmann machine of {training.hidden} hidden units on binary pixels drawn from the grey "
            f"levels, trained by persistent contrastive divergence of {training.gibbs_steps} Gibbs step"
            f"{'' if training.gibbs_steps == 1 else 's'} ({training.describe_schedule()}). Samples are the "
            f"probabilities of the pixels after {sampling.annealed_steps} annealed Gibbs steps; the partition function "
            f"is estimated from {sampling.annealing_chains} chains of {sampling.annealing_steps} temperatures."
        )

    def sources(self) -> list[str]:
        return [
            "Tieleman 2008, persistent contrastive divergence, ICML",
            "Melchior, Fischer, Wiskott 2016, how to center deep Boltzmann machines, JMLR",
            "Salakhutdinov, Murray 2008, quantitative analysis of deep belief networks, ICML",
            "Burda, Grosse, Salakhutdinov 2015, reverse annealing, AISTATS",
        ]


class Model(GenerativeModel, DrawsSamples, BoundsLikelihood, HasDiagnostics):
    """Weights (784, H) and the biases of both layers; energy E(v, h) = -v W h - b v - c h."""

    likelihood_kind = "estimate"
    likelihood_of = "binary"

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.weight = nn.Parameter(_WEIGHT_SPREAD * torch.randn(NUM_PIXELS, config.hidden))
        self.visible_bias = nn.Parameter(torch.zeros(NUM_PIXELS))
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden))

    @torch.no_grad()
    def prepare_sampling(self, sampling: Sampling, train: Split) -> None:
        """Take the base rates of the training images, and estimate the partition function."""
        known = self.sampling
        super().prepare_sampling(sampling, train)
        self.base_bias = base_bias(to_unit(train.images).flatten(1).mean(0))
        effort = {"annealing_steps", "annealing_chains"}
        if known is None or known.model_dump(include=effort) != sampling.model_dump(include=effort):
            rng = make_rng(self.config.seed, train.images.device)
            self.log_z, self.log_z_error = self.estimate_partition_function(
                sampling.annealing_steps, sampling.annealing_chains, rng
            )

    def fitted(self) -> dict[str, Tensor]:
        numbers = torch.tensor([self.log_z, self.log_z_error], dtype=torch.float64)
        return {"base_bias": self.base_bias, "log_z": numbers}

    def restore_sampling(self, sampling: Sampling, fitted: dict[str, Tensor]) -> None:
        super().restore_sampling(sampling, fitted)
        self.base_bias = fitted["base_bias"]
        self.log_z, self.log_z_error = fitted["log_z"].tolist()

    @property
    def nfe(self) -> int:
        return int(self.sampling.annealed_steps)

    def hidden_inputs(self, v: Tensor) -> Tensor:
        """c + v W, (B, H), of pixels `v` (B, 784)."""
        return matmul(v, self.weight) + self.hidden_bias

    def visible_inputs(self, h: Tensor) -> Tensor:
        """b + W h, (B, 784), of hidden units `h` (B, H)."""
        return matmul(h, self.weight.T) + self.visible_bias

    def free_energy(self, v: Tensor) -> Tensor:
        """-log of the sum over h of exp(-E(v, h)), (B,), in nats."""
        return -(v @ self.visible_bias) - F.softplus(self.hidden_inputs(v)).sum(1)

    def gibbs_step(self, v: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """New pixels (B, 784) by way of new hidden units, and the probabilities that they were drawn from."""
        h = draw_bits(torch.sigmoid(self.hidden_inputs(v)), rng)
        probabilities = torch.sigmoid(self.visible_inputs(h))
        return draw_bits(probabilities, rng), probabilities

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        v = self._draw_base(len(labels), rng)
        probabilities = v
        for beta in _temperatures(self.sampling.annealed_steps)[1:]:
            v, probabilities = self._annealed_step(v, self.hidden_inputs(v), beta, rng)
        return probabilities.view(-1, *IMAGE_SHAPE)

    def log_likelihood(self, x: Tensor, rng: torch.Generator) -> Likelihood:
        nats = -self.free_energy(x.flatten(1)).double() - self.log_z
        return Likelihood(nats.float(), {}, shared_error=self.log_z_error)

    def lower_bound(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Burda, Grosse, Salakhutdinov 2015, algorithm 2, with one chain for each image.

        The chain runs from the image to the base rates; its weight is an unbiased estimate of the probability that the
        forward annealing ends at the image.
        """
        v = x.flatten(1)
        log_weights = -self.free_energy(v).double()
        inputs = self.hidden_inputs(v)
        for above, below in pairwise(reversed(_temperatures(self.sampling.annealing_steps))):
            v, _ = self._annealed_step(v, inputs, above, rng)
            inputs = self.hidden_inputs(v)
            log_weights += self._log_ratio(v, inputs, above, below)
        return (log_weights - self._base_log_z()).float()

    def estimate_partition_function(self, steps: int, chains: int, rng: torch.Generator) -> tuple[float, float]:
        """log Z in nats with its standard error: Salakhutdinov, Murray 2008, section 4.1, equations 16 and 18."""
        v = self._draw_base(chains, rng)
        log_weights = torch.zeros(chains, dtype=torch.float64, device=v.device)
        for below, above in pairwise(_temperatures(steps)):
            inputs = self.hidden_inputs(v)
            log_weights += self._log_ratio(v, inputs, below, above)
            v, _ = self._annealed_step(v, inputs, above, rng)
        log_mean = float(torch.logsumexp(log_weights, 0)) - math.log(chains)
        relative = (log_weights - log_mean).exp()
        error = math.sqrt(float(relative.var()) / chains) if chains > 1 else 0.0
        return self._base_log_z() + log_mean, error

    def _draw_base(self, count: int, rng: torch.Generator) -> Tensor:
        return draw_bits(torch.sigmoid(self.base_bias).expand(count, -1), rng)

    def _base_log_z(self) -> float:
        """Of the machine of base rates, whose hidden units see nothing."""
        return self.config.hidden * math.log(2) + float(F.softplus(self.base_bias.double()).sum())

    def _log_ratio(self, v: Tensor, inputs: Tensor, old: float, new: float) -> Tensor:
        """log p*(v) at temperature `new` less that at `old`, (B,): equation 17, with hidden `inputs` of `v`."""
        visible = v @ (self.visible_bias - self.base_bias)
        hidden = (F.softplus(new * inputs) - F.softplus(old * inputs)).sum(1)
        return ((new - old) * visible + hidden).double()

    def _annealed_step(self, v: Tensor, inputs: Tensor, beta: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """One Gibbs step at temperature `beta`, 0 for base rates and 1 for the machine: equations 19 to 21."""
        h = draw_bits(torch.sigmoid(beta * inputs), rng)
        probabilities = torch.sigmoid(torch.lerp(self.base_bias, self.visible_inputs(h), beta))
        return draw_bits(probabilities, rng), probabilities

    def diagnose(self, examples: Split, rng: torch.Generator) -> dict[str, Diagnostic]:
        strongest = self.weight.square().sum(0).argsort(descending=True)[: _FILTERS**2]
        filters = self.weight[:, strongest].T
        shown = (0.5 + filters / (2 * filters.abs().amax(1, keepdim=True))).clamp(0, 1)
        side = max(1, math.isqrt(len(shown)))
        firsts = torch.stack([(examples.labels == label).nonzero()[0, 0] for label in examples.labels.unique()])
        x = to_unit(examples.images[firsts]).flatten(1)
        return {
            "filters": Strip(
                "Weights of the strongest hidden units: dark switches on, light switches off",
                shown[: side * side].view(side, side, *IMAGE_SHAPE),
            ),
            "chains_from_images": Strip(
                "Gibbs chains from test images: probabilities of the pixels",
                self._chains(draw_bits(x, rng), x, rng),
                [],
                [f"{step:,} steps" for step in _SHOWN_STEPS],
            ),
            "chains_from_noise": Strip(
                "Gibbs chains from noise: probabilities of the pixels",
                self._chains(draw_bits(torch.full_like(x, 0.5), rng), torch.full_like(x, 0.5), rng),
                [],
                [f"{step:,} steps" for step in _SHOWN_STEPS],
            ),
        }

    def _chains(self, v: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """Images (N, S, 1, 28, 28) at some steps of chains from `v` (N, 784), drawn from `x`."""
        seen = [x]
        for step in range(1, _SHOWN_STEPS[-1] + 1):
            v, probabilities = self.gibbs_step(v, rng)
            if step in _SHOWN_STEPS:
                seen.append(probabilities)
        return torch.stack(seen, 1).view(len(v), len(seen), *IMAGE_SHAPE)


class Objective(GradientObjective):
    """The sampled gradient of the log-likelihood: statistics of the data less those of persistent chains.

    On several devices each process has its share of the data, and all chains.
    """

    losses = {"free_energy": "free energy, nats per image"}  # noqa: RUF012
    scaleless = ("free_energy",)  # it is known up to a constant: its gap between the splits counts

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
        _, self.optimizer = self.optimise(model, optimizer, "linear")
        device = fabric.device
        self.chains = torch.zeros(config.batch_size, NUM_PIXELS, device=device)
        self.visible_mean = torch.zeros(NUM_PIXELS, device=device)
        self.hidden_mean = torch.full((config.hidden,), 0.5, device=device)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        model: Model = self.raw_model
        v = self._draw_pixels(x.flatten(1), rng)
        if self.steps == 0:
            self._start(v, rng)
        h = torch.sigmoid(model.hidden_inputs(v))
        for _ in range(self.config.gibbs_steps):
            self.chains, _ = model.gibbs_step(self.chains, rng)
        h_chains = torch.sigmoid(model.hidden_inputs(self.chains))

        v_data, h_data = average(v.mean(0), self.fabric), average(h.mean(0), self.fabric)
        self.visible_mean.lerp_(v_data, _OFFSET_RATE)
        self.hidden_mean.lerp_(h_data, _OFFSET_RATE)
        weight = average(self._correlation(v, h), self.fabric) - self._correlation(self.chains, h_chains)
        visible = v_data - self.chains.mean(0) - weight @ self.hidden_mean
        hidden = h_data - h_chains.mean(0) - self.visible_mean @ weight
        model.weight.grad, model.visible_bias.grad, model.hidden_bias.grad = -weight, -visible, -hidden
        self.optimizer.step()
        return {"free_energy": average(model.free_energy(v).mean(), self.fabric)}

    def _correlation(self, v: Tensor, h: Tensor) -> Tensor:
        """Mean products (784, H) of both layers' units, counted from their means."""
        return matmul((v - self.visible_mean).T.contiguous(), h - self.hidden_mean) / len(v)

    def _start(self, v: Tensor, rng: torch.Generator) -> None:
        """Biases that give the pixels the rates of the first batch, and chains that start there."""
        rates = average(v.mean(0), self.fabric).clamp(1 / self.config.batch_size, 1 - 1 / self.config.batch_size)
        self.raw_model.visible_bias.copy_(torch.logit(rates))
        self.visible_mean.copy_(rates)
        self.chains = draw_bits(rates.expand_as(self.chains), rng)

    def _draw_pixels(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Binary pixels of this process's share of a batch; the draws do not depend on how many share it."""
        ranks = self.fabric.world_size
        noise = torch.rand(len(x) * ranks, NUM_PIXELS, generator=rng, device=rng.device)
        return (noise[self.fabric.global_rank :: ranks] < x).float()

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {"free_energy": self.raw_model.free_energy(draw_bits(x.flatten(1), rng)).mean()}

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """What the persistent chains are at: the probabilities of their pixels."""
        model: Model = self.raw_model
        _, probabilities = model.gibbs_step(self.chains[torch.arange(len(labels)) % len(self.chains)], rng)
        return probabilities.view(-1, *IMAGE_SHAPE)

    def state_dict(self) -> dict[str, Any]:
        own = {"chains": self.chains, "visible_mean": self.visible_mean, "hidden_mean": self.hidden_mean}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.chains = state["chains"].to(self.fabric.device)
        self.visible_mean.copy_(state["visible_mean"])
        self.hidden_mean.copy_(state["hidden_mean"])


def draw_bits(probabilities: Tensor, rng: torch.Generator) -> Tensor:
    """0 or 1 of each probability, float."""
    return (torch.rand(probabilities.shape, generator=rng, device=rng.device) < probabilities).float()


def base_bias(rates: Tensor) -> Tensor:
    """Biases (784,) of a machine without weights whose pixels are on as often as `rates` (784,) say."""
    return torch.logit(rates.clamp(_RAREST, 1 - _RAREST))


def _temperatures(steps: int) -> list[float]:
    """0 to 1 in equal steps."""
    return [step / steps for step in range(steps + 1)]
