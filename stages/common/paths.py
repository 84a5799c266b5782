"""Where everything is, relative to the repository, which is the working directory of a stage.

A pipeline is a folder with a params.yaml and a dvc.yaml: the root has the models of the exercise, zoo/ all others.
Data, extractors and the features of real images are the root's alone, and every pipeline reads them there; all that
belongs to a model lies in the folder of its pipeline.

What git keeps of each model can be read in any clone, without data and without a pull. A model's row of the
leaderboard, its part of the comparing figures and its place in the report come from these files alone:

- metrics/: `headline/NAME.json`, the few scores that DVC shows by default; `scores/NAME.json`, their standard errors
  `errors/NAME.json`, `features/NAME.json` (the distances by extractor, with errors), `per_class/NAME.json`. Of the root
  also `extractors.json`, the SHA-256 of each extractor's weights.
- plots/data/NAME/: `curves.tsv`; `samples.png`, a square of samples; `reconstructions.png`, of two test images of each
  class; `latents.tsv` with `latents.json`; `sweeps.tsv` and `epochs.tsv`, scores over a setting and over the training;
  `diagnostics/`, the numbers of a family's own findings.
  Of real images (`real`): test images in the place of samples and reconstructions, and the curves of the extractors.
- plots/figures/NAME/: the figures of one model; plots/comparison/: those of all.
- seeds.tsv: the scores of trainings with other seeds.
"""

from dataclasses import dataclass
from pathlib import Path

REAL = "real"  # real images in the place of samples: their scores lie beside those of the models
RAW = Path("data/raw")
TRAIN = Path("data/prepared/train.safetensors")
VALIDATION = Path("data/prepared/validation.safetensors")
TEST = Path("data/prepared/test.safetensors")
REAL_FEATURES = Path("data/features/real.safetensors")
EXTRACTOR_METRICS = Path("metrics/extractors.json")
EXTRACTOR_PREFIX = "extractor_"  # of their checkpoints beside those of the models
CODE = Path("code")  # of all pipelines; what depends on the models of one is in a folder of that name there
METRICS = ("headline", "scores", "errors", "features", "per_class")  # one file of each for each model


def extractor(name: str) -> Path:
    """Weights of a feature extractor."""
    return Path(f"models/extractors/{name}.safetensors")


def extractor_curves(name: str) -> Path:
    """Losses of a feature extractor per epoch; no rows if it was not trained here."""
    return Path(f"plots/training_extractors/{name}.tsv")


@dataclass(frozen=True)
class Pipeline:
    """The places of one pipeline; `folder` is relative to the repository."""

    folder: Path = Path()

    @property
    def params(self) -> Path:
        """The settings of its models; all other settings are the root's."""
        return self.folder / "params.yaml"

    @property
    def definition(self) -> Path:
        """Its stages."""
        return self.folder / "dvc.yaml"

    @property
    def code(self) -> Path:
        """What its stages depend on in the code of the families that its models are of."""
        return self.folder / CODE

    @property
    def params_checked(self) -> Path:
        """What `check_params` writes."""
        return self.folder / "data/params_checked.txt"

    @property
    def checkpoints(self) -> Path:
        """Unfinished trainings."""
        return self.folder / ".checkpoints"

    def lent(self, name: str) -> Path:
        """Weights of the extractor that the training of a model reads; no tensors if it reads none."""
        return self.folder / f"data/lent/{name}.safetensors"

    def model(self, name: str) -> Path:
        """Weights of a trained model."""
        return self.folder / f"models/{name}.safetensors"

    def released(self, name: str) -> Path:
        """A trained model with all that using it needs."""
        return self.folder / f"models/released/{name}.safetensors"

    def curves(self, name: str) -> Path:
        """Losses of a model per epoch."""
        return self.folder / f"plots/training/{name}.tsv"

    def previews(self, name: str) -> Path:
        """A picture of what a model makes after each epoch: 0.png, 1.png, ..."""
        return self.folder / f"plots/epochs/{name}"

    def kept(self, name: str) -> Path:
        """Samples that were kept after some epochs."""
        return self.folder / f"data/epochs/{name}.safetensors"

    def generated(self, name: str) -> Path:
        """Everything that a trained model makes."""
        return self.folder / f"data/generated/{name}.safetensors"

    def scores(self, name: str) -> Path:
        """Scores of a model, or of real images."""
        return self.folder / f"data/scores/{name}.json"

    def metrics(self, kind: str, name: str) -> Path:
        """One of METRICS of a model, or of real images."""
        return self.folder / f"metrics/{kind}/{name}.json"

    def plot_data(self, name: str) -> Path:
        """What comparing figures are drawn from."""
        return self.folder / f"plots/data/{name}"

    def figures(self, name: str) -> Path:
        """The figures of one model."""
        return self.folder / f"plots/figures/{name}"

    @property
    def comparison(self) -> Path:
        """The figures of all models."""
        return self.folder / "plots/comparison"

    @property
    def all_curves(self) -> Path:
        """The losses of all models per epoch, in one table."""
        return self.folder / "plots/curves.tsv"

    @property
    def seeds(self) -> Path:
        """Scores of trainings with other seeds."""
        return self.folder / "seeds.tsv"

    @property
    def report(self) -> Path:
        """The report."""
        return self.folder / "report.pdf"


ROOT, ZOO = Pipeline(), Pipeline(Path("zoo"))
PIPELINES = {"": ROOT, "zoo": ZOO}
