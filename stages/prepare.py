"""Stage `prepare`: IDX files to the splits train, validation (both from the 60,000) and test (from the 10,000)."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from generative.compute.runtime import make_rng
from generative.config import Config, Seed
from generative.data.fashion_mnist import NUM_CLASSES, TEST_SIZE
from generative.data.splits import Split, save_split, stratified_split
from generative.errors import PipelineError
from stages.common.params import read_params
from stages.common.paths import RAW, TEST, TRAIN, VALIDATION, Pipeline

FEWEST_SCORED = 100  # images that can be scored, and take the place of samples as real ones: ten of each class
SplitSize = Annotated[int, Field(ge=NUM_CLASSES, multiple_of=NUM_CLASSES)]


class PrepareConfig(Config):
    """How the official training images are divided, and how many of the others count (params: `prepare`)."""

    seed: Seed
    train_size: Annotated[SplitSize, Field(ge=FEWEST_SCORED)]
    validation_size: SplitSize
    test_size: Annotated[SplitSize, Field(ge=FEWEST_SCORED, le=TEST_SIZE)]


def main(here: Pipeline) -> None:
    """Write the three splits; every class is equally frequent in each."""
    config = read_params(here).block("prepare", PrepareConfig)
    images, labels = read_idx(RAW, "train")
    sizes = (config.train_size, config.validation_size)
    parts = stratified_split(labels, sizes, make_rng(config.seed))
    for path, indices in zip((TRAIN, VALIDATION), parts, strict=True):
        save_split(path, Split(images[indices], labels[indices]))
    images, labels = read_idx(RAW, "t10k")
    if config.test_size < len(labels):
        (chosen,) = stratified_split(labels, (config.test_size,), make_rng(config.seed))
        images, labels = images[chosen], labels[chosen]
    save_split(TEST, Split(images, labels))


def read_idx(folder: Path, prefix: str) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 1, 28, 28) and labels int64 (N,) of the files `prefix`-... in `folder`.

    Raises:
        PipelineError: a file is missing or is not in the IDX format.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file  # 3 s that check_params need not wait for

    try:
        images: Tensor = read_image_file(str(folder / f"{prefix}-images-idx3-ubyte")).unsqueeze(1)
        labels: Tensor = read_label_file(str(folder / f"{prefix}-labels-idx1-ubyte"))
    except (OSError, AssertionError, RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise PipelineError(
            f"{folder}/{prefix}-*: not the IDX files of Fashion-MNIST ({error}): run `dvc repro -f download`."
        ) from None
    if images.shape[1:] != torch.Size((1, 28, 28)) or len(images) != len(labels):
        raise PipelineError(
            f"{folder}/{prefix}-*: {tuple(images.shape)} images and {len(labels)} labels do not belong together."
        )
    return images, labels
