"""Stage `train@MODEL`: trains one entry of `models` in params.yaml."""

from stages.fitting import train_network
from stages.models import read_model
from stages.paths import curves, epochs, model


def main(name: str) -> None:
    """Train the model `name` and write its weights, curves, and what it makes after each epoch."""
    config, family = read_model(name)
    paths = {"weights": model(name), "curves": curves(name), "epochs": epochs(name)}
    epochs(name).mkdir(parents=True, exist_ok=True)  # an output, also of a family that shows nothing
    train_network(name, config, family.Model, family.Objective, **paths)
