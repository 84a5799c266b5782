"""`python -m tests.several_devices FAMILY DEVICES FOLDER [EPOCHS]`: trains on CPU processes, writes history.json."""

import json
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric

from tests.small import make_blobs, small_config, train


def main(family_name: str, devices: str, folder: str, epochs: str = "3") -> None:
    """Train the family's small model; every process runs this, the first writes."""
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=int(devices))
    fabric.launch()
    _, history = train(
        small_config(family_name, epochs=int(epochs)), make_blobs(), Path(folder) / "checkpoints", fabric
    )
    if fabric.is_global_zero:
        (Path(folder) / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main(*sys.argv[1:])
