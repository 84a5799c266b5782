"""Diagnostics: findings of a family's own that are kept and drawn, whatever they are."""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from generative.capabilities.capability import Capability
from generative.data.splits import Split


@dataclass(frozen=True)
class Curves:
    """Lines over one axis: `x` (N,), and by their names `y` (N,) each."""

    title: str
    x_label: str
    y_label: str
    x: Tensor
    y: dict[str, Tensor]
    log_scale: bool = False


@dataclass(frozen=True)
class Strip:
    """Images (R, C, 1, 28, 28) in [0, 1] in rows and columns, with a word for each row and column, or none."""

    title: str
    images: Tensor
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """Numbers (R, C) with a word for each row and column."""

    title: str
    numbers: Tensor
    rows: list[str]
    columns: list[str]


Diagnostic = Curves | Strip | Table


class HasDiagnostics(Capability):
    """Findings of a family's own that are kept and drawn: filters, chains, paths, norms of gradients."""

    @abstractmethod
    def diagnose(self, examples: Split, rng: torch.Generator) -> dict[str, Diagnostic]:
        """What there is to see, by a name of lower-case letters and _ that becomes that of the file.

        Args:
            examples: test images and their labels, sorted by nothing.
            rng: random state on their device.
        """

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        self.diagnose(examples, rng)
