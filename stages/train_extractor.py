"""Stage `train_extractor@NAME`: a network in whose features samples are compared with real images.

One whose weights come from elsewhere is fetched instead, and has no curves.
"""

from generative.io.files import write_text
from generative.io.tensors import save_tensors
from stages.common.extractors import read_extractor
from stages.common.fitting import Outputs, train_network
from stages.common.params import read_params
from stages.common.paths import CODE, EXTRACTOR_PREFIX, Pipeline, extractor, extractor_curves


def main(here: Pipeline, name: str) -> None:
    """Make the extractor `name` and write its weights and curves."""
    params = read_params(here)
    config, kind = read_extractor(params, name)
    if hasattr(kind, "Objective"):
        train_network(
            f"{EXTRACTOR_PREFIX}{name}",
            config,
            kind.Model,
            kind.Objective,
            compute=params.compute,
            inputs=[CODE / "stages/train_extractor.txt", CODE / "extractors" / f"{config.kind}.txt"],
            checkpoints=here.checkpoints,
            outputs=Outputs(extractor(name), extractor_curves(name)),
        )
    else:
        save_tensors(extractor(name), dict(kind.fetch(config).state_dict()), {"num_classes": 0})
        write_text(extractor_curves(name), "epoch\n")
