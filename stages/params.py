"""Reading params.yaml: the only code that opens it.

A stage asks for the block it needs, and gets it checked and typed. `check_params` asks for all of them.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml

from generative.config import Config
from generative.errors import PipelineError
from stages.paths import EXTRACTOR_PREFIX

PARAMS = Path("params.yaml")
REAL = "real"  # real images in the place of samples: their scores lie beside those of the models

ConfigType = TypeVar("ConfigType", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers, as DVC reads them: 1e-3 is a number (YAML 1.1 takes it for a string)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$", re.ASCII),
    list("-+0123456789."),
)


def read_params() -> dict[str, Any]:
    """The whole of params.yaml, unchecked.

    Raises:
        PipelineError: the file is missing or is not YAML.
    """
    params = read_yaml(PARAMS)
    if not isinstance(params, dict):
        raise PipelineError(f"{PARAMS} must be a mapping of blocks such as 'compute' and 'models'.")
    return params


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, unchecked, with numbers as DVC reads them.

    Raises:
        PipelineError: the file is missing or is not YAML.
    """
    try:
        return yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing here: run from the folder that holds it.") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None


def read_block(name: str, config_class: type[ConfigType]) -> ConfigType:
    """The block `name` of params.yaml as `config_class`.

    Raises:
        PipelineError: naming each missing, unknown or wrong key.
    """
    return config_class.parse(get_block(read_params(), name), where=name)


def model_names() -> list[str]:
    """The keys of the block `models`, in the order of the file.

    Raises:
        PipelineError: there is no model, or a name cannot be used in file names.
    """
    return _names("models")


def extractor_names() -> list[str]:
    """The keys of the block `extractors`, in the order of the file: the first one's features head every table.

    Raises:
        PipelineError: there is no extractor, or a name cannot be used in file names.
    """
    return _names("extractors")


def _names(block: str) -> list[str]:
    items = get_block(read_params(), block)
    if not isinstance(items, dict) or not items:
        raise PipelineError(f"params: '{block}' must be a block with at least one {block.removesuffix('s')}.")
    for name in items:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", str(name)) or name == REAL or name.startswith(EXTRACTOR_PREFIX):
            raise PipelineError(
                f"params: '{block}.{name}' is no possible name: use lower-case letters, digits and _, and neither "
                f"'{REAL}' nor anything that starts with '{EXTRACTOR_PREFIX}'."
            )
    return list(items)


def wants_portable_bytes() -> bool:
    """The switch `compute.portable`, for a process that has yet to start; False where it cannot be read."""
    try:
        compute = read_params().get("compute")
    except PipelineError:
        return False
    return isinstance(compute, dict) and compute.get("portable") is True


def get_block(params: dict[str, Any], name: str) -> Any:
    """The block `name` of what `read_params` returned, unchecked.

    Raises:
        PipelineError: there is none.
    """
    if name not in params:
        raise PipelineError(f"params: the block '{name}' is missing from {PARAMS}.")
    return params[name]
