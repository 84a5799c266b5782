"""Where scores, metrics, figures and the report are, relative to the repository."""

from pathlib import Path

HEADLINE_METRICS = Path("metrics/headline.json")
SCORE_METRICS = Path("metrics/scores")
ERROR_METRICS = Path("metrics/errors")
FEATURE_METRICS = Path("metrics/features")
EXTRACTOR_METRICS = Path("metrics/extractors.json")
PER_CLASS_METRICS = Path("metrics/per_class")
CURVES = Path("plots/curves.tsv")
FIGURES = Path("plots/figures")
REPORT = Path("report.pdf")
REAL_FEATURES = Path("data/features/real.safetensors")


def scores(name: str) -> Path:
    """Scores of a model, or of real images (`real`)."""
    return Path(f"data/scores/{name}.json")
