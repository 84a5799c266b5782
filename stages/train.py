"""Stage `train@MODEL`: trains one entry of `models` in params.yaml."""

from typing import Any

import torch

from generative.compute.runtime import make_rng
from generative.data.splits import Split, balanced_labels, to_unit
from generative.family import GenerativeModel
from stages.common.fitting import train_network
from stages.common.models import read_model
from stages.common.params import read_params
from stages.common.paths import CODE, curves, model, previews

_FEW = 10  # images


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
        rehearse=lambda network, split: use_once(network, config.sampling, split),
    )


def use_once(network: GenerativeModel, sampling: Any, split: Split) -> None:
    """Do with a network, on the device of `split`, all that `generate` does with it, for a few images."""
    rng = make_rng(0, split.images.device)
    limits = sampling.limits(len(split))
    network.prepare_sampling(sampling.model_copy(update={key: min(limits[key], 2) for key in limits}), split)
    x = to_unit(split.images[:_FEW])
    with torch.inference_mode():
        network.sample(balanced_labels(_FEW).to(x.device), rng)
        if network.encodes:
            network.decode(network.encode(x))
            network.grid_axis(2)
        if network.bounds_likelihood:
            network.likelihood_bound(x, rng)
            network.log_weights(x, 2, rng)
