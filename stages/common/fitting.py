"""What the training stages share: resuming, the lock against a second process, and writing the outputs."""

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from generative.compute.runtime import start
from generative.compute.settings import ComputeConfig
from generative.data.fashion_mnist import NUM_CLASSES
from generative.data.splits import Split, load_split, steps_per_epoch
from generative.errors import FileMissingError
from generative.io.files import write_bytes
from generative.io.tables import write_table
from generative.io.tensors import save_tensors, to_bytes
from generative.objective import TrainingObjective
from generative.training.checkpoints import Checkpoints
from generative.training.loop import History, fit
from stages.common.paths import CHECKPOINTS, TRAIN, VALIDATION

_REHEARSED = 2000  # images
_PREVIEW_GAP = 2  # pixels between two images

MakeObjective = Callable[[Any, Any, Fabric, int], TrainingObjective]


def train_network(
    name: str,
    config: Any,
    make_model: Callable[[Any], nn.Module],
    make_objective: MakeObjective,
    *,
    compute: ComputeConfig,
    code: Sequence[Path],
    weights: Path,
    curves: Path,
    previews: Path | None = None,
    rehearse: Callable[[Any, Split], None] | None = None,
) -> None:
    """Train one network with the settings `config` and write its `weights` and `curves`.

    Images of what it makes after each epoch go into the folder `previews`, if one is given: 0.png, 1.png, ...

    What comes after the last epoch is first done with an untrained copy and few images, so that what fails there fails
    before the first; `rehearse` does what later stages do with the network.

    Goes on from a checkpoint if an earlier run with the same settings, inputs and code was interrupted; `code` are the
    files of the stage `code` that say which code the result depends on.
    """
    start(compute)
    fabric = Fabric(accelerator=compute.accelerator, devices=compute.devices, precision=compute.precision)
    fabric.launch()
    train, validation = load_split(TRAIN), load_split(VALIDATION)
    checkpoints = Checkpoints(CHECKPOINTS / name, fingerprint(config, compute, inputs=[TRAIN, VALIDATION, *code]))
    with checkpoints.locked() if fabric.is_global_zero else nullcontext():
        with torch.random.fork_rng():
            _rehearse(config, make_model, make_objective, train, fabric, rehearse)
        torch.manual_seed(config.seed)
        model = make_model(config)
        steps = config.epochs * steps_per_epoch(len(train), config.batch_size)
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
            on_preview=(lambda images: write_previews(previews, images)) if previews else None,
        )
        if fabric.is_global_zero:
            save_tensors(weights, dict(model.state_dict()), {"config": config.model_dump(mode="json")})
            checkpoints.clear()


def _rehearse(
    config: Any,
    make_model: Callable[[Any], nn.Module],
    make_objective: MakeObjective,
    train: Split,
    fabric: Fabric,
    then: Callable[[Any, Split], None] | None,
) -> None:
    """Do what comes after the last epoch, without an epoch."""
    part = Split(train.images[:_REHEARSED], train.labels[:_REHEARSED]).to(fabric.device)
    model = make_model(config)
    make_objective(model, config, fabric, 1).finish(part)
    to_bytes(dict(model.state_dict()), {"config": config.model_dump(mode="json")})
    if then is not None:
        then(model.eval(), part)


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


def fingerprint(*settings: Any, inputs: Sequence[Path]) -> str:
    """A hash of all that a training's result depends on: settings, files of data and code, the torch that is used."""
    digest = hashlib.sha256(torch.__version__.encode())
    for setting in settings:
        digest.update(setting.model_dump_json().encode())
    for path in inputs:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except FileNotFoundError:
            raise FileMissingError(path) from None
    return digest.hexdigest()[:32]
