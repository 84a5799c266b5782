"""`python -m tests.several_devices FAMILY DEVICES FOLDER`: trains on that many CPU processes, writes history.json."""

import json
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric

from generative.checkpoints import Checkpoints
from generative.family import load_family
from generative.training import fit
from tests.small import make_blobs, small_config


def main(family_name: str, devices: str, folder: str) -> None:
    """Train the family's small model; every process runs this, the first writes."""
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=int(devices))
    fabric.launch()
    config = small_config(family_name)
    split = make_blobs()
    torch.manual_seed(config.seed)
    family = load_family(family_name, where="test")
    model = family.Model(config)
    objective = family.Objective(model, config, fabric, config.epochs * (len(split) // config.batch_size))
    history = fit(
        model,
        objective,
        split,
        split,
        name=family_name,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        fabric=fabric,
        checkpoints=Checkpoints(Path(folder) / "checkpoints", "fingerprint"),
        on_epoch=lambda _: None,
    )
    if fabric.is_global_zero:
        (Path(folder) / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main(*sys.argv[1:])
