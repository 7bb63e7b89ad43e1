"""Frozen, validated records for every TOML file and manifest."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from skipserve.errors import ConfigError

# Larger whole numbers are not exact in the JSON of every language.
LARGEST = 1 << 53
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Record(BaseModel):
    """A frozen record that rejects unknown keys and values of the wrong type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Grown(Record):
    """A record that got fields later.

    They are not written where they hold their default: an older skipserve reads what has none of
    them, and what was hashed before stays as it was.

    Attributes:
        LATER: Names of these fields.
    """

    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        same = {name for name in self.LATER if getattr(self, name) == fields[name].default}
        return {key: value for key, value in write(self).items() if key not in same}


R = TypeVar("R", bound=Record)


def parse(cls: type[R], values: Mapping[str, Any], where: str, keys: tuple[str, ...] = ()) -> R:
    """Build a record from parsed TOML or JSON.

    Args:
        cls: The record to build.
        values: The parsed mapping.
        where: Name of the file or section, for the error message.
        keys: Names that may be suggested for an unknown key beside the fields of ``cls``.

    Raises:
        ConfigError: Naming each offending key, what it held, and the nearest known key.
    """
    try:
        # JSON mode would accept "3" for 3; lists stand for tuples, so only those are lax.
        return cls.model_validate(_tuples(values))
    except ValidationError as error:
        lines = "; ".join(_explain(error, cls, keys))
        raise ConfigError(f"{where}: {lines}") from None


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _explain(error: ValidationError, cls: type[Record], keys: tuple[str, ...]) -> Iterator[str]:
    known = [*cls.model_fields, *keys]
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            name = str(problem["loc"][-1])
            choices = list(_fields_at(cls, problem["loc"][:-1])) or known
            near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(choices)}"
            yield f"unknown key {path!r}; {hint}"
        elif problem["type"] == "missing":
            yield f"key {path!r} is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            yield f"{path or 'value'} = {problem['input']!r}: {message}"


def _fields_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> Iterator[str]:
    for part in path:
        field = cls.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return
        if not issubclass(field.annotation, BaseModel):
            return
        cls = field.annotation
    yield from cls.model_fields
