"""Reading and writing named tensors as safetensors files.

safetensors cannot carry code and its bytes depend on the content alone: names are stored in a
fixed order, and the one metadata key is a JSON string with sorted keys.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from generative.errors import FileDamagedError, FileMissingError
from generative.io.files import write_bytes

_METADATA_KEY = "json"
_MOST_CLASSES = 10_000


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write `tensors` (any shapes and types, on any device) and JSON-able `metadata` to `path`.

    The write is atomic, and equal arguments give equal bytes. Tensors that share memory, such as tied weights, are
    written once under each name.
    """
    write_bytes(path, to_bytes(tensors, metadata))


def to_bytes(tensors: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> bytes:
    """The file that `save_tensors` writes.

    Raises:
        TypeError, ValueError: something cannot be written.
    """
    plain = {name: tensors[name].detach().cpu().clone().contiguous() for name in sorted(tensors)}
    header = {_METADATA_KEY: json.dumps(metadata or {}, sort_keys=True)}
    return bytes(save(plain, metadata=header))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file, on the CPU.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: the file is truncated or malformed.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def load_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata that `save_tensors` stored.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: the file is truncated, malformed, or was not written by `save_tensors`.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
    try:
        metadata: dict[str, Any] = json.loads(header[_METADATA_KEY])
    except (KeyError, ValueError):
        raise FileDamagedError(f"{path} has no readable metadata") from None
    return metadata


def require(
    tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int | None, ...], *, path: Path
) -> Tensor:
    """Return `tensors[name]` after checking its type and shape; None in `shape` allows any size.

    Raises:
        FileDamagedError: the tensor is missing or is not as required; the message names `path`.
    """
    if name not in tensors:
        raise FileDamagedError(f"{path} has no tensor '{name}'")
    tensor = tensors[name]
    fits = tensor.dim() == len(shape) and all(
        wanted is None or size == wanted for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        wanted_shape = tuple("any" if size is None else size for size in shape)
        raise FileDamagedError(
            f"{path}: tensor '{name}' is {tensor.dtype} {tuple(tensor.shape)}, but must be {dtype} {wanted_shape}"
        )
    return tensor


def load_weights(module: torch.nn.Module, tensors: dict[str, Tensor], *, path: Path) -> None:
    """Copy `tensors` into `module`; names and shapes must match exactly, and every number must be finite.

    Raises:
        FileDamagedError: `path`, the file they come from, holds the weights of another network, or broken ones.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise FileDamagedError(f"{path}: '{name}' is not finite")
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FileDamagedError(f"{path} does not fit the network that its settings describe ({reason})") from None


def load_network(make: Callable[[Any, int], Any], config: Any, path: Path) -> Any:
    """A network with the weights in `path`, made from its settings and the number of classes that the metadata have.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: it is damaged, or holds another network.
    """
    num_classes = load_metadata(path).get("num_classes")
    if not isinstance(num_classes, int) or not 0 <= num_classes <= _MOST_CLASSES:
        raise FileDamagedError(f"{path}: its metadata do not say of how many classes the data were")
    network = make(config, num_classes)
    load_weights(network, load_tensors(path), path=path)
    return network


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError:
        raise FileMissingError(path) from None
    except (SafetensorError, OSError) as error:
        raise FileDamagedError(f"{path} is not a readable safetensors file ({error})") from None
