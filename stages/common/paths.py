"""Where data and models are, relative to the repository, which is the working directory of a stage.

What is in git of each model lies elsewhere: `stages.common.published_paths`.
"""

from pathlib import Path

CODE = Path("code")
PARAMS_CHECKED = Path("data/params_checked.txt")
RAW = Path("data/raw")
TRAIN = Path("data/prepared/train.safetensors")
VALIDATION = Path("data/prepared/validation.safetensors")
TEST = Path("data/prepared/test.safetensors")
EXTRACTOR_PREFIX = "extractor_"  # of their checkpoints beside those of the models
REAL_FEATURES = Path("data/features/real.safetensors")
CHECKPOINTS = Path(".checkpoints")


def model(name: str) -> Path:
    """Weights of a trained model."""
    return Path(f"models/{name}.safetensors")


def extractor(name: str) -> Path:
    """Weights of a feature extractor."""
    return Path(f"models/extractors/{name}.safetensors")


def curves(name: str) -> Path:
    """Losses of a model per epoch."""
    return Path(f"plots/training/{name}.tsv")


def extractor_curves(name: str) -> Path:
    """Losses of a feature extractor per epoch; no rows if it was not trained here."""
    return Path(f"plots/training_extractors/{name}.tsv")


def previews(name: str) -> Path:
    """A picture of what a model makes after each epoch: 0.png, 1.png, ..."""
    return Path(f"plots/epochs/{name}")


def generated(name: str) -> Path:
    """Everything that a model makes: samples, and with an encoder latents, reconstructions, interpolations."""
    return Path(f"data/generated/{name}.safetensors")


def scores(name: str) -> Path:
    """Scores of a model, or of real images (`real`)."""
    return Path(f"data/scores/{name}.json")
