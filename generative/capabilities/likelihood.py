"""Likelihoods: exact, bounded or estimated, and a bound that importance weights tighten."""

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from generative.capabilities.capability import Capability, require_floats
from generative.data.splits import Split, to_unit


class Likelihood(NamedTuple):
    """log p(x) of images, or a bound or an estimate of it.

    nats: float (B,), per image. On intensities it is a density over [0, 1]^784, and for 8-bit images the bits per
        dimension are 8 - nats / (784 ln 2); on binary pixels it is a probability.
    parts: by name, terms (B,) of it that are scored by themselves, in nats per image.
    shared_error: standard error that all images have in common, in nats, as of an estimated partition function.
    """

    nats: Tensor
    parts: dict[str, Tensor]
    shared_error: float = 0.0


class HasLikelihood(Capability):
    """Images to their log-likelihood."""

    likelihood_kind: ClassVar[Literal["exact", "bound", "estimate"]]
    likelihood_of: ClassVar[Literal["intensities", "binary"]] = "intensities"

    @abstractmethod
    def log_likelihood(self, x: Tensor, rng: torch.Generator) -> Likelihood:
        """The log-likelihood of images `x`; a model of binary pixels draws them from intensities with `rng`."""

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        found = self.log_likelihood(to_unit(examples.images), rng)
        for name, nats in {"nats": found.nats, **found.parts}.items():
            require_floats(f"log_likelihood().{name}", nats, (len(examples),))


class WeighsPosteriorSamples(HasLikelihood):
    """A bound that importance weights tighten (Burda, Grosse, Salakhutdinov 2016).

    "Importance Weighted Autoencoders", ICLR.
    """

    likelihood_kind = "bound"

    @abstractmethod
    def log_weights(self, x: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """log p(x, z) - log q(z | x), (B, count), in nats per image, of `count` posterior samples z for each image.

        The mean over them estimates the evidence lower bound; the logarithm of their mean exponential is the
        importance-weighted bound (equation 8), which reaches log p(x) as `count` grows.
        """

    @abstractmethod
    def posterior_means(self, x: Tensor) -> Tensor:
        """Means (B, d) of q(z | x)."""

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        x = to_unit(examples.images)
        require_floats("log_weights()", self.log_weights(x, 2, rng), (len(x), 2))
        require_floats("posterior_means()", self.posterior_means(x), (len(x), None))
