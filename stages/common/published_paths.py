"""Where git keeps what of each model and of real images (`real`).

Everything here can be read in any clone, without data and without a pull. A model's row of the leaderboard, its part of
the comparing figures and its place in the report come from these files alone.

- metrics/: `scores/NAME.json`, their standard errors `errors/NAME.json`, `features/NAME.json` (the distances by
  extractor, with errors), `per_class/NAME.json`; `headline.json` has the few scores that DVC shows by default, of all
  models; `extractors.json` the SHA-256 of each extractor's weights.
- plots/data/NAME/: `curves.tsv`; `samples.png`, a square of samples; `reconstructions.png`, of two test images of each
  class; `latents.tsv` with `latents.json`. Of real images: test images in the place of samples and reconstructions,
  and the curves of the extractors.
- plots/figures/NAME/: the figures of one model; plots/comparison/: those of all.
"""

from pathlib import Path

HEADLINE_METRICS = Path("metrics/headline.json")
EXTRACTOR_METRICS = Path("metrics/extractors.json")
SCORE_METRICS = Path("metrics/scores")
ERROR_METRICS = Path("metrics/errors")
FEATURE_METRICS = Path("metrics/features")
PER_CLASS_METRICS = Path("metrics/per_class")
PLOT_DATA = Path("plots/data")
FIGURES = Path("plots/figures")
COMPARISON = Path("plots/comparison")
CURVES = Path("plots/curves.tsv")
REPORT = Path("report.pdf")
