"""One file with all that using a trained model needs: weights, settings, what sampling was fitted to, names of classes.

generative/loading.py reads it.
"""

from collections.abc import Sequence
from pathlib import Path

from generative.family import FamilyConfig, GenerativeModel
from generative.io.tensors import save_tensors

FORMAT = 1
WEIGHTS, FITTED = "weights.", "fitted."  # before the names of tensors


def save_model(
    path: Path, network: GenerativeModel, config: FamilyConfig, *, name: str, dataset: str, classes: Sequence[str]
) -> None:
    """Write a model that `prepare_sampling` has prepared, with all that `load_model` needs.

    Args:
        path: of the file.
        network: the model.
        config: its settings.
        name: what it is called.
        dataset: what its training images are called.
        classes: the name of each class of them, by label.
    """
    tensors = {WEIGHTS + key: tensor for key, tensor in network.state_dict().items()}
    tensors |= {FITTED + key: tensor for key, tensor in network.fitted().items()}
    settings = config.model_dump(mode="json")
    words = {"format": FORMAT, "name": name, "dataset": dataset, "classes": list(classes), "settings": settings}
    save_tensors(path, tensors, words)
