"""Stage `train@MODEL`: trains one entry of `models` in params.yaml."""

from stages.cli import run
from stages.fitting import train_network
from stages.models import read_model
from stages.paths import curves, model


def main(name: str) -> None:
    """Train the model `name` and write its weights and curves."""
    config, family = read_model(name)
    train_network(name, config, family.Model, family.Objective, weights=model(name), curves=curves(name))


if __name__ == "__main__":
    run(main)
