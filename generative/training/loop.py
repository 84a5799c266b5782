"""The training loop, the same for every family and for the feature extractor.

The whole split lies on the device as uint8, batches are picked by index, and losses are summed on the
device: one transfer to the host per epoch. After every epoch the state is checkpointed.
"""

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from generative.compute.runtime import average, gather, make_rng
from generative.data.splits import Split, balanced_labels, to_uint8, to_unit
from generative.errors import PipelineError
from generative.objective import TrainingObjective
from generative.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from lightning_fabric import Fabric

History = list[dict[str, float]]

_EXPLODED = 100.0  # a loss this many times its value on the untrained network has diverged
_VALIDATION_BATCH = 1000
_PREVIEWED = 10  # images of each class
_VALIDATION_SEED = 0  # the same noise in every epoch: curves show the model, not the draw
_KEPT, _KEPT_BATCH = 2000, 500  # samples of a chosen epoch, and how many are drawn at a time


def fit(
    model: nn.Module,
    objective: TrainingObjective,
    train: Split,
    validation: Split,
    *,
    name: str,
    epochs: int,
    batch_size: int,
    seed: int,
    fabric: "Fabric",
    checkpoints: Checkpoints,
    on_epoch: Callable[[History], None],
    on_preview: Callable[[list[Tensor]], None] | None = None,
    sampled_epochs: Collection[int] = (),
    on_samples: Callable[[dict[int, Tensor]], None] | None = None,
) -> History:
    """Train `model` in place with `objective` for `epochs` passes over `train`.

    Each epoch shuffles the split anew and drops the incomplete last batch. The last epoch's weights are
    kept: nothing is chosen by a score. On several devices each process trains on its share of every batch, and
    the gradients are averaged: the same batches, the same updates.

    Args:
        model: its weights, and those that `objective` holds, are what a checkpoint stores.
        objective: called once per batch.
        train: training images.
        validation: scored after each epoch, never trained on.
        name: shown in the progress bar and in messages.
        epochs: passes over `train`.
        batch_size: images per update, over all devices together.
        seed: of the shuffling and of the noise that the objective draws.
        fabric: gives the device, and tells the processes apart; only the first writes.
        checkpoints: where an interrupted training left its state, if it did.
        on_epoch: called with the history so far, after each epoch and once on resuming.
        on_preview: called at the same times with what the objective's `preview` made after each epoch, uint8
            (10 C, 1, 28, 28) by class, ten images of each; not called if it makes nothing.
        sampled_epochs: after which the objective's `draw` makes 2,000 samples.
        on_samples: called at the end with them by epoch, uint8 (2000, 1, 28, 28), labels 0, 1, ..., 0, 1, ...

    Returns:
        One row per epoch: `epoch` (from 1), the means over the epoch's batches as `train_*`, and the means
        over the validation split as `validation_*`.

    Raises:
        PipelineError: the split is smaller than a batch, a batch cannot be shared evenly between the devices, or
            a loss is not finite or explodes.
    """
    if len(train) < batch_size:
        raise PipelineError(f"{name}: batch_size {batch_size} is larger than the training split ({len(train)}).")
    if batch_size % fabric.world_size:
        raise PipelineError(f"{name}: batch_size {batch_size} is not a multiple of the {fabric.world_size} devices.")
    device = fabric.device
    train, validation = train.to(device), validation.to(device)
    rng = make_rng(seed, device)
    history: History = []
    previews: list[Tensor] = []
    kept: dict[int, Tensor] = {}
    initial: dict[str, float] = {}
    if fabric.global_rank:
        torch.manual_seed(seed + fabric.global_rank)  # each process drops out neurons of its own

    def report() -> None:
        on_epoch(history)
        if previews and on_preview is not None:
            on_preview(previews)

    state = checkpoints.load()
    if state is not None:
        model.load_state_dict(state["model"])
        objective.load_state_dict(state["objective"])
        _set_random_states(state["random_states"], rng, fabric)
        history, previews, initial = state["history"], state["previews"], state["initial"]
        kept = state["kept"]
        fabric.print(f"{name}: goes on after epoch {len(history)} of {epochs}, where an earlier run was interrupted")
        if fabric.is_global_zero:
            report()

    for epoch in range(len(history) + 1, epochs + 1):
        model.train()
        losses, first = _train_epoch(objective, train, batch_size, rng, fabric, f"{name} {epoch}/{epochs}")
        initial = first | initial
        _stop_if_diverged(name, epoch, objective, losses, initial)
        scores = validate(model, objective, validation, fabric)
        row: dict[str, float] = {"epoch": epoch}
        row |= {f"train_{key}": value for key, value in losses.items()}
        row |= {f"validation_{key}": value for key, value in scores.items()}
        history.append(row)
        if on_preview is not None:
            previews += preview(model, objective, validation)
        if epoch in sampled_epochs:
            kept |= {epoch: draw_kept(model, objective, train.num_classes, device)}
        random_states = _random_states(rng, fabric)
        if not fabric.is_global_zero:
            continue
        checkpoints.save(
            {
                "model": model.state_dict(),
                "objective": objective.state_dict(),
                "random_states": random_states,
                "history": history,
                "previews": previews,
                "kept": kept,
                "initial": initial,
            }
        )
        report()
    model.eval()
    objective.finish(train)
    if on_samples is not None and fabric.is_global_zero:
        on_samples(kept)
    return history


