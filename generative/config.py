"""Typed, closed configurations: an unknown key or a bad value is an error that names the key."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from generative.errors import SettingError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]  # more would end hours later, for want of memory or time
NonNegativeInt = Annotated[int, Field(ge=0, le=1_000_000)]
PositiveFloat = Annotated[float, Field(ge=1e-30, le=1e30, allow_inf_nan=False)]  # what float32 can count with
NonNegativeFloat = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
BatchSize = Annotated[int, Field(ge=2, le=1_000_000)]  # batch normalisation has no statistics of one image


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, values: Any, *, where: str) -> Self:
        """Check `values` (a mapping) against this configuration.

        Args:
            values: settings as read from a file.
            where: dotted name of the mapping, for example `models.vae`, used in messages.

        Raises:
            SettingError: naming each wrong key, its value and what is allowed.
        """
        if not isinstance(values, dict):
            raise SettingError(_no_block(where, values, cls))
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingError(" ".join(_sentences(cls, where, error.errors()))) from None


def _no_block(key: str, value: Any, config: type[Config]) -> str:
    return f"'{key}' is {value!r}, but must be a block with the keys {', '.join(sorted(config.model_fields))}."


def _sentences(cls: type[Config], where: str, problems: list[Any]) -> list[str]:
    """One sentence for each wrong key; what the alternatives of a union want is joined by "or"."""
    sentences: dict[str, str] = {}
    for problem in problems:
        path, block = _locate(cls, problem["loc"])
        key = ".".join([where, *path])
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if problem["type"] == "extra_forbidden":
            around = ".".join([where, *path[:-1]])
            allowed = ", ".join(sorted(block.model_fields)) or "none"
            sentences[key] = f"unknown key '{key}'; allowed in '{around}': {allowed}."
        elif problem["type"] == "missing":
            sentences[key] = f"'{key}' is missing."
        elif problem["type"] == "model_type":
            sentences[key] = _no_block(key, problem["input"], block)
        elif key in sentences:
            sentences[key] = f"{sentences[key].removesuffix('.')}, or {message}."
        else:
            sentences[key] = f"'{key}' is {problem['input']!r}, but {message}."
    return list(sentences.values())


def _locate(cls: type[Config], location: tuple[int | str, ...]) -> tuple[list[str], type[Config]]:
    """The keys that lead to a problem, and the block that the last of them belongs to, or leads to if it is one.

    Pydantic also names the alternative of a union: that is no key.
    """
    path: list[str] = []
    block: type[Config] | None = cls
    owner = cls
    for part in location:
        if isinstance(part, int):
            path.append(str(part))
        elif block is not None:
            path.append(part)
            field = block.model_fields.get(part)
            inner = field.annotation if field else None
            block = inner if isinstance(inner, type) and issubclass(inner, Config) else None
            owner = block or owner
    return path, owner
