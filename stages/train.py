"""Stage `train@MODEL`: trains one entry of `models` in the settings of a pipeline."""

from typing import Any

import torch

from generative.capabilities.capability import try_all
from generative.compute.runtime import make_rng, start
from generative.data.splits import Split
from generative.errors import PipelineError
from generative.family import GenerativeModel
from stages.common.fitting import Outputs, train_network
from stages.common.lending import borrow, wanted_extractor
from stages.common.models import read_model
from stages.common.params import read_params
from stages.common.paths import CODE, Pipeline

_FEW = 10  # images


def main(here: Pipeline, name: str) -> None:
    """Train the model `name` and write its weights, curves, and what it makes after each epoch."""
    params = read_params(here)
    config, family = read_model(params, name)
    here.previews(name).mkdir(parents=True, exist_ok=True)  # an output, also of a family that shows nothing
    lent = wanted_extractor(config)
    train_network(
        name,
        config.training,
        family.Model,
        family.Objective,
        compute=params.compute,
        inputs=[CODE / "stages/train.txt", CODE / "families" / f"{config.family}.txt", here.lent(name)],
        checkpoints=here.checkpoints,
        outputs=Outputs(here.model(name), here.curves(name), here.previews(name), here.kept(name)),
        extras={"extractor": borrow(here.lent(name), start(params.compute))} if lent else None,
        rehearse=lambda network, split: use_once(network, config.sampling, split),
    )


def use_once(network: GenerativeModel, sampling: Any, split: Split) -> None:
    """Do with a network, on the device of `split`, all that it can do, for a few images."""
    rng = make_rng(0, split.images.device)
    limits = sampling.limits(len(split))
    network.prepare_sampling(sampling.model_copy(update={key: min(limits[key], 2) for key in limits}), split)
    with torch.inference_mode():
        try:
            try_all(network, Split(split.images[:_FEW], split.labels[:_FEW]), rng)
        except PipelineError as error:
            raise PipelineError(f"{type(network).__module__.replace('.', '/')}.py: {error}") from None