def validate(model: nn.Module, objective: TrainingObjective, split: Split, fabric: "Fabric") -> dict[str, float]:
    """The objective's validation scalars, averaged over `split`; leaves the mode of `model` unchanged."""
    rng = make_rng(_VALIDATION_SEED, split.images.device)
    was_training = model.training
    model.eval()
    sums = _Sums()
    with torch.no_grad():
        for images, y in zip(split.images.split(_VALIDATION_BATCH), split.labels.split(_VALIDATION_BATCH), strict=True):
            sums.add(objective.validate(to_unit(images), y, rng), weight=len(y))
    model.train(was_training)
    return sums.means(fabric)


def preview(model: nn.Module, objective: TrainingObjective, split: Split) -> list[Tensor]:
    """What the objective's `preview` makes of ten images of each class, as uint8 on the CPU; empty if nothing."""
    chosen = torch.cat([(split.labels == label).nonzero()[:_PREVIEWED, 0] for label in range(split.num_classes)])
    was_training = model.training
    model.eval()
    with torch.no_grad():
        images = objective.preview(
            to_unit(split.images[chosen]), split.labels[chosen], make_rng(_VALIDATION_SEED, split.images.device)
        )
    model.train(was_training)
    return [] if images is None else [to_uint8(images).cpu()]


def draw_kept(model: nn.Module, objective: TrainingObjective, num_classes: int, device: torch.device) -> Tensor:
    """2,000 samples as the model would draw them now, of each class equally many, uint8 on the CPU.

    Raises:
        PipelineError: the objective draws none.
    """
    rng = make_rng(_VALIDATION_SEED, device)
    was_training = model.training
    model.eval()
    parts = []
    with torch.no_grad():
        for labels in balanced_labels(_KEPT, num_classes).to(device).split(_KEPT_BATCH):
            images = objective.draw(labels, rng)
            if images is None:
                raise PipelineError("sampled_epochs asks for samples during the training, but this family draws none.")
            parts.append(to_uint8(images).cpu())
    model.train(was_training)
    return torch.cat(parts)


def _train_epoch(
    objective: TrainingObjective, train: Split, batch_size: int, rng: torch.Generator, fabric: "Fabric", title: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Means of the scalars over one epoch, and the first value of each."""
    sums = _Sums()
    first: dict[str, Tensor] = {}
    latest: dict[str, Tensor] = {}
    bar = tqdm(
        total=objective.steps_per_epoch(len(train), batch_size) * batch_size,
        desc=title,
        unit=" images",
        unit_scale=True,
        disable=None if fabric.is_global_zero else True,
        leave=False,
    )
    ranks = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    for x, y in objective.batches(train, batch_size, rng, **ranks):
        scalars = objective.step(x, y, rng)
        first |= {key: value.clone() for key, value in scalars.items() if key not in first}
        latest |= scalars
        sums.add(scalars)
        if bar.update(batch_size):  # true only when the bar is drawn anew, a few times per second
            bar.set_postfix(
                {key: f"{float(latest[key]):.4g}" for key in objective.losses if key in latest}, refresh=False
            )
    bar.close()
    return sums.means(fabric), {key: float(average(value, fabric)) for key, value in first.items()}


def _random_states(rng: torch.Generator, fabric: "Fabric") -> dict[str, list[Tensor]]:
    """Of each process by rank: the state of `rng`, and those that dropout draws from on the CPU and on the GPU."""
    states = {"rng": rng.get_state(), "cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(fabric.device)
    return {key: gather(state, fabric) for key, state in states.items()}


def _set_random_states(states: dict[str, list[Tensor]], rng: torch.Generator, fabric: "Fabric") -> None:
    own = {key: by_rank[fabric.global_rank] for key, by_rank in states.items()}
    rng.set_state(own["rng"])
    torch.set_rng_state(own["cpu"])
    if "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], fabric.device)


def _stop_if_diverged(
    name: str, epoch: int, objective: TrainingObjective, losses: dict[str, float], initial: dict[str, float]
) -> None:
    for key in objective.losses:
        if key not in losses:
            continue  # not reported at any step of this epoch
        limit = math.inf if key in objective.scaleless else _EXPLODED * max(1.0, abs(initial[key]))
        if not math.isfinite(losses[key]) or not math.isfinite(initial[key]) or abs(losses[key]) > limit:
            raise PipelineError(
                f"{name}: {key} diverged in epoch {epoch} (mean {losses[key]:.4g}, at the start "
                f"{initial[key]:.4g}); no weights were written: lower its learning_rate."
            )


class _Sums:
    """Weighted sums of named scalars, kept on their device until the means are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, int] = {}

    def add(self, scalars: dict[str, Tensor], weight: int = 1) -> None:
        for key, value in scalars.items():
            term = value.detach() * weight
            self._sums[key] = self._sums[key] + term if key in self._sums else term
            self._weights[key] = self._weights.get(key, 0) + weight

    def means(self, fabric: "Fabric") -> dict[str, float]:
        """Means over what was added in all processes, of each scalar over the times that it was added."""
        if not self._sums:
            return {}
        means = torch.stack([total / self._weights[key] for key, total in self._sums.items()])
        values: list[Any] = average(means, fabric).tolist()
        return dict(zip(self._sums, values, strict=True))
