"""Where data and models are, relative to the repository, which is the working directory of a stage.

Every stage depends on this file, so what only the later stages write is in `result_paths`: a new figure
or score must not retrain a model.
"""

from pathlib import Path

PARAMS_CHECKED = Path("data/params_checked.txt")
RAW = Path("data/raw")
TRAIN = Path("data/prepared/train.safetensors")
VALIDATION = Path("data/prepared/validation.safetensors")
TEST = Path("data/prepared/test.safetensors")
EXTRACTOR = Path("models/extractor.safetensors")
CHECKPOINTS = Path(".checkpoints")


def model(name: str) -> Path:
    """Weights of a trained model."""
    return Path(f"models/{name}.safetensors")


def curves(name: str) -> Path:
    """Losses per epoch."""
    return Path(f"plots/training/{name}.tsv")


def generated(name: str) -> Path:
    """Everything that a model makes: samples, and with an encoder latents, reconstructions, interpolations."""
    return Path(f"data/generated/{name}.safetensors")
