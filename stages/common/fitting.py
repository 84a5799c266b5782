"""What the training stages share: resuming, the lock against a second process, and writing the outputs."""

import hashlib
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from generative.compute.runtime import start
from generative.compute.settings import ComputeConfig
from generative.data.splits import Split, load_split
from generative.errors import FileMissingError
from generative.io.files import write_bytes
from generative.io.tables import write_table
from generative.io.tensors import save_tensors, to_bytes
from generative.objective import TrainingObjective
from generative.training.checkpoints import Checkpoints
from generative.training.loop import History, draw_kept, fit
from stages.common.paths import TRAIN, VALIDATION

_REHEARSED = 2000  # images
_PREVIEW_GAP = 2  # pixels between two images


class Outputs(NamedTuple):
    """Where a training writes what; None for what is not wanted."""

    weights: Path
    curves: Path
    previews: Path | None = None
    kept: Path | None = None


def train_network(
    name: str,
    config: Any,
    make_model: Callable[[Any, int], nn.Module],
    objective_class: type[TrainingObjective],
    *,
    compute: ComputeConfig,
    inputs: Sequence[Path],
    checkpoints: Path,
    outputs: Outputs,
    extras: Mapping[str, Any] | None = None,
    rehearse: Callable[[Any, Split], None] | None = None,
) -> None:
    """Train one network with the settings `config` and write `outputs`; it is made from them and the number of classes.

    Images of what it makes after each epoch go into the folder `outputs.previews`: 0.png, 1.png, ...; samples of the
    epochs that `config.sampled_epochs` names into `outputs.kept`, uint8 (2000, 1, 28, 28) by epoch.

    What comes after the last epoch is first done with an untrained copy and few images, so that what fails there fails
    before the first; `rehearse` does what later stages do with the network.

    Goes on from a checkpoint in the folder `checkpoints` if an earlier run with the same settings and `inputs` was
    interrupted: files beside the splits that the result depends on, among them those that say of which code. `extras`
    are further arguments of the objective.
    """
    start(compute)
    fabric = Fabric(
        accelerator=compute.accelerator,
        devices=compute.devices,
        precision=compute.precision,
        plugins=[LightningEnvironment()],  # one process here starts the others, also within a job of a cluster
    )
    fabric.launch()
    train, validation = load_split(TRAIN), load_split(VALIDATION)
    mark = fingerprint(config, compute, processor=processor(compute), inputs=[TRAIN, VALIDATION, *inputs])
    unfinished = Checkpoints(checkpoints / name, mark)
    make_objective: Any = partial(objective_class, **(extras or {}))
    with unfinished.locked() if fabric.is_global_zero else nullcontext():
        with torch.random.fork_rng():
            _rehearse(config, make_model, make_objective, train, fabric, rehearse)
        torch.manual_seed(config.seed)
        model = make_model(config, train.num_classes)
        steps = config.epochs * objective_class.steps_per_epoch(len(train), config.batch_size)
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
            checkpoints=unfinished,
            on_epoch=lambda history: write_curves(outputs.curves, history),
            on_preview=partial(write_previews, outputs.previews, train.num_classes) if outputs.previews else None,
            sampled_epochs=config.sampled_epochs if outputs.kept else (),
            on_samples=partial(_write_kept, outputs.kept) if outputs.kept else None,
        )
        if fabric.is_global_zero:
            write_bytes(outputs.weights, _to_bytes(model, config, train.num_classes, objective))
            unfinished.clear()


def _rehearse(
    config: Any,
    make_model: Callable[[Any, int], nn.Module],
    make_objective: Callable[[Any, Any, Fabric, int], TrainingObjective],
    train: Split,
    fabric: Fabric,
    then: Callable[[Any, Split], None] | None,
) -> None:
    """Do what comes after the last epoch, without an epoch."""
    part = Split(train.images[:_REHEARSED], train.labels[:_REHEARSED]).to(fabric.device)
    model = make_model(config, train.num_classes)
    objective = make_objective(model, config, fabric, 1)
    if getattr(config, "sampled_epochs", ()):
        draw_kept(model, objective, train.num_classes, fabric.device)
    objective.finish(part)
    _to_bytes(model, config, train.num_classes, objective)
    if then is not None:
        then(model.eval(), part)


def _to_bytes(model: nn.Module, config: Any, num_classes: int, objective: TrainingObjective) -> bytes:
    """The file of weights, with the settings, the number of classes and the words for what was minimised."""
    words = {"config": config.model_dump(mode="json"), "num_classes": num_classes, "losses": dict(objective.losses)}
    return to_bytes(dict(model.state_dict()), words)


def _write_kept(path: Path, kept: dict[int, Tensor]) -> None:
    save_tensors(path, {str(epoch): images for epoch, images in kept.items()})


def write_curves(path: Path, history: History) -> None:
    """Write one row per epoch."""
    write_table(path, pd.DataFrame(history))


def write_previews(folder: Path, num_classes: int, previews: list[Tensor]) -> None:
    """Write one picture per epoch, 0.png after the first, of images uint8 (N, 1, 28, 28) by class: a row for each."""
    wanted = {folder / f"{number}.png": _encode(images, num_classes) for number, images in enumerate(previews)}
    for path, content in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)
    for path in set(folder.iterdir()) - set(wanted):
        path.unlink()


def _encode(images: Tensor, num_classes: int) -> bytes:
    rows = make_grid(images, nrow=len(images) // num_classes, padding=_PREVIEW_GAP, pad_value=0)
    buffer = io.BytesIO()
    Image.fromarray(255 - rows[0].numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def processor(compute: ComputeConfig) -> str:
    """The kind of processor that a result depends on; empty where it is the same on all."""
    if compute.accelerator == "cuda":
        return torch.cuda.get_device_name()
    return "" if compute.portable else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def fingerprint(*settings: Any, processor: str, inputs: Sequence[Path]) -> str:
    """A hash of all that a training's result depends on: settings, files of data and code, torch and the processor."""
    digest = hashlib.sha256(f"{torch.__version__} {processor}".encode())
    for setting in settings:
        digest.update(setting.model_dump_json().encode())
    for path in inputs:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except FileNotFoundError:
            raise FileMissingError(path) from None
    return digest.hexdigest()[:32]
