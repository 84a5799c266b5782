"""Images in one small file: a lossless PNG of their grey levels, that git can keep and a figure is drawn from later."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from generative.data.images import IMAGE_SHAPE, WHITE
from generative.errors import FileDamagedError, FileMissingError
from generative.io.files import atomic_path

_SIDE = IMAGE_SHAPE[-1]


def save_strip(images: Tensor, columns: int, path: Path) -> None:
    """Write `images` uint8 (R * columns, 1, 28, 28), row by row, without gaps; dark on white as in figures."""
    rows = images.unflatten(0, (-1, columns)).squeeze(2).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # (R 28, C 28)
    with atomic_path(path) as temporary:
        Image.fromarray(WHITE - rows.numpy()).save(temporary, format="PNG", optimize=True)


def load_strip(path: Path) -> Tensor:
    """The images uint8 (N, 1, 28, 28) that `save_strip` wrote.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: the file is no such picture.
    """
    try:
        with Image.open(path) as picture:
            levels = np.asarray(picture)
    except FileNotFoundError:
        raise FileMissingError(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise FileDamagedError(f"{path} is no readable picture ({error})") from None
    if levels.ndim != 2 or levels.dtype != np.uint8 or any(not side or side % _SIDE for side in levels.shape):
        raise FileDamagedError(f"{path} does not hold grey images of {_SIDE} x {_SIDE} pixels")
    rows = torch.from_numpy(WHITE - levels)
    return rows.unflatten(0, (-1, _SIDE)).unflatten(2, (-1, _SIDE)).permute(0, 2, 1, 3).flatten(0, 1).unsqueeze(1)
