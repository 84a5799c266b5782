"""Stage `prepare`: IDX files to the splits train and validation, both from the official training images, and test."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from generative.compute.runtime import make_rng
from generative.data.images import IMAGE_SHAPE
from generative.data.splits import Split, save_split, stratified_split
from generative.errors import PipelineError
from stages.common.dataset import PrepareConfig, read_dataset
from stages.common.params import read_params
from stages.common.paths import RAW, TEST, TRAIN, VALIDATION, Pipeline


def main(here: Pipeline) -> None:
    """Write the three splits; every class is equally frequent in each."""
    params = read_params(here)
    config, classes = params.block("prepare", PrepareConfig), read_dataset(params).classes
    images, labels = read_idx(RAW, "train", classes)
    keys = ("prepare.train_size", "prepare.validation_size")
    sizes = (config.train_size, config.validation_size)
    parts = _choose(labels, sizes, classes, make_rng(config.seed), keys)
    for path, indices in zip((TRAIN, VALIDATION), parts, strict=True):
        save_split(path, Split(images[indices], labels[indices]))
    images, labels = read_idx(RAW, "t10k", classes)
    counts = torch.bincount(labels, minlength=len(classes))
    if not bool((counts * len(classes) == config.test_size).all()):  # else all of them, in their order
        (chosen,) = _choose(labels, (config.test_size,), classes, make_rng(config.seed), ("prepare.test_size",))
        images, labels = images[chosen], labels[chosen]
    save_split(TEST, Split(images, labels))


def _choose(
    labels: Tensor, sizes: tuple[int, ...], classes: Sequence[str], rng: torch.Generator, keys: Sequence[str]
) -> list[Tensor]:
    try:
        return stratified_split(labels, sizes, classes, rng)
    except PipelineError as error:
        raise PipelineError(f"{error} Lower {' or '.join(map(repr, keys))}.") from None


def read_idx(folder: Path, prefix: str, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 1, 28, 28) and labels int64 (N,) of the files `prefix`-... in `folder`.

    Raises:
        PipelineError: a file is missing or is not in the IDX format, or its labels are not those of `classes`.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file  # 3 s that check_params need not wait for

    try:
        images: Tensor = read_image_file(str(folder / f"{prefix}-images-idx3-ubyte")).unsqueeze(1)
        labels: Tensor = read_label_file(str(folder / f"{prefix}-labels-idx1-ubyte"))
    except (OSError, AssertionError, RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise PipelineError(
            f"{folder}/{prefix}-*: not in the IDX format ({error}): run `dvc repro -f download`."
        ) from None
    if images.shape[1:] != torch.Size(IMAGE_SHAPE) or len(images) != len(labels):
        raise PipelineError(
            f"{folder}/{prefix}-*: {tuple(images.shape)} images and {len(labels)} labels do not belong together: "
            "images must be grey, of 28 x 28 pixels, one for each label."
        )
    found = sorted(set(labels.tolist()))
    if found != list(range(len(classes))):
        raise PipelineError(
            f"{folder}/{prefix}-labels-idx1-ubyte has {len(found)} different labels, {found[0]} to {found[-1]}, "
            f"but 'data.classes' names {len(classes)} classes, from 0 to {len(classes) - 1}."
        )
    return images, labels
