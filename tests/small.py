"""Small but complete settings of every family, images to learn, and one quick training."""

import signal
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric

from generative.compute.runtime import make_rng
from generative.data.splits import Split, balanced_labels, save_split, steps_per_epoch
from generative.family import available_families, load_family
from generative.io.tensors import save_tensors
from generative.training.checkpoints import Checkpoints
from generative.training.loop import History, fit
from stages.common.code_files import code_texts
from stages.common.params import Params
from stages.common.paths import CODE, TRAIN, VALIDATION
from stages.common.paths import ROOT as PIPELINE
from stages.common.source import write_hashes

ROOT = Path(__file__).parent.parent
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
ZOO_PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "zoo/params.yaml").read_text())
MODELS: dict[str, Any] = PARAMS["models"] | ZOO_PARAMS["models"]  # of both pipelines
CLASSES: list[str] = PARAMS["data"]["classes"]
FAMILIES = available_families()
SMALL_TRAIN_SIZE, SMALL_TEST_SIZE, SMALL_SAMPLES = 1000, 2400, 200  # of the small run of the whole pipeline

_SMALLER_EXTRACTOR = {
    "epochs": 3,
    "batch_size": 40,
    "channels": 8,
    "features": 8,
    "image_size": 32,
    "learning_rate": 0.005,
    "seed": 5,
}
_SEED = 5


def listen_to_interrupts() -> None:
    """For a child process that the test interrupts: a test run in the background ignores Ctrl-C, and so would it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def make_blobs() -> Split:
    """400 images of a bright disc whose place depends on the class: quick to learn, not constant."""
    rng = make_rng(7)
    labels = balanced_labels(400, 10)
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    centre_row = 6 + 4 * (labels % 5) + torch.randint(-1, 2, (400,), generator=rng)
    centre_column = 9 + 10 * (labels // 5) + torch.randint(-1, 2, (400,), generator=rng)
    distance = (rows - centre_row.view(-1, 1, 1)).square() + (columns - centre_column.view(-1, 1, 1)).square()
    images = (255 * torch.exp(-distance / 60)).to(torch.uint8).unsqueeze(1)
    return Split(images, labels)


def shrunk(block: dict[str, Any]) -> dict[str, Any]:
    """A model's params, for images that are learned in seconds: with the changes that its family asks for."""
    small: dict[str, dict[str, Any]] = load_family(block["family"], where="test").SMALL
    training = block["training"] | small["training"] | {"seed": _SEED}
    if "sampled_epochs" in training:
        training["sampled_epochs"] = [1]
    parts = {"training": training}
    if "sampling" in block:
        parts["sampling"] = block["sampling"] | small.get("sampling", {})
    return block | parts


def shrunk_extractor(block: dict[str, Any]) -> dict[str, Any]:
    """An extractor's params, for images that are learned in seconds."""
    return block | {key: value for key, value in _SMALLER_EXTRACTOR.items() if key in block}


def changed(block: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A model's params with `changes`, each in the part that it belongs to."""
    sampling = {key: value for key, value in changes.items() if key in block.get("sampling", {})}
    training = {key: value for key, value in changes.items() if key not in sampling}
    parts = {"training": block["training"] | training}
    if "sampling" in block:
        parts["sampling"] = block["sampling"] | sampling
    return block | parts


def make_folder(folder: Path, *, epochs: int) -> Path:
    """A working directory for the training stages: params, shrunk, of every network, and blobs to learn."""
    blobs = make_blobs()
    for path in (TRAIN, VALIDATION):
        save_split(folder / path, blobs)
    params = PARAMS | {"models": {name: shrunk(block) for name, block in MODELS.items()}}
    params["extractors"] = {name: shrunk_extractor(block) for name, block in PARAMS["extractors"].items()}
    for block in (*(model["training"] for model in params["models"].values()), *params["extractors"].values()):
        block["epochs"] = epochs
    write_hashes(folder, CODE, code_texts(ROOT, Params(params)))
    for name in MODELS:
        save_tensors(folder / PIPELINE.lent(name), {})
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def small_config(family_name: str, **changes: Any) -> Any:
    """The committed settings of the first model of this family, shrunk."""
    blocks = [block for block in MODELS.values() if block["family"] == family_name]
    assert blocks, f"no params.yaml has a model of the family {family_name}: its contract cannot be tested"
    return load_family(family_name, where="test").Config.parse(changed(shrunk(blocks[0]), changes), where="test")


def build(config: Any, total_steps: int = 100, fabric: Fabric | None = None) -> tuple[Any, Any, Fabric]:
    """Model, objective and Fabric (one CPU process if none is given), initialised from the configured seed."""
    family = load_family(config.family, where="test")
    torch.manual_seed(config.training.seed)
    model = family.Model(config.training, 10)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    return model, family.Objective(model, config.training, fabric, total_steps), fabric


def disturb(module: torch.nn.Module, size: float = 0.05) -> None:
    """Add noise to all weights, so that layers which start at zero read what they are given."""
    rng = make_rng(_SEED)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=rng))


def train(config: Any, split: Split, folder: Path, fabric: Fabric | None = None, **changes: Any) -> tuple[Any, History]:
    """Train one model of `config` on `split`, which also serves as validation split, and prepare it to sample."""
    training = config.training
    steps = training.epochs * steps_per_epoch(len(split), training.batch_size)
    model, objective, fabric = build(config, steps, fabric)
    settings: dict[str, Any] = {
        "name": config.family,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "seed": training.seed,
        "fabric": fabric,
        "checkpoints": Checkpoints(folder, "fingerprint"),
        "on_epoch": lambda _: None,
    }
    history = fit(model, objective, split, split, **settings | changes)
    model.prepare_sampling(config.sampling, split)
    return model, history
