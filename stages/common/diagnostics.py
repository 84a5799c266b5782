"""Diagnostics of a family in the file of what its model made: packed by `generate`, read back for the figures."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.capabilities.diagnosing import Curves, Diagnostic, Strip, Table
from generative.data.images import IMAGE_SHAPE
from generative.data.splits import to_uint8
from generative.errors import FileDamagedError, PipelineError

_PREFIX = "diagnostic"


def pack(diagnostics: dict[str, Diagnostic]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and the words that belong to them.

    Raises:
        PipelineError: images, rows and columns of a diagnostic do not fit together.
    """
    tensors: dict[str, Tensor] = {}
    words: dict[str, Any] = {}
    for name, found in diagnostics.items():
        if isinstance(found, Curves):
            tensors[f"{_PREFIX}.{name}"] = torch.stack([found.x, *found.y.values()]).float().cpu()
            words[name] = {
                "kind": "curves",
                "title": found.title,
                "axes": [found.x_label, found.y_label],
                "lines": list(found.y),
                "log_scale": found.log_scale,
            }
        elif isinstance(found, Strip):
            tensors[f"{_PREFIX}.{name}"] = to_uint8(found.images).cpu()
            words[name] = {"kind": "strip", "title": found.title, "rows": found.rows, "columns": found.columns}
        else:
            tensors[f"{_PREFIX}.{name}"] = found.numbers.float().cpu()
            words[name] = {"kind": "table", "title": found.title, "rows": found.rows, "columns": found.columns}
        if not _fits(tensors[f"{_PREFIX}.{name}"], words[name]):
            raise PipelineError(f"the diagnostic '{name}' has other words than rows and columns.")
    return tensors, words


def unpack(tensors: dict[str, Tensor], words: dict[str, Any], path: Path) -> dict[str, Diagnostic]:
    """What was packed.

    Raises:
        FileDamagedError: the file `path` does not hold it.
    """
    found: dict[str, Diagnostic] = {}
    for name, word in words.items():
        tensor = tensors.get(f"{_PREFIX}.{name}")
        if tensor is None or not _fits(tensor, word):
            raise FileDamagedError(f"{path} does not hold its diagnostic '{name}'")
        title, kind = word["title"], word["kind"]
        if kind == "curves":
            lines = dict(zip(word["lines"], tensor[1:], strict=True))
            x_label, y_label = word["axes"]
            found[name] = Curves(title, x_label, y_label, tensor[0], lines, word["log_scale"])
        elif kind == "strip":
            found[name] = Strip(title, tensor, word["rows"], word["columns"])
        else:
            found[name] = Table(title, tensor, word["rows"], word["columns"])
    return found


def _fits(tensor: Tensor, word: dict[str, Any]) -> bool:
    """Whether a tensor has as many rows and columns as there are words for them."""
    if word["kind"] == "curves":
        return tensor.dim() == 2 and len(tensor) == 1 + len(word["lines"]) > 1
    sides = zip(tensor.shape[:2], (word["rows"], word["columns"]), strict=True)
    if word["kind"] == "strip":
        return tensor.dim() == 5 and tensor.shape[2:] == IMAGE_SHAPE and all(n and len(w) in (0, n) for n, w in sides)
    return tensor.dim() == 2 and all(n == len(w) for n, w in sides)
