"""Likelihoods: exact, bounded or estimated, and a bound that importance weights tighten."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from generative.capabilities.capability import Capability, require_floats
from generative.data.images import WHITE
from generative.data.splits import Split, to_unit


class Likelihood(NamedTuple):
    """log p(x) of images, or a bound or an estimate of it.

    nats: float (B,), per image. On intensities it is a density over [0, 1]^784; of dequantised 8-bit images the bits
        per dimension are 8 - nats / (784 ln 2). On binary pixels it is a probability.
    parts: by name, terms (B,) of it that are scored by themselves, in nats per image.
    shared_error: standard error that all images have in common, in nats, as of an estimated partition function.
    """

    nats: Tensor
    parts: dict[str, Tensor]
    shared_error: float = 0.0


class HasLikelihood(Capability):
    """Images to their log-likelihood."""

    likelihood_kind: ClassVar[Literal["exact", "bound", "estimate"]]
    likelihood_of: ClassVar[Literal["intensities", "dequantised", "binary"]] = "intensities"

    @abstractmethod
    def log_likelihood(self, x: Tensor, rng: torch.Generator) -> Likelihood:
        """The log-likelihood of images `x` (B, 1, 28, 28), which `as_modelled` has made of grey levels."""

    def as_modelled(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """What the likelihood is of, made of grey levels uint8: see `MODELLED`."""
        return MODELLED[self.likelihood_of](images, rng)

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        found = self.log_likelihood(self.as_modelled(examples.images, rng), rng)
        for name, nats in {"nats": found.nats, **found.parts}.items():
            require_floats(f"log_likelihood().{name}", nats, (len(examples),))


class BoundsLikelihood(HasLikelihood):
    """A bound from below, beside an estimate that may be too high."""

    @abstractmethod
    def lower_bound(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """A random number (B,) for each image, in nats, whose mean is at most the log-likelihood."""

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        super().try_out(examples, rng)
        x = self.as_modelled(examples.images, rng)
        require_floats("lower_bound()", self.lower_bound(x, rng), (len(x),))


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


def dequantise(images: Tensor, rng: torch.Generator) -> Tensor:
    """Grey levels uint8 with uniform noise, as intensities in [0, 1]: a density of these has bits per dimension.

    Theis, van den Oord, Bethge 2016, "A note on the evaluation of generative models", ICLR, section 3.1.
    """
    return (images + torch.rand(images.shape, generator=rng, device=rng.device)) / (WHITE + 1)


def binarise(images: Tensor, rng: torch.Generator) -> Tensor:
    """Binary pixels, 0.0 or 1.0, drawn with grey levels uint8 as probabilities.

    Salakhutdinov, Murray 2008, "On the Quantitative Analysis of Deep Belief Networks", ICML, section 6.
    """
    return (torch.rand(images.shape, generator=rng, device=rng.device) < to_unit(images)).float()


MODELLED: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "intensities": lambda images, _: to_unit(images),
    "dequantised": dequantise,
    "binary": binarise,
}
