"""Typed, closed configurations: an unknown key or a bad value is an error that names the key."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from generative.errors import PipelineError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, values: Any, *, where: str) -> Self:
        """Check `values` (a mapping) against this configuration.

        Args:
            values: what a params file holds.
            where: dotted name of the mapping, for example `models.vae`, used in messages.

        Raises:
            PipelineError: naming each wrong key, its value and what is allowed.
        """
        if not isinstance(values, dict):
            raise PipelineError(
                f"params: '{where}' is {values!r}, but must be a block with the keys "
                f"{', '.join(sorted(cls.model_fields))}."
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise PipelineError(" ".join(_sentences(cls, where, error.errors()))) from None


def _sentences(cls: type[Config], where: str, problems: list[Any]) -> list[str]:
    """One sentence for each wrong key; what the alternatives of a union want is joined by "or"."""
    sentences: dict[str, str] = {}
    for problem in problems:
        location = problem["loc"][:1] + tuple(part for part in problem["loc"][1:] if isinstance(part, int))
        key = ".".join([where, *map(str, location)])
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if problem["type"] == "extra_forbidden":
            sentences[key] = (
                f"params: unknown key '{key}'; allowed in '{where}': {', '.join(sorted(cls.model_fields))}."
            )
        elif problem["type"] == "missing":
            sentences[key] = f"params: '{key}' is missing."
        elif key in sentences:
            sentences[key] = f"{sentences[key].removesuffix('.')}, or {message}."
        else:
            sentences[key] = f"params: '{key}' is {problem['input']!r}, but {message}."
    return list(sentences.values())
