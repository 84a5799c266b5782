"""Somebody's samples: good forms are read alike, all else is named with the way out, and no code of theirs runs."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from generative.data.splits import Split
from tests.small import CLASSES
from tests.test_hostile_files import Bomb
from tools.samples import BadSamplesError, read_samples, refuse_inverted

COUNT = 20


@pytest.fixture
def levels(blobs: Split) -> np.ndarray:
    return blobs.images[:COUNT, 0].numpy()


@pytest.fixture
def labels(blobs: Split) -> np.ndarray:
    return blobs.labels[:COUNT].numpy()


def write_pngs(folder: Path, levels: np.ndarray, mode: str = "L") -> Path:
    folder.mkdir(parents=True)
    for place, image in enumerate(levels):
        Image.fromarray(image).convert(mode).save(folder / f"{place:05}.png")
    return folder


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


GOOD: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "uint8": lambda folder, x: saved(folder / "x.npy", x),
    "channel first": lambda folder, x: saved(folder / "x.npy", x[:, None]),
    "channel last": lambda folder, x: saved(folder / "x.npy", x[..., None]),
    "Fortran order": lambda folder, x: saved(folder / "x.npy", np.asfortranarray(x)),
    "float64": lambda folder, x: saved(folder / "x.npy", x / 255),
    "float16": lambda folder, x: saved(folder / "x.npy", (x / 255).astype(np.float16)),
    "big-endian": lambda folder, x: saved(folder / "x.npy", (x / 255).astype(">f4")),
    "PNG": lambda folder, x: write_pngs(folder / "x", x),
    "PNG of equal colours": lambda folder, x: write_pngs(folder / "x", x, "RGB"),
    "safetensors": lambda folder, x: in_safetensors(folder / "x.safetensors", images=torch.from_numpy(x)),
    "safetensors, any name": lambda folder, x: in_safetensors(folder / "x.safetensors", drawn=torch.from_numpy(x)),
    "npz": lambda folder, x: in_npz(folder / "x.npz", images=x),
    "npz without names": lambda folder, x: in_npz(folder / "x.npz", arr_0=x),
}


def in_safetensors(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def in_npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("form", GOOD)
def test_every_good_form_is_read_alike(form: str, tmp_path: Path, levels: np.ndarray) -> None:
    found = read_samples(GOOD[form](tmp_path, levels), None, CLASSES)
    assert found.images.dtype == torch.uint8
    torch.testing.assert_close(found.images, torch.from_numpy(levels)[:, None], rtol=0, atol=0)
    assert found.labels is None


@pytest.mark.parametrize("form", ["npy", "txt", "names", "npz beside", "safetensors beside", "subfolders", "floats"])
def test_labels_are_read_from_where_they_are(form: str, tmp_path: Path, levels: np.ndarray, labels: np.ndarray) -> None:
    path, beside = saved(tmp_path / "x.npy", levels), None
    if form == "npy":
        beside = saved(tmp_path / "y.npy", labels)
    elif form == "floats":
        beside = saved(tmp_path / "y.npy", labels.astype(np.float32))
    elif form == "txt":
        beside = tmp_path / "y.txt"
        beside.write_text("".join(f"{label}\r\n" for label in labels))
    elif form == "names":
        beside = tmp_path / "y.csv"
        beside.write_text("\n".join(CLASSES[label] for label in labels))
    elif form == "npz beside":
        path = in_npz(tmp_path / "x.npz", images=levels, labels=labels)
    elif form == "safetensors beside":
        tensors = {"samples": torch.from_numpy(levels), "labels": torch.from_numpy(labels)}
        path = in_safetensors(tmp_path / "x.safetensors", **tensors)
    else:
        path = tmp_path / "x"
        for label in np.unique(labels):
            write_pngs(path / CLASSES[label].replace("/", "_"), levels[labels == label])
        found = read_samples(path, None, CLASSES)
        assert found.labels is not None
        for label in np.unique(labels):
            mine = found.images[found.labels == int(label), 0].numpy()
            assert (mine == levels[labels == label]).all()
        return
    found = read_samples(path, beside, CLASSES)
    assert found.labels is not None
    assert found.labels.tolist() == labels.tolist()


BAD: dict[str, tuple[Callable[[np.ndarray], np.ndarray], list[str]]] = {
    "flat": (lambda x: x.reshape(len(x), -1), ["(20, 784)", "reshape it"]),
    "colours": (lambda x: np.stack([x] * 3, -1), ["(20, 28, 28, 3)", "grey"]),
    "too large": (lambda x: np.pad(x, ((0, 0), (2, 2), (2, 2))), ["(20, 32, 32)", "scale images to 28 x 28"]),
    "none": (lambda x: x[:0], ["holds no image"]),
    "NaN": (lambda x: np.where(x > 200, np.nan, x / 255), ["NaN or infinite", "leave those images out"]),
    "from -1 to 1": (lambda x: x / 127.5 - 1, ["runs from -1 to 1", "save (x + 1) / 2"]),
    "floats to 255": (lambda x: x.astype(np.float32), ["to 255", "divide by 255, or save uint8"]),
    "int64": (lambda x: x.astype(np.int64), ["to 255", "save uint8"]),
    "standardised": (lambda x: (x - 80.0) / 90, ["floats must be in [0, 1]: scale it"]),
    "0 and 1 in uint8": (lambda x: (x > 100).astype(np.uint8), ["uint8, but runs from 0 to 1", "multiply it by 255"]),
    "complex": (lambda x: x.astype(np.complex64), ["complex64", "uint8 or floats"]),
    "text": (lambda x: x[:, 0, 0].astype(str), ["must be uint8 or floats"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_array_is_named_with_the_way_out(kind: str, tmp_path: Path, levels: np.ndarray) -> None:
    change, words = BAD[kind]
    path = saved(tmp_path / "x.npy", change(levels))
    with pytest.raises(BadSamplesError) as caught:
        read_samples(path, None, CLASSES)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_negative_is_recognised(blobs: Split) -> None:
    refuse_inverted(blobs.images[:40], blobs.images, where="x")
    refuse_inverted(torch.full_like(blobs.images[:40], 90), blobs.images, where="x")  # bad, but no negative
    with pytest.raises(BadSamplesError, match=r"x looks inverted .* save 255 - x"):
        refuse_inverted(255 - blobs.images[:40], blobs.images, where="x")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.arange(COUNT - 1), ["(19,)", "one label for each of 20 images"]),
        (np.arange(COUNT), ["from 0 to 19", "0 T-shirt/top"]),
        (np.zeros(COUNT) - 1, ["from -1 to -1"]),
        (np.full(COUNT, 0.5), ["whole numbers"]),
        (np.eye(COUNT), ["(20, 20)"]),
    ],
)
def test_bad_labels_are_named(array: np.ndarray, words: list[str], tmp_path: Path, levels: np.ndarray) -> None:
    path = saved(tmp_path / "x.npy", levels)
    with pytest.raises(BadSamplesError) as caught:
        read_samples(path, saved(tmp_path / "y.npy", array), CLASSES)
    for word in ["y.npy", *words]:
        assert word in str(caught.value)


def test_unknown_class_name_is_named(tmp_path: Path, levels: np.ndarray) -> None:
    (tmp_path / "y.txt").write_text("Bag\nHat\n")
    with pytest.raises(BadSamplesError, match=r"'Hat' is neither a label nor one of the classes T-shirt/top"):
        read_samples(saved(tmp_path / "x.npy", levels), tmp_path / "y.txt", CLASSES)


def picture(path: Path, mode: str, size: tuple[int, int] = (28, 28), **words: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, **words).save(path, format=words.pop("format", "PNG"))


def cut_off(path: Path) -> None:
    picture(path, "L")
    path.write_bytes(path.read_bytes()[:50])


PICTURES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "other size": (lambda path: picture(path, "L", (32, 28)), ["32 x 28 pixels"]),
    "bomb": (lambda path: picture(path, "1", (20_000, 20_000)), ["no readable PNG file", "400000000 pixels"]),
    "colours": (lambda path: picture(path, "RGB", color=(9, 0, 0)), ["has colours"]),
    "transparent": (lambda path: picture(path, "LA", color=(9, 100)), ["is transparent"]),
    "16 bits": (lambda path: picture(path, "I;16"), ["8-bit grey levels"]),
    "other format": (lambda path: Image.new("L", (28, 28)).save(path, format="GIF"), ["no readable PNG file"]),
    "text": (lambda path: path.write_text("no picture"), ["no readable PNG file"]),
    "cut off": (cut_off, ["no readable PNG"]),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_bad_picture_is_named(kind: str, tmp_path: Path, levels: np.ndarray) -> None:
    folder = write_pngs(tmp_path / "x", levels[:2])
    make, words = PICTURES[kind]
    make(folder / "odd.png")
    with pytest.raises(BadSamplesError) as caught:
        read_samples(folder, None, CLASSES)
    for word in ["odd.png", *words]:
        assert word in str(caught.value)


def pickled(path: Path, touched: Path) -> Path:
    np.save(path, np.array([Bomb(touched)], dtype=object), allow_pickle=True)
    return path


def zipped_pickle(path: Path, touched: Path) -> Path:
    np.savez(path, images=np.array([Bomb(touched)], dtype=object))
    return path


def raw_pickle(path: Path, touched: Path) -> Path:
    path.write_bytes(pickle.dumps(Bomb(touched)))
    return path


def header(shape: str, kind: str = "|u1") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": (1,)})
    return file.getvalue().replace(b"(1,)", shape.encode())


def zip_of(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


HOSTILE: dict[str, tuple[Callable[[Path, Path], Path], list[str]]] = {
    "pickled array": (lambda folder, touched: pickled(folder / "x.npy", touched), ["pickled objects", "not read"]),
    "pickled array in a zip": (lambda folder, touched: zipped_pickle(folder / "x.npz", touched), ["pickled objects"]),
    "pickle": (lambda folder, touched: raw_pickle(folder / "x.npy", touched), ["x.npy cannot be read"]),
    "pickle as .pkl": (lambda folder, touched: raw_pickle(folder / "x.pkl", touched), ["none of what can be read"]),
    "huge shape": (
        lambda folder, _: written(folder / "x.npy", header("(999999999999,28,28)")),
        ["bytes are not read"],
    ),
    "huge shape in a zip": (
        lambda folder, _: zip_of(folder / "x.npz", "images.npy", header("(999999999999,28,28)")),
        ["bytes are not read"],
    ),
    "shorter than its header": (lambda folder, _: written(folder / "x.npy", header("(99,28,28)")), ["is shorter"]),
    "code in a header": (lambda folder, _: written(folder / "x.npy", header("(exit(),)")), ["cannot be read"]),
    "other file in a zip": (lambda folder, _: zip_of(folder / "x.npz", "../../x.py", b"1"), ["which is no array"]),
    "no zip": (lambda folder, _: written(folder / "x.npz", b"PK\3\4 no"), ["x.npz cannot be read"]),
    "no safetensors": (lambda folder, _: written(folder / "x.safetensors", bytes(9)), ["cannot be read"]),
    "nothing": (lambda folder, _: folder / "none.npy", ["none.npy is missing"]),
    "empty file": (lambda folder, _: written(folder / "x.npy", b""), ["cannot be read"]),
    "empty folder": (lambda folder, _: folder, ["has no PNG files"]),
    "arrays of other names": (
        lambda folder, _: in_npz(folder / "x.npz", a=np.zeros(1), b=np.zeros(1)),
        ["call the one with the images 'images'"],
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_one_sentence_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    make, words = HOSTILE[kind]
    folder, touched = tmp_path / "given", tmp_path / "touched"
    folder.mkdir()
    path = make(folder, touched)
    with pytest.raises(BadSamplesError) as caught:
        read_samples(path, None, CLASSES)
    for word in words:
        assert word in str(caught.value)
    assert not touched.exists()
