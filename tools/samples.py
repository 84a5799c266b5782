"""Reading somebody else's samples: arrays or a folder of PNG files, of which nothing is believed.

No file is unpickled, and no array is read before its header says that it is of a possible size. Whatever is wrong is
named with what to do about it.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from generative.data.images import IMAGE_SHAPE, WHITE
from generative.data.splits import to_uint8
from generative.errors import PipelineError

IMAGES, LABELS = ("images", "samples", "arr_0", "x"), ("labels", "y")  # names of arrays in a file of several
_LARGEST = 4_000_000_000  # bytes of an array
_ROUNDING = 1e-3  # by which an intensity may lie outside [0, 1]
_SIDE = IMAGE_SHAPE[-1]


class SampleSet(NamedTuple):
    """Samples uint8 (N, 1, 28, 28), and the labels int64 (N,) that they follow, if they follow any."""

    images: Tensor
    labels: Tensor | None


class BadSamplesError(PipelineError):
    """Samples that cannot be scored as they are."""


def read_samples(path: Path, labels: Path | None, classes: list[str]) -> SampleSet:
    """The samples at `path`: a folder of PNG files, or a file .npy, .npz or .safetensors.

    Labels are those in the file `labels` (the same formats, or text with a number or a name in each line), else what
    lies beside the images: an array `labels` or `y` in the same file, or in a folder one subfolder for each class.

    Args:
        path: of the samples.
        labels: of their labels.
        classes: the name of each class, by label.

    Raises:
        BadSamplesError: naming what is wrong, and what to do.
    """
    if path.is_dir():
        images, found = _read_folder(path, classes)
    else:
        arrays = _read_arrays(path)
        name = _choose(path, arrays, IMAGES, wanted="images")
        images = to_grey_levels(arrays[name], where=str(path))
        beside = next((key for key in LABELS if key in arrays and key != name), None)
        found = None if beside is None else to_labels(arrays[beside], len(images), classes, where=f"{path}: '{beside}'")
    if labels is not None:
        found = to_labels(_read_labels(labels, classes), len(images), classes, where=str(labels))
    return SampleSet(images, found)


def to_grey_levels(array: np.ndarray, *, where: str) -> Tensor:
    """Grey levels uint8 (N, 1, 28, 28) of an `array` of images.

    Args:
        array: uint8 0 to 255 or floats in [0, 1], (N, 28, 28) with or without a channel of 1, first or last.
        where: it comes from, for messages.

    Raises:
        BadSamplesError: it is of another type, shape or range.
    """
    shape = array.shape
    if shape[1:] not in ((_SIDE, _SIDE), (1, _SIDE, _SIDE), (_SIDE, _SIDE, 1)):
        way_out = "reshape it" if shape[1:] == (_SIDE * _SIDE,) else "scale images to 28 x 28 and make them grey"
        raise BadSamplesError(
            f"{where} has the shape {shape}, but must be (N, 28, 28), with or without a channel of 1: {way_out}."
        )
    if not len(array):
        raise BadSamplesError(f"{where} holds no image.")
    native = array if array.dtype == np.uint8 else array.astype(np.float32)  # also in this machine's byte order
    images = torch.from_numpy(np.ascontiguousarray(native.reshape(-1, *IMAGE_SHAPE)))
    if array.dtype == np.uint8:
        if int(images.max()) <= 1:
            raise BadSamplesError(f"{where} is uint8, but runs from 0 to 1: multiply it by {WHITE}.")
        return images
    return _from_floats(images, where)


def _from_floats(x: Tensor, where: str) -> Tensor:
    wrong = int((~torch.isfinite(x)).sum())
    if wrong:
        raise BadSamplesError(f"{where} has {wrong} numbers that are NaN or infinite: leave those images out.")
    low, high = float(x.min()), float(x.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        way_out = "scale it"
        if low >= 0 and high <= WHITE:
            way_out = f"divide by {WHITE}, or save uint8"
        elif low >= -1 - _ROUNDING and high <= 1 + _ROUNDING:
            way_out = "save (x + 1) / 2"
        raise BadSamplesError(f"{where} runs from {low:.4g} to {high:.4g}, but floats must be in [0, 1]: {way_out}.")
    return to_uint8(x)


def to_labels(array: np.ndarray, count: int, classes: list[str], *, where: str) -> Tensor:
    """Labels int64 (count,) of an `array` of whole numbers.

    Raises:
        BadSamplesError: they are not one for each image, or not those of `classes`.
    """
    if array.shape != (count,):
        raise BadSamplesError(f"{where} has the shape {array.shape}, but must be one label for each of {count} images.")
    if not np.issubdtype(array.dtype, np.integer):
        if not np.issubdtype(array.dtype, np.floating) or not bool((array == np.floor(array)).all()):
            raise BadSamplesError(f"{where} is {array.dtype}, but labels must be whole numbers.")
        array = array.astype(np.int64)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= len(classes):
        raise BadSamplesError(
            f"{where} runs from {low} to {high}, but labels run from 0 to {len(classes) - 1}: "
            f"{', '.join(f'{label} {name}' for label, name in enumerate(classes))}."
        )
    return torch.from_numpy(array.astype(np.int64))


def refuse_inverted(images: Tensor, real: Tensor, *, where: str) -> None:
    """Make sure that samples are not the negative of what they should be.

    Args:
        images: samples uint8 (N, 1, 28, 28).
        real: real images uint8 (M, 1, 28, 28).
        where: the samples come from, for messages.

    Raises:
        BadSamplesError: the negative of the mean sample is far nearer to the mean real image than the mean sample is.
    """
    ours, theirs = (part.double().mean((0, 1)) for part in (images, real))
    as_it_is, negative = ((x - theirs).square().mean() for x in (ours, WHITE - ours))
    if float(negative) < float(as_it_is) / 2:
        raise BadSamplesError(
            f"{where} looks inverted (on average {float(ours.mean()):.0f} of {WHITE}, real images "
            f"{float(theirs.mean()):.0f}): these images are light on black, save {WHITE} - x."
        )


def _read_folder(folder: Path, classes: list[str]) -> tuple[Tensor, Tensor | None]:
    paths = sorted(folder.glob("*.png"))
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir() and not part.name.startswith(".")]
    if paths and parts:
        raise BadSamplesError(f"{folder} has PNG files and subfolders: one or the other, a subfolder for each class.")
    labels: list[int] = []
    for part in parts:
        inside = sorted(part.glob("*.png"))
        paths += inside
        labels += [_label(part.name, classes, where=f"the subfolder {part}")] * len(inside)
    if not paths:
        raise BadSamplesError(f"{folder} has no PNG files.")
    images = torch.from_numpy(np.stack([_read_picture(path) for path in paths])).unsqueeze(1)
    return images, torch.tensor(labels) if parts else None


def _read_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            size, mode = picture.size, picture.mode
            if size != (_SIDE, _SIDE):  # before a pixel is decoded
                raise BadSamplesError(f"{path} has {size[0]} x {size[1]} pixels, but must have {_SIDE} x {_SIDE}.")
            if mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                raise BadSamplesError(f"{path} is of the mode {mode}: save 8-bit grey levels.")
            channels = np.asarray(picture.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadSamplesError(f"{path} is no readable PNG file ({error}).") from None
    if int(channels[..., 3].min()) < WHITE:
        raise BadSamplesError(f"{path} is transparent: save grey levels alone.")
    if not bool((channels[..., :1] == channels[..., :3]).all()):
        raise BadSamplesError(f"{path} has colours: save grey levels.")
    return channels[..., 0]


def _read_labels(path: Path, classes: list[str]) -> np.ndarray:
    if path.suffix in (".txt", ".csv"):
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadSamplesError(f"{path} cannot be read ({error}).") from None
        words = [line.strip() for line in lines if line.strip()]
        return np.array([_label(word, classes, where=f"{path}: the line") for word in words], dtype=np.int64)
    arrays = _read_arrays(path)
    return arrays[_choose(path, arrays, (*LABELS, "arr_0"), wanted="labels")]


def _label(word: str, classes: list[str], *, where: str) -> int:
    if word in classes:
        return classes.index(word)
    plain = [name.replace("/", "_") for name in classes]  # what a folder can be called
    if word in plain:
        return plain.index(word)
    if re.fullmatch(r"[0-9]{1,6}", word):
        return int(word)
    raise BadSamplesError(f"{where} '{word[:40]}' is neither a label nor one of the classes {', '.join(classes)}.")


def _choose(path: Path, arrays: Mapping[str, np.ndarray], names: tuple[str, ...], *, wanted: str) -> str:
    found = [name for name in names if name in arrays] or (list(arrays) if len(arrays) == 1 else [])
    if not found:
        raise BadSamplesError(
            f"{path} has the arrays {', '.join(arrays) or '(none)'}: call the one with the {wanted} '{names[0]}'."
        )
    return found[0]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file by name; of .npy the one array, under an empty name.

    Raises:
        BadSamplesError: the file cannot be read, or holds anything but plain numbers.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise BadSamplesError(
            f"{path} is none of what can be read: a folder of PNG files, or a file {', '.join(readers)}."
        )
    try:
        return readers[path.suffix](path)
    except FileNotFoundError:
        raise BadSamplesError(f"{path} is missing.") from None
    except (OSError, ValueError, EOFError, KeyError, SafetensorError, zipfile.BadZipFile, MemoryError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise BadSamplesError(f"{path} cannot be read ({said}).") from None


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        shape = _check_header(file, str(path))
        if file.tell() + int(np.prod(shape[0], dtype=object)) * shape[1].itemsize > path.stat().st_size:
            raise BadSamplesError(f"{path} is shorter than its header says: copy it anew.")
    return {"": np.load(path, allow_pickle=False)}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith(".npy"):
                raise BadSamplesError(f"{path} holds '{name[:40]}', which is no array.")
            with archive.open(name) as file:
                _check_header(file, f"{path}: '{name.removesuffix('.npy')[:40]}'")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name in (*IMAGES, *LABELS) or len(arrays.files) == 1}


def _check_header(file: Any, where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type by the header of an array, before a byte of it is read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise BadSamplesError(f"{where} is of NumPy's format {version}: save plain numbers.")
    if dtype.hasobject:
        raise BadSamplesError(f"{where} holds pickled objects, which could run code: they are not read, save numbers.")
    if dtype.kind not in "uif":
        raise BadSamplesError(f"{where} is of the type {dtype}, but must be uint8 or floats.")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > _LARGEST:
        raise BadSamplesError(f"{where} has the shape {shape}: more than {_LARGEST:,} bytes are not read.")
    return shape, dtype


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise FileNotFoundError
    found: dict[str, np.ndarray] = {}
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        for name in names:
            if name in (*IMAGES, *LABELS) or len(names) == 1:
                tensor = file.get_tensor(name)
                if tensor.dtype == torch.bfloat16:
                    tensor = tensor.float()
                found[name] = tensor.numpy()
    return found or dict.fromkeys(names, np.zeros(0))
