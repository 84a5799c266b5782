"""The entries of `models` in params.yaml, with the family that each names."""

from typing import Any

from generative.family import FamilyConfig, load_family
from stages.common.params import Params


def read_model(params: Params, name: str) -> tuple[FamilyConfig, Any]:
    """The settings of one model and the module of its family.

    Raises:
        SettingError: no such model or family, or naming each missing, unknown or wrong key.
    """
    return parse_model(params.item("models", name), where=f"models.{name}")


def parse_model(block: dict[str, Any], *, where: str) -> tuple[FamilyConfig, Any]:
    """The settings in `block`, which stands at `where` in the params, and the module of the family it names.

    Raises:
        SettingError: no such family, or naming each missing, unknown or wrong key.
    """
    family = load_family(block.get("family"), where=where)
    config: FamilyConfig = family.Config.parse(block, where=where)
    return config, family
