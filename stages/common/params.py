"""Reading the settings: the only code that opens params.yaml.

A stage reads the file once and asks for the blocks it needs, which it gets checked and typed. `check_params` asks for
all of them. The models are those of the pipeline that the stage belongs to, and so is the block `report`; everything
else is the root's, so that all models are scored under one protocol.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from generative.compute.settings import ComputeConfig
from generative.config import Config
from generative.errors import PipelineError, SettingError
from stages.common.paths import EXTRACTOR_PREFIX, REAL, ROOT, Pipeline

OWN_BLOCKS = ("models", "report")  # of each pipeline

ConfigType = TypeVar("ConfigType", bound=Config)


class Params:
    """The settings of a pipeline, unchecked until a block is asked for."""

    def __init__(self, values: dict[str, Any], here: Pipeline = ROOT) -> None:
        self.values = values
        self.here = here

    def raw(self, name: str) -> Any:
        """The block `name`, unchecked.

        Raises:
            SettingError: there is none.
        """
        if name not in self.values:
            raise SettingError(f"the block '{name}' is missing from {self.file_of(name)}.")
        return self.values[name]

    def file_of(self, block: str) -> Path:
        """The file that has a block."""
        return (self.here if block in OWN_BLOCKS else ROOT).params

    def block(self, name: str, config_class: type[ConfigType]) -> ConfigType:
        """The block `name` as `config_class`.

        Raises:
            SettingError: naming each missing, unknown or wrong key.
        """
        return config_class.parse(self.raw(name), where=name)

    @property
    def compute(self) -> ComputeConfig:
        """The block `compute`."""
        return self.block("compute", ComputeConfig)

    @property
    def models(self) -> list[str]:
        """The names of the models, in the order of the file."""
        return list(self.items("models"))

    @property
    def extractors(self) -> list[str]:
        """The names of the extractors, in the order of the file: the first one's features head every table."""
        return list(self.items("extractors"))

    def items(self, block: str) -> dict[str, Any]:
        """The entries of the block `models` or `extractors`, each a mapping that is not checked yet.

        Raises:
            SettingError: there is none, a name cannot be used in file names, or an entry is no mapping.
        """
        items = self.raw(block)
        if not isinstance(items, dict) or not items:
            raise SettingError(f"'{block}' must be a block with at least one {block.removesuffix('s')}.")
        for name, item in items.items():
            if (
                not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", str(name))
                or name == REAL
                or name.startswith(EXTRACTOR_PREFIX)
            ):
                raise SettingError(
                    f"'{block}.{name}' is no possible name: use at most 64 lower-case letters, digits and _, and "
                    f"neither '{REAL}' nor anything that starts with '{EXTRACTOR_PREFIX}'."
                )
            if not isinstance(item, dict):
                raise SettingError(f"'{block}.{name}' is {item!r}, but must be a block of settings.")
        return items

    def item(self, block: str, name: str) -> dict[str, Any]:
        """The entry `name` of the block `models` or `extractors`.

        Raises:
            SettingError: there is no such entry.
        """
        items = self.items(block)
        if name not in items:
            raise SettingError(f"there is no {block.removesuffix('s')} '{name}'; there are: {', '.join(items)}.")
        entry: dict[str, Any] = items[name]
        return entry


def read_params(here: Pipeline = ROOT) -> Params:
    """The settings of the pipeline `here`.

    Raises:
        PipelineError: a file is missing or is no mapping in YAML.
        SettingError: a block stands in another file than it should.
    """
    values = _read_blocks(ROOT.params)
    if here != ROOT:
        own = _read_blocks(here.params)
        if foreign := [name for name in own if name not in OWN_BLOCKS]:
            raise SettingError(
                f"'{foreign[0]}' in {here.params} belongs into {ROOT.params}, whose settings hold for all pipelines."
            )
        values = {name: value for name, value in values.items() if name not in OWN_BLOCKS} | own
    return Params(values, here)


def _read_blocks(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise PipelineError(f"{path} must be a mapping of blocks such as 'models'.")
    return values


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, unchecked, read by the parser that DVC reads it with.

    Raises:
        PipelineError: the file is missing or is not YAML.
    """
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing here: run from the folder that holds it.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None


def wants_portable_bytes() -> bool:
    """The switch `compute.portable`, for a process that has yet to start; False where it cannot be read."""
    try:
        return read_params().compute.portable
    except PipelineError:
        return False
