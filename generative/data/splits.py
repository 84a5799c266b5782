"""Images in memory: splits, batches, and the one pair of pixel conversions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from generative.data.images import IMAGE_SHAPE, WHITE
from generative.errors import FileDamagedError, PipelineError
from generative.io.tensors import load_tensors, require, save_tensors


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, 1, 28, 28) and their labels int64 (N,), from 0."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """How many classes there are, of a split that has images of all."""
        return int(self.labels.max()) + 1

    def to(self, device: torch.device) -> "Split":
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


def to_unit(images: Tensor) -> Tensor:
    """Grey levels uint8 (...), 0 to 255, as float32 in [0, 1]."""
    return images.float() / WHITE


def to_uint8(x: Tensor) -> Tensor:
    """Intensities (...) in [0, 1] as the nearest grey level, uint8; values outside are clipped.

    Raises:
        PipelineError: an intensity is NaN or infinite; it would pass for black or white.
    """
    if not bool(torch.isfinite(x).all()):
        raise PipelineError("the images that a model made are not finite: train it again, with a lower learning_rate.")
    return (x.float().clamp(0, 1) * WHITE).round().to(torch.uint8)


def stratified_split(
    labels: Tensor, sizes: tuple[int, ...], classes: Sequence[str], rng: torch.Generator
) -> list[Tensor]:
    """Disjoint index sets of the given sizes with every class equally often in each.

    Args:
        labels: int64 (N,), from 0.
        sizes: images in each set, multiples of the number of classes.
        classes: the name of each class.
        rng: chooses the members and their order.

    Returns:
        One int64 tensor (size,) of indices into `labels` for each size.

    Raises:
        PipelineError: a size is no multiple of the number of classes, or a class has too few images.
    """
    if any(size % len(classes) for size in sizes):
        raise PipelineError(f"split sizes {sizes} must be multiples of {len(classes)}: every class counts alike.")
    shares = [size // len(classes) for size in sizes]
    chosen: list[list[Tensor]] = [[] for _ in sizes]
    for label, name in enumerate(classes):
        members = (labels == label).nonzero().squeeze(1)
        if len(members) < sum(shares):
            raise PipelineError(
                f"class {name!r} has {len(members)} images, but splits of the sizes {sizes} need {sum(shares)}."
            )
        members = members[torch.randperm(len(members), generator=rng)]
        for part, indices in zip(chosen, members[: sum(shares)].split(shares), strict=True):
            part.append(indices)
    return [indices[torch.randperm(len(indices), generator=rng)] for indices in map(torch.cat, chosen)]


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """Labels int64 (count,): 0, 1, ..., 0, 1, ... so that classes are equally frequent."""
    return torch.arange(count) % num_classes


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches in one pass over `count` images, without the incomplete last one."""
    return count // batch_size


def batches(
    split: Split, batch_size: int, rng: torch.Generator, *, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over `split` in an order drawn from `rng`, without the incomplete last batch.

    Yields:
        Images (batch_size / world_size, 1, 28, 28) in [0, 1] and labels: the share of process `rank` in each batch.
    """
    order = torch.randperm(len(split), generator=rng, device=rng.device)
    for indices in order[: steps_per_epoch(len(split), batch_size) * batch_size].view(-1, batch_size):
        share = indices[rank::world_size]
        yield to_unit(split.images[share]), split.labels[share]


def save_split(path: Path, split: Split) -> None:
    """Write a split as tensors `images` and `labels`."""
    save_tensors(path, {"images": split.images, "labels": split.labels})


def load_split(path: Path) -> Split:
    """Read a split written by `save_split`.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: the file is malformed, or a label is negative.
    """
    tensors = load_tensors(path)
    images = require(tensors, "images", torch.uint8, (None, *IMAGE_SHAPE), path=path)
    labels = require(tensors, "labels", torch.int64, (len(images),), path=path)
    if len(labels) and int(labels.min()) < 0:
        raise FileDamagedError(f"{path}: labels must not be negative")
    return Split(images, labels)
