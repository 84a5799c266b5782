"""Typed, closed configurations: an unknown key or a bad value is an error that names the key."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from generative.errors import PipelineError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveInt = Annotated[int, Field(ge=1)]
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
            problems = [_sentence(cls, where, problem) for problem in error.errors()]
            raise PipelineError(" ".join(problems)) from None


def _sentence(cls: type[Config], where: str, problem: Any) -> str:
    key = ".".join([where, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(cls.model_fields))
        return f"params: unknown key '{key}'; allowed in '{where}': {allowed}."
    if problem["type"] == "missing":
        return f"params: '{key}' is missing."
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"params: '{key}' is {problem['input']!r}, but {message}."
