"""Small but complete settings of every family, images to learn, and one quick training."""

import signal
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric

from generative.checkpoints import Checkpoints
from generative.data import Split, balanced_labels, save_split
from generative.family import available_families, load_family
from generative.runtime import make_rng
from generative.training import History, fit
from stages.paths import TRAIN, VALIDATION

ROOT = Path(__file__).parent.parent
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
EXERCISE: dict[str, Any] = yaml.safe_load((ROOT / "exercise.yaml").read_text())
FAMILIES = available_families()

_SMALLER: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 40,
    "hidden": [32],
    "generator_hidden": [16, 32],
    "discriminator_hidden": [32],
    "channels": 8,
    "latent_dim": 2,
    "features": 8,
    "mixture_components": 3,
    "ema_decay": 0.9,
    "r1_interval": 4,
    "refine_steps": 2,
    "learning_rate": 0.005,
    "seed": 5,
}


def listen_to_interrupts() -> None:
    """For a child process that the test interrupts: a test run in the background ignores Ctrl-C, and so would it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def make_blobs() -> Split:
    """400 images of a bright disc whose place depends on the class: quick to learn, not constant."""
    rng = make_rng(7)
    labels = balanced_labels(400)
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    centre_row = 6 + 4 * (labels % 5) + torch.randint(-1, 2, (400,), generator=rng)
    centre_column = 9 + 10 * (labels // 5) + torch.randint(-1, 2, (400,), generator=rng)
    distance = (rows - centre_row.view(-1, 1, 1)).square() + (columns - centre_column.view(-1, 1, 1)).square()
    images = (255 * torch.exp(-distance / 60)).to(torch.uint8).unsqueeze(1)
    return Split(images, labels)


def shrunk(block: dict[str, Any]) -> dict[str, Any]:
    """A model's or an extractor's params, for images that are learned in seconds."""
    return block | {key: value for key, value in _SMALLER.items() if key in block}


def make_folder(folder: Path, *, epochs: int) -> Path:
    """A working directory for the training stages: params, shrunk, of every network, and blobs to learn."""
    blobs = make_blobs()
    for path in (TRAIN, VALIDATION):
        save_split(folder / path, blobs)
    params = PARAMS | {"models": {name: shrunk(block) for name, block in (PARAMS["models"] | EXERCISE).items()}}
    params["extractors"] = {name: shrunk(block) for name, block in PARAMS["extractors"].items()}
    for block in (*params["models"].values(), *params["extractors"].values()):
        block["epochs"] = epochs
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def small_config(family_name: str, **changes: Any) -> Any:
    """The committed settings of the first model of this family, shrunk."""
    blocks = [block for block in (PARAMS["models"] | EXERCISE).values() if block["family"] == family_name]
    assert blocks, (
        f"neither params.yaml nor exercise.yaml has a model of the family {family_name}: its contract cannot be tested"
    )
    return load_family(family_name, where="test").Config.parse(shrunk(blocks[0]) | changes, where="test")


def build(config: Any, total_steps: int = 100, fabric: Fabric | None = None) -> tuple[Any, Any, Fabric]:
    """Model, objective and Fabric (one CPU process if none is given), initialised from the configured seed."""
    family = load_family(config.family, where="test")
    torch.manual_seed(config.seed)
    model = family.Model(config)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    return model, family.Objective(model, config, fabric, total_steps), fabric


def train(config: Any, split: Split, folder: Path, fabric: Fabric | None = None, **changes: Any) -> tuple[Any, History]:
    """Train one model of `config` on `split`, which also serves as validation split."""
    steps = config.epochs * (len(split) // config.batch_size)
    model, objective, fabric = build(config, steps, fabric)
    settings: dict[str, Any] = {
        "name": config.family,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "fabric": fabric,
        "checkpoints": Checkpoints(folder, "fingerprint"),
        "on_epoch": lambda _: None,
    }
    history = fit(model, objective, split, split, **settings | changes)
    return model, history
