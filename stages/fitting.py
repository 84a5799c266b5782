"""What the training stages share: resuming, the lock against a second process, and writing the outputs."""

import hashlib
import io
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from generative.checkpoints import Checkpoints
from generative.data import NUM_CLASSES, load_split
from generative.family import TrainingObjective
from generative.files import write_bytes
from generative.runtime import ComputeConfig, start
from generative.tables import write_table
from generative.tensors import save_tensors
from generative.training import History, fit
from stages.params import read_block
from stages.paths import CHECKPOINTS, TRAIN, VALIDATION

_PREVIEW_GAP = 2  # pixels between two images

MakeObjective = Callable[[Any, Any, Fabric, int], TrainingObjective]


def train_network(
    name: str,
    config: Any,
    make_model: Callable[[Any], nn.Module],
    make_objective: MakeObjective,
    *,
    weights: Path,
    curves: Path,
    epochs: Path | None = None,
) -> None:
    """Train one network from params.yaml's `config` and write its `weights` and `curves`.

    Images of what it makes after each epoch go into the folder `epochs`, if one is given: 0.png, 1.png, ...

    Goes on from a checkpoint if an earlier run with the same settings, inputs and code was interrupted.
    """
    compute = read_block("compute", ComputeConfig)
    start(compute)
    fabric = Fabric(accelerator=compute.accelerator, devices=compute.devices, precision=compute.precision)
    fabric.launch()
    train, validation = load_split(TRAIN), load_split(VALIDATION)
    checkpoints = Checkpoints(CHECKPOINTS / name, fingerprint(config, compute))
    with checkpoints.locked() if fabric.is_global_zero else nullcontext():
        torch.manual_seed(config.seed)
        model = make_model(config)
        steps = config.epochs * (len(train) // config.batch_size)
        objective = make_objective(model, config, fabric, steps)
        fit(
            model,
            objective,
            train,
            validation,
            name=name,
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            fabric=fabric,
            checkpoints=checkpoints,
            on_epoch=lambda history: write_curves(curves, history),
            on_preview=(lambda previews: write_previews(epochs, previews)) if epochs else None,
        )
        if fabric.is_global_zero:
            save_tensors(weights, dict(model.state_dict()), {"config": config.model_dump(mode="json")})
            checkpoints.clear()


def write_curves(path: Path, history: History) -> None:
    """Write one row per epoch."""
    write_table(path, pd.DataFrame(history))


def write_previews(folder: Path, previews: list[Tensor]) -> None:
    """Write one picture per epoch, 0.png after the first, of images uint8 (100, 1, 28, 28): one row per class."""
    wanted = {folder / f"{number}.png": _encode(images) for number, images in enumerate(previews)}
    for path, content in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)
    for path in set(folder.iterdir()) - set(wanted):
        path.unlink()


def _encode(images: Tensor) -> bytes:
    rows = make_grid(images, nrow=len(images) // NUM_CLASSES, padding=_PREVIEW_GAP, pad_value=0)
    buffer = io.BytesIO()
    Image.fromarray(255 - rows[0].numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def fingerprint(*settings: Any) -> str:
    """A hash of all that the result of a training depends on: settings, input files, code, torch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    for setting in settings:
        digest.update(setting.model_dump_json().encode())
    for path in (TRAIN, VALIDATION, *_project_modules()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _project_modules() -> list[Path]:
    files = [
        module.__file__
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] in ("generative", "stages") and getattr(module, "__file__", None)
    ]
    return [Path(file) for file in files if file]
