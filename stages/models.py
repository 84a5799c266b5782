"""The entries of `models` in params.yaml, with the family that each names."""

from typing import Any

from generative.errors import PipelineError
from generative.family import FamilyConfig, load_family
from stages.params import get_block, model_names, read_params


def read_model(name: str) -> tuple[FamilyConfig, Any]:
    """The settings of one model and the module of its family.

    Raises:
        PipelineError: no such model or family, or naming each missing, unknown or wrong key.
    """
    if name not in model_names():
        raise PipelineError(f"params: there is no model '{name}'; there are: {', '.join(model_names())}.")
    return parse_model(get_block(read_params(), "models")[name], where=f"models.{name}")


def parse_model(block: Any, *, where: str) -> tuple[FamilyConfig, Any]:
    """The settings in `block`, which stands at `where` in the params, and the module of the family it names.

    Raises:
        PipelineError: no such family, or naming each missing, unknown or wrong key.
    """
    family = load_family(block.get("family") if isinstance(block, dict) else None, where=where)
    config: FamilyConfig = family.Config.parse(block, where=where)
    return config, family
