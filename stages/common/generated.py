"""What `generate` wrote of one model, checked and typed: the one reader of data/generated/MODEL.safetensors."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from generative.data.fashion_mnist import IMAGE_SHAPE, NUM_CLASSES, UNLABELLED
from generative.errors import FileDamagedError
from generative.io.tensors import load_metadata, load_tensors, require
from stages.common.paths import generated


class Encodings(NamedTuple):
    """What an encoder and its decoder make of the test split (N images); shapes as in stages/generate.py."""

    latents: Tensor
    reconstructions: Tensor
    interpolations: Tensor
    interpolation_ends: Tensor
    animation: Tensor
    paths: Tensor
    path_ends: Tensor
    within: list[str]  # classes that the first interpolations stay in
    between: list[tuple[str, str]]  # classes that the others join


class Grid(NamedTuple):
    """Decoded points of a latent space of two dimensions, and their coordinates."""

    images: Tensor
    axis: Tensor


class Bounds(NamedTuple):
    """Terms of the evidence lower bound of every test image, and importance weights of some."""

    loss_recon: Tensor
    loss_kl: Tensor
    posterior_means: Tensor
    log_weights: Tensor


class Generated(NamedTuple):
    """Samples of one model, and what else its family offers."""

    samples: Tensor
    labels: Tensor
    encodings: Encodings | None
    grid: Grid | None
    bounds: Bounds | None

    @property
    def followed_labels(self) -> Tensor | None:
        """The labels that the samples were asked to follow; None if the model is unconditional."""
        return None if bool((self.labels == UNLABELLED).any()) else self.labels


def load_generated(name: str, test_size: int) -> Generated:
    """What the model `name` made; `test_size` images are in the test split.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: a tensor is missing, or has another type, shape or range than it must have.
    """
    path = generated(name)
    tensors = load_tensors(path)

    def get(key: str, dtype: torch.dtype, *shape: int | None) -> Tensor:
        tensor = require(tensors, key, dtype, shape, path=path)
        if dtype == torch.float32 and not bool(torch.isfinite(tensor).all()):
            raise FileDamagedError(f"{path}: '{key}' is not finite")
        return tensor

    def get_indices(key: str, below: int, *shape: int | None) -> Tensor:
        indices = get(key, torch.int64, *shape)
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < below):
            raise FileDamagedError(f"{path}: '{key}' must be 0 to {below - 1}")
        return indices

    samples = get("samples", torch.uint8, None, *IMAGE_SHAPE)
    labels = get("labels", torch.int64, len(samples))
    if not bool((labels == UNLABELLED).all()):
        labels = get_indices("labels", NUM_CLASSES, len(samples))
        if len(set(torch.bincount(labels, minlength=NUM_CLASSES).tolist())) > 1:
            raise FileDamagedError(f"{path}: 'labels' must have equally many of each class")
    encodings = grid = bounds = None
    if "latents" in tensors:
        paths = get("paths", torch.uint8, None, None, *IMAGE_SHAPE)
        interpolations = get("interpolations", torch.uint8, None, None, *IMAGE_SHAPE)
        encodings = Encodings(
            get("latents", torch.float32, test_size, None),
            get("reconstructions", torch.uint8, test_size, *IMAGE_SHAPE),
            interpolations,
            get_indices("interpolation_ends", test_size, len(interpolations), 2),
            get("animation", torch.uint8, None, *IMAGE_SHAPE),
            paths,
            get_indices("path_ends", test_size, len(paths), 2),
            *_classes(path, len(interpolations)),
        )
    if "grid" in tensors:
        axis = get("grid_axis", torch.float32, None, 2)
        grid = Grid(get("grid", torch.uint8, len(axis) ** 2, *IMAGE_SHAPE), axis)
    if "loss_recon" in tensors:
        bounds = Bounds(
            get("loss_recon", torch.float32, test_size),
            get("loss_kl", torch.float32, test_size),
            get("posterior_means", torch.float32, test_size, None),
            get("log_weights", torch.float32, None, None),
        )
    return Generated(samples, labels, encodings, grid, bounds)


def _classes(path: Path, count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Which classes the `count` interpolations of a file stay in, and which they join."""
    try:
        metadata = load_metadata(path)
        within, between = list(metadata["within"]), [(first, last) for first, last in metadata["between"]]
    except (KeyError, TypeError, ValueError):
        within, between = [], []
    if not between or len(within) + len(between) != count:
        raise FileDamagedError(f"{path} does not say which classes its interpolations join")
    return within, between
