"""Drawing samples: images out of noise."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from generative.capabilities.capability import Capability, require_images
from generative.data.splits import Split


class DrawsSamples(Capability):
    """Images out of noise."""

    conditional: ClassVar[bool] = False  # samples follow the labels they are asked for
    num_classes: int

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels that a conditional model can be asked for."""
        return tuple(range(self.num_classes))

    @property
    def nfe(self) -> int:
        """Network evaluations for one sample, with the present settings of sampling."""
        return 1

    @abstractmethod
    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label.

        Args:
            labels: int64 (B,), of `classes`; an unconditional model reads only their number.
            rng: random state on the labels' device.

        Returns:
            Images (B, 1, 28, 28) in [0, 1].
        """

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        labels = torch.tensor(self.classes, device=examples.labels.device)
        labels = labels[torch.arange(len(examples), device=labels.device) % len(labels)]
        require_images("sample()", self.sample(labels, rng), len(labels))
