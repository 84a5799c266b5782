"""Stage `lend@MODEL`: hands the training of a model the extractor that its settings name, or nothing.

The setting is `extractor` in the block `training`, of a family whose settings are a `ReadsExtractor`; a key of this
name in those of any other family is an error, which `check_params` has found before.
"""

from stages.common.leftovers import tidy
from stages.common.lending import lend
from stages.common.params import read_params
from stages.common.paths import Pipeline


def main(here: Pipeline, name: str) -> None:
    """Write what the training of the model `name` may read of the extractors."""
    tidy(read_params())  # of the folder of extractors, which is the root's
    params = read_params(here)
    training = params.item("models", name).get("training")
    lend(params, training.get("extractor") if isinstance(training, dict) else None, here.lent(name))
