"""What a generative model can do: small classes that a family's Model inherits, one for each kind of ability.

`generate`, `evaluate` and `publish` go through tables from what a model can do to what is made, scored and drawn. A
model has any number of abilities; one that draws no samples is as good as any other. Each ability has a file of its
own here, so that a change of one concerns the families that have it.

Images are float (B, 1, 28, 28) in [0, 1] and lie on the device of the model. Every method works in eval mode, without
gradients, after `GenerativeModel.prepare_sampling`.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from generative.data.images import IMAGE_SHAPE
from generative.data.splits import Split
from generative.errors import PipelineError

_ROUNDING = 1e-3  # by which an intensity may lie outside [0, 1]


class Capability(ABC):
    """Base of all: what a rehearsal before the training does with it."""

    @abstractmethod
    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        """Call every method of this capability, and of no other, once, with the few `examples`, and check the answers.

        Raises:
            PipelineError: a method returns something else than it promises.
        """


def try_all(model: object, examples: Split, rng: torch.Generator) -> None:
    """Try out every capability of `model`, with few `examples`.

    Raises:
        PipelineError: a method returns something else than it promises.
    """
    for base in type(model).__mro__:
        if issubclass(base, Capability) and "try_out" in vars(base):
            base.try_out(model, examples, rng)  # type: ignore[arg-type]


def require_images(method: str, x: Any, count: int) -> None:
    """Make sure that `method` returned `count` images.

    Raises:
        PipelineError: it did not.
    """
    require_floats(method, x, (count, *IMAGE_SHAPE))
    if bool((x < -_ROUNDING).any()) or bool((x > 1 + _ROUNDING).any()):
        raise PipelineError(
            f"{method} gives intensities from {float(x.min()):.3g} to {float(x.max()):.3g}, not in [0, 1]."
        )


def require_floats(method: str, x: Any, shape: tuple[int | None, ...]) -> None:
    """Make sure that `method` returned floats of `shape`; None allows any size.

    Raises:
        PipelineError: it did not, or they are not finite.
    """
    if not isinstance(x, Tensor):
        raise PipelineError(f"{method} gives a {type(x).__name__}, but must give a tensor.")
    sizes = zip(x.shape, shape, strict=False)
    if x.dim() != len(shape) or any(wanted not in (None, size) for size, wanted in sizes) or not x.is_floating_point():
        wanted_shape = ", ".join("any" if size is None else str(size) for size in shape)
        raise PipelineError(f"{method} gives {x.dtype} {tuple(x.shape)}, but must give floats ({wanted_shape}).")
    if not bool(torch.isfinite(x).all()):
        raise PipelineError(f"{method} gives numbers that are not finite.")
