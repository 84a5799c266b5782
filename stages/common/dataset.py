"""Which images everything is about: the blocks `data` and `prepare` of the settings."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from generative.config import Config, PositiveInt, Seed
from generative.data.sources import FILES
from stages.common.params import Params

FEWEST_SCORED = 100  # images that can be scored, and take the place of samples as real ones
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^\S(.*\S)?$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must be different names")
    return names


class DataConfig(Config):
    """A data set of grey images of 28 x 28 in IDX files (params: `data`)."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    source: str  # of the data, for the report; may be empty
    classes: Annotated[list[ClassName], Field(min_length=2), AfterValidator(_different)]  # by label, from 0
    files: dict[str, Sha256]  # the SHA-256 of each file's bytes, decompressed

    @model_validator(mode="after")
    def _names_every_file(self) -> Self:
        if set(self.files) != set(FILES):
            raise ValueError(f"files must be the SHA-256 of each of {', '.join(FILES)}")
        return self


class PrepareConfig(Config):
    """How the training images are divided, and how many test images count (params: `prepare`).

    Each a multiple of the number of classes, which `check_params` sees to.
    """

    seed: Seed
    train_size: Annotated[int, Field(ge=FEWEST_SCORED)]
    validation_size: PositiveInt
    test_size: Annotated[int, Field(ge=FEWEST_SCORED)]


def read_dataset(params: Params) -> DataConfig:
    """The block `data`.

    Raises:
        SettingError: naming each missing, unknown or wrong key.
    """
    return params.block("data", DataConfig)
