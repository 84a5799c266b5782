"""Stage `train_extractor@NAME`: a network in whose features samples are compared with real images.

One whose weights come from elsewhere is fetched instead, and has no curves.
"""

from generative.files import write_text
from generative.tensors import save_tensors
from stages.extractors import read_extractor
from stages.fitting import train_network
from stages.paths import EXTRACTOR_PREFIX, extractor, extractor_curves


def main(name: str) -> None:
    """Make the extractor `name` and write its weights and curves."""
    config, kind = read_extractor(name)
    weights, curves = extractor(name), extractor_curves(name)
    if hasattr(kind, "Objective"):
        label = f"{EXTRACTOR_PREFIX}{name}"
        train_network(label, config, kind.Model, kind.Objective, weights=weights, curves=curves)
    else:
        save_tensors(weights, dict(kind.fetch(config).state_dict()), {})
        write_text(curves, "epoch\n")
