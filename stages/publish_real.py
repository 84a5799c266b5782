"""Stage `publish_real`: what git keeps of real images, the floor, and of the extractors that scored.

stages/common/paths.py names every file.
"""

from generative.data.splits import load_split
from generative.figures.strips import save_strip
from generative.io.files import write_json
from generative.io.tables import read_table, write_table
from generative.io.tensors import load_metadata
from stages.common.leftovers import tidy
from stages.common.params import read_params
from stages.common.paths import EXTRACTOR_METRICS, REAL, REAL_FEATURES, TEST, Pipeline, extractor_curves
from stages.common.published import FiguresConfig, examples, publish_scores


def main(here: Pipeline) -> None:
    """Publish the scores of real images, test images to compare with, and the curves of the extractors."""
    params = read_params(here)
    tidy(params)
    side = params.block("figures", FiguresConfig).sample_columns
    test = load_split(TEST)
    publish_scores(here, REAL)
    words, folder = load_metadata(REAL_FEATURES), here.plot_data(REAL)
    write_json(EXTRACTOR_METRICS, words["extractors"])
    write_json(folder / "losses.json", words["losses"])
    save_strip(test.images[: side * side], side, folder / "samples.png")
    save_strip(test.images[examples(test)], test.num_classes, folder / "reconstructions.png")
    for name in params.extractors:
        write_table(folder / f"{name}.tsv", read_table(extractor_curves(name)))
