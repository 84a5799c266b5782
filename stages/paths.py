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
EXTRACTORS = Path("models/extractors")
EXTRACTOR_PREFIX = "extractor_"  # of their files beside those of the models
CHECKPOINTS = Path(".checkpoints")


def model(name: str) -> Path:
    """Weights of a trained model."""
    return Path(f"models/{name}.safetensors")


def extractor(name: str) -> Path:
    """Weights of a feature extractor."""
    return EXTRACTORS / f"{name}.safetensors"


def curves(name: str) -> Path:
    """Losses per epoch."""
    return Path(f"plots/training/{name}.tsv")


def extractor_curves(name: str) -> Path:
    """Losses of a feature extractor per epoch; no rows if it was not trained here."""
    return curves(f"{EXTRACTOR_PREFIX}{name}")


def epochs(name: str) -> Path:
    """A picture of what a model makes after each epoch: 0.png, 1.png, ..."""
    return Path(f"plots/epochs/{name}")


def generated(name: str) -> Path:
    """Everything that a model makes: samples, and with an encoder latents, reconstructions, interpolations."""
    return Path(f"data/generated/{name}.safetensors")
