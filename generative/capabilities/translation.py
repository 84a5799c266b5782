"""Translation: images of one domain to images of another."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from generative.capabilities.capability import Capability, require_images
from generative.data.splits import Split, to_unit


class TranslatesDomains(Capability):
    """Images of one domain to images of another. The first domain is the photographs of the data set."""

    domains: ClassVar[tuple[str, str]]  # what a reader calls them

    @abstractmethod
    def render(self, x: Tensor) -> Tensor:
        """What images `x` of the first domain look like in the second, by definition: the truth to compare with."""

    @abstractmethod
    def translate(self, x: Tensor, source: int) -> Tensor:
        """Images `x` of the domain `source` (0 or 1) in the other domain."""

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        x = to_unit(examples.images)
        require_images("render()", self.render(x), len(x))
        there = self.translate(x, 0)
        require_images("translate()", there, len(x))
        require_images("translate()", self.translate(there, 1), len(x))
