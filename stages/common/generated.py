"""What `generate` wrote of one model, checked and typed: the one reader of data/generated/MODEL.safetensors."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from generative.capabilities.diagnosing import Diagnostic
from generative.data.images import IMAGE_SHAPE, UNLABELLED
from generative.data.splits import Split
from generative.errors import FileDamagedError
from generative.io.tensors import load_metadata, load_tensors, require
from stages.common.diagnostics import unpack

PLANE_SIDE = 200  # decoded points along each axis of a latent plane, among which each test image finds its nearest


class Samples(NamedTuple):
    """Samples of one model, and what one costs."""

    images: Tensor
    labels: Tensor
    nfe: int  # network evaluations
    multiply_adds: float
    sweeps: dict[str, dict[float, Tensor]]  # samples by setting and value, of the first labels

    @property
    def followed_labels(self) -> Tensor | None:
        """The labels that the samples were asked to follow; None if the model is unconditional."""
        return None if bool((self.labels == UNLABELLED).any()) else self.labels


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
    decoder_rank: int  # dimensions that decoded images have around one


class Grid(NamedTuple):
    """Decoded points of a latent space of two dimensions, their coordinates, and what test images find on the plane."""

    images: Tensor
    axis: Tensor
    nearest: Tensor  # of many images decoded over the plane the nearest to each test image


class LikelihoodOf(NamedTuple):
    """The log-likelihood of every test image, in nats."""

    nats: Tensor
    parts: dict[str, Tensor]
    kind: str  # exact, bound or estimate
    of: str  # intensities, dequantised or binary
    shared_error: float
    dequantised: Tensor | None  # of one that models intensities: that of dequantised images
    lower_bound: Tensor | None  # of the first images


class Posterior(NamedTuple):
    """Means of the posterior of every test image, and importance weights of some."""

    means: Tensor
    log_weights: Tensor


class Translations(NamedTuple):
    """The test split in the second domain, translations from each domain to the other, and there and back."""

    rendered: Tensor
    class_means: tuple[Tensor, Tensor]  # the mean training image of each class, in each domain
    there: tuple[Tensor, Tensor]
    back: tuple[Tensor, Tensor]
    domains: tuple[str, str]


class Denoiser(NamedTuple):
    """In how many of all directions noise can be moved by its level, sigma, without a trace in the denoised image."""

    sigma: float
    lost_directions: int
    directions: int


class Prompted(NamedTuple):
    """Images of prompts, the classes that were asked for, whether all else is right, and the group of each prompt."""

    images: Tensor
    labels: Tensor
    matches: Tensor
    caption_matches: Tensor  # of the test images
    texts: list[str]
    groups: list[str]


class Generated(NamedTuple):
    """All that one model made; None for what it cannot do."""

    samples: Samples | None
    encodings: Encodings | None
    grid: Grid | None
    likelihood: LikelihoodOf | None
    posterior: Posterior | None
    translations: Translations | None
    prompted: Prompted | None
    denoiser: Denoiser | None
    diagnostics: dict[str, Diagnostic]
    losses: dict[str, str]  # what the training minimised, with the words for an axis
    stored_numbers: int  # of the model
    images_seen: int  # in its training, each as often as it was seen


def load_generated(path: Path, test: Split) -> Generated:
    """What a model made, some of it of the `test` split.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: a tensor is missing, or has another type, shape or range than it must have.
    """
    file, test_size = _File(path), len(test)
    every_image = (test_size, *IMAGE_SHAPE)
    encodings = grid = likelihood = posterior = translations = None
    if "latents" in file.tensors:
        paths = file.get("paths", torch.uint8, None, None, *IMAGE_SHAPE)
        interpolations = file.get("interpolations", torch.uint8, None, None, *IMAGE_SHAPE)
        encodings = Encodings(
            file.get("latents", torch.float32, test_size, None),
            file.get("reconstructions", torch.uint8, *every_image),
            interpolations,
            file.get_indices("interpolation_ends", test_size, len(interpolations), 2),
            file.get("animation", torch.uint8, None, *IMAGE_SHAPE),
            paths,
            file.get_indices("path_ends", test_size, len(paths), 2),
            *_classes(file, len(interpolations)),
            file.word("decoder_rank", int),
        )
    if "grid" in file.tensors:
        axis = file.get("grid_axis", torch.float32, None, 2)
        grid = Grid(
            file.get("grid", torch.uint8, len(axis) ** 2, *IMAGE_SHAPE),
            axis,
            file.get("plane_nearest", torch.uint8, *every_image),
        )
    if "log_likelihood" in file.tensors:
        nats = file.get("log_likelihood", torch.float32, test_size)
        names = [key.removeprefix("likelihood.") for key in file.tensors if key.startswith("likelihood.")]
        parts = {key: file.get(f"likelihood.{key}", torch.float32, test_size) for key in names}
        words = file.word("likelihood", dict)
        noisy, below = (
            file.get(key, torch.float32, size) if key in file.tensors else None
            for key, size in (("dequantised_likelihood", test_size), ("lower_bound", None))
        )
        error = float(words["shared_error"])
        likelihood = LikelihoodOf(nats, parts, words["kind"], words["of"], error, noisy, below)
    if "log_weights" in file.tensors:
        posterior = Posterior(
            file.get("posterior_means", torch.float32, test_size, None),
            file.get("log_weights", torch.float32, None, None),
        )
    if "rendered" in file.tensors:
        first, second = file.word("domains", list)
        rendered, there, other, back, forth = (
            file.get(key, torch.uint8, *every_image)
            for key in ("rendered", "translated_0", "translated_1", "cycled_0", "cycled_1")
        )
        photographs, drawings = (
            file.get(f"class_means_{domain}", torch.uint8, test.num_classes, *IMAGE_SHAPE) for domain in (0, 1)
        )
        translations = Translations(rendered, (photographs, drawings), (there, other), (back, forth), (first, second))
    return Generated(
        _samples(file, test.num_classes) if "samples" in file.tensors else None,
        encodings,
        grid,
        likelihood,
        posterior,
        translations,
        _prompted(file, test) if "prompted" in file.tensors else None,
        Denoiser(**file.word("denoiser", dict)) if "denoiser" in file.metadata else None,
        unpack(file.tensors, file.metadata.get("diagnostics", {}), path),
        file.word("losses", dict),
        file.word("stored_numbers", int),
        file.word("images_seen", int),
    )


class _File:
    def __init__(self, path: Path) -> None:
        self.path, self.tensors, self.metadata = path, load_tensors(path), load_metadata(path)

    def get(self, key: str, dtype: torch.dtype, *shape: int | None) -> Tensor:
        tensor = require(self.tensors, key, dtype, shape, path=self.path)
        if dtype == torch.float32 and not bool(torch.isfinite(tensor).all()):
            raise FileDamagedError(f"{self.path}: '{key}' is not finite")
        return tensor

    def get_indices(self, key: str, below: int, *shape: int | None) -> Tensor:
        indices = self.get(key, torch.int64, *shape)
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < below):
            raise FileDamagedError(f"{self.path}: '{key}' must be 0 to {below - 1}")
        return indices

    def word(self, key: str, kind: type) -> Any:
        value = self.metadata.get(key)
        if not isinstance(value, kind):
            raise FileDamagedError(f"{self.path}: its metadata have no '{key}'")
        return value


def _samples(file: _File, num_classes: int) -> Samples:
    images = file.get("samples", torch.uint8, None, *IMAGE_SHAPE)
    labels = file.get("labels", torch.int64, len(images))
    if not bool((labels == UNLABELLED).all()):
        labels = file.get_indices("labels", num_classes, len(images))
        counts = torch.bincount(labels, minlength=num_classes)
        if len(counts[counts > 0].unique()) > 1:
            raise FileDamagedError(f"{file.path}: 'labels' must have equally many of each class")
    sweeps = {
        key: {value: file.get(f"sweep.{key}.{at}", torch.uint8, None, *IMAGE_SHAPE) for at, value in enumerate(values)}
        for key, values in file.word("sweeps", dict).items()
    }
    return Samples(images, labels, int(file.word("nfe", int)), float(file.metadata["multiply_adds"]), sweeps)


def _prompted(file: _File, test: Split) -> Prompted:
    images = file.get("prompted", torch.uint8, None, *IMAGE_SHAPE)
    texts, groups = file.word("prompts", list), file.word("prompt_groups", list)
    if not len(texts) == len(groups) == len(images):
        raise FileDamagedError(f"{file.path}: there must be one prompt for each image")
    return Prompted(
        images,
        file.get_indices("prompt_labels", test.num_classes, len(images)),
        file.get("prompt_matches", torch.bool, len(images)),
        file.get("caption_matches", torch.bool, len(test)),
        texts,
        groups,
    )


def _classes(file: _File, count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Which classes the `count` interpolations of a file stay in, and which they join."""
    try:
        within = list(file.metadata["within"])
        between = [(first, last) for first, last in file.metadata["between"]]
    except (KeyError, TypeError, ValueError):
        within, between = [], []
    if not between or len(within) + len(between) != count:
        raise FileDamagedError(f"{file.path} does not say which classes its interpolations join")
    return within, between
