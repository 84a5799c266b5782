"""What a model family is: the contract that every file in `generative/families/` fulfils.

A family file defines three classes with these names:

- `Config(FamilyConfig)`: its settings, in two blocks: `training`, and `sampling`, which changes no weights;
- `Model(GenerativeModel, ...)`: its networks, and what it can do: the classes in `generative/capabilities/`; made from
  the settings of the training and the number of classes;
- `Objective(TrainingObjective)`: its losses and optimizers, one update per batch (`generative.objective`);

`SMALL`: changes to the blocks `training` and `sampling` with which the tests train it in seconds; and if it likes

- `plain_step(config, num_classes, device)`: the update of a first tutorial for the same networks, which `make bench`
  compares with.

Nothing else in the project knows any family by name, but for the theory sheet, whose statements are about families.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from generative.config import BatchSize, Config, PositiveFloat, PositiveInt, Seed
from generative.data.splits import Split
from generative.plugins import available, load_plugin

PACKAGE = "generative.families"


class TrainingConfig(Config):
    """Settings of training that every family has: all that its weights depend on."""

    seed: Seed
    epochs: PositiveInt
    batch_size: BatchSize
    learning_rate: PositiveFloat
    sampled_epochs: list[PositiveInt] = Field(default_factory=list)  # whose samples are kept, and scored

    @model_validator(mode="after")
    def _sampled_epochs_are_among_all(self) -> Self:
        if any(epoch > self.epochs for epoch in self.sampled_epochs):
            raise ValueError(f"sampled_epochs must be at most epochs, {self.epochs}")
        return self

    def describe_schedule(self) -> str:
        """How long and how fast, for the report."""
        return f"{self.epochs} epochs of Adam, learning rate {self.learning_rate:g}, batches of {self.batch_size}"


class ReadsExtractor(TrainingConfig):
    """Settings of a training that looks at images through an extractor: its objective gets it as `extractor`."""

    extractor: str  # its name; the training runs again when its weights or its code change


class SamplingConfig(Config):
    """Settings of sampling and encoding, of a family that has none: they can change without a new training."""

    def limits(self, train_size: int) -> dict[str, int]:
        """By its name here, the greatest possible value of each setting that `train_size` training images limit."""
        return {}


class FamilyConfig(Config):
    """Settings that every family has; `training` and `sampling` become the family's own."""

    family: str
    training: TrainingConfig
    sampling: SamplingConfig = SamplingConfig()
    sweeps: dict[str, list[Any]] = Field(default_factory=dict)  # by a setting of `sampling`, values to be scored too
    footnotes: ClassVar[dict[str, str]] = {}  # by the name of a score, what a reader of the tables has to know of it

    @model_validator(mode="after")
    def _sweeps_are_of_settings(self) -> Self:
        for key, values in self.sweeps.items():
            if key not in type(self.sampling).model_fields:
                known = ", ".join(type(self.sampling).model_fields) or "none"
                raise ValueError(f"sweeps has '{key}', but the settings of sampling are: {known}")
            for value in values:
                self.sampling_with(key, value)
        return self

    def sampling_with(self, key: str, value: Any) -> SamplingConfig:
        """The settings of sampling with another value of one of them.

        Raises:
            ValueError: the value is none of that setting.
        """
        return type(self.sampling).model_validate(self.sampling.model_dump() | {key: value})

    @abstractmethod
    def describe(self) -> str:
        """What the model is and how it is trained, in one or two sentences for the report."""

    @abstractmethod
    def sources(self) -> list[str]:
        """The papers that the family implements: authors, year, short title, place."""


class GenerativeModel(nn.Module):
    """A trained model: its weights are all that later stages need. `generative/capabilities/` has what it can do."""

    def __init__(self, config: Any, num_classes: int) -> None:
        super().__init__()
        self.config = config  # the settings of the training
        self.num_classes = num_classes  # of the data; labels run from 0
        self.sampling: Any = None

    def prepare_sampling(self, sampling: Any, train: Split) -> None:
        """Take the settings `sampling`, and fit what they ask for to the training images; the weights stay as they are.

        Called on the device and in eval mode, after the weights are loaded; again for other settings.
        """
        self.sampling = sampling

    def fitted(self) -> dict[str, Tensor]:
        """What `prepare_sampling` fitted, by name: all that sampling and encoding need beside weights and settings."""
        return {}

    def restore_sampling(self, sampling: Any, fitted: dict[str, Tensor]) -> None:
        """Take the settings `sampling`, and what `fitted` returned for them, in the place of `prepare_sampling`."""
        self.sampling = sampling


def available_families() -> list[str]:
    """Names of the family files, sorted; none of them is imported."""
    return available(PACKAGE)


def load_family(name: Any, *, where: str) -> Any:
    """Import one family file and return the module; `where` is the block of settings that names it.

    Raises:
        SettingError: there is no such file.
    """
    return load_plugin(PACKAGE, name, key=f"{where}.family")
