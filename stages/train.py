"""Stage `train@MODEL`: trains one entry of `models` in params.yaml."""

from stages.common.fitting import train_network
from stages.common.models import read_model
from stages.common.params import read_params
from stages.common.paths import CODE, curves, model, previews


def main(name: str) -> None:
    """Train the model `name` and write its weights, curves, and what it makes after each epoch."""
    params = read_params()
    config, family = read_model(params, name)
    previews(name).mkdir(parents=True, exist_ok=True)  # an output, also of a family that shows nothing
    train_network(
        name,
        config.training,
        family.Model,
        family.Objective,
        compute=params.compute,
        code=[CODE / "stages" / "train.txt", CODE / "families" / f"{config.family}.txt"],
        weights=model(name),
        curves=curves(name),
        previews=previews(name),
    )
