"""Frozen, validated records for every TOML file and manifest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails

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


def parse(cls: type[R], values: Mapping[str, Any], where: str) -> R:
    """Build a record from parsed TOML or JSON.

    Args:
        cls: The record to build.
        values: The parsed mapping.
        where: Name of the file or section, for the error message.

    Raises:
        ConfigError: Naming each offending key, what it held, and the nearest known key.
    """
    try:
        # JSON mode would accept "3" for 3; lists stand for tuples, so only those are lax.
        return cls.model_validate(_tuples(values))
    except ValidationError as error:
        lines = "; ".join(_explain(error, cls))
        raise ConfigError(f"{where}: {lines}") from None


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _explain(error: ValidationError, cls: type[Record]) -> Iterator[str]:
    """A line for each key that is wrong; what several lines would repeat is said once."""
    expectations: dict[str, list[str]] = {}
    held: dict[str, str] = {}
    listed = False
    for problem in error.errors():
        place, _ = _place(cls, problem["loc"])
        path = ".".join(map(str, place))
        if problem["type"] == "extra_forbidden":
            *before, name = problem["loc"]
            (record,) = _records(_place(cls, before)[1])[:1]
            choices = list(record.model_fields)
            near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
            if near:
                yield f"unknown key {path!r}; did you mean {near[0]!r}?"
            elif listed:
                yield f"unknown key {path!r}"
            else:
                yield f"unknown key {path!r}; known keys: {', '.join(choices)}"
                listed = True
        elif problem["type"] == "missing":
            yield f"key {path!r} is missing"
        elif problem["type"] == "value_error":
            message, value = problem["msg"].removeprefix("Value error, "), problem["input"]
            of = path if isinstance(value, Mapping) else f"{path} = {shown(value)}"
            yield f"{of}: {message}" if path else message
        elif not _follows(problem):
            held.setdefault(path, shown(problem["input"]))
            expectations.setdefault(path, []).append(expected(problem))
    for path, told in expectations.items():
        either = " or ".join(dict.fromkeys(told))
        yield f"{path or 'value'} = {held[path]}: expected {either}"


def _follows(problem: ErrorDetails) -> bool:
    """Whether a list is too short only for its entries are wrong, which is said of them."""
    return problem["type"] == "too_short" and len(problem["input"]) > 0


# What a value should have been, by pydantic's name of the fault; in braces what it knows of it.
_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a section of keys"),
    "finite_number": "a finite number",
    "string_type": "a text in quotes",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} in the list",
    "too_long": "at most {max_length} in the list",
}
# Of texts, by their pattern.
PATTERNS = {
    "^[0-9a-f]{64}$": "a sha256 in hex",
    "^[0-9a-f]{32}$": "32 digits in hex",
    "^([a-z][a-z0-9_]*)?$": "small letters, digits and _, and a letter first",
    "^[A-Za-z0-9][A-Za-z0-9._:@+-]*$": "letters, digits and any of . _ : @ + -, and no sign first",
    "^[A-Za-z0-9][A-Za-z0-9_]*$": "letters, digits and _, and no _ first",
}


def expected(problem: ErrorDetails) -> str:
    """What a value should have been, in words that know no Python.

    Args:
        problem: One error of pydantic's.
    """
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "tuple_type":
        return f"a list, such as [{shown(value)}]" if isinstance(value, int | float) else "a list"
    if kind == "float_type" and isinstance(value, str) and re.fullmatch(r"\d+%", value):
        return f"a number, such as {int(value[:-1]) / 100}"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"a text like {context['pattern']}")
    if str(value) == "nan":  # it is in no range, and pydantic names the range
        return "a finite number"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**{key: _plain(one) for key, one in context.items()})
    return problem["msg"]


def shown(value: Any) -> str:
    """A value as TOML and JSON write it, cut where it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return _cut(f"[{', '.join(map(shown, value[:10]))}]")
    if isinstance(value, Mapping):
        return "{…}"
    return _cut(repr(value))


def _plain(value: Any) -> Any:
    """A whole number as people write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _place(cls: type[BaseModel], where: Sequence[int | str]) -> tuple[list[int | str], Any]:
    """The keys that lead to a value, and what it may be; pydantic names members of a union, too."""
    place: list[int | str] = []
    inside: Any = cls
    for part in where:
        records = _records(inside)
        if isinstance(part, int):
            place.append(part)
            continue
        of_kind = [one for one in records if _is_kind(one, part)]
        if len(records) > 1 and of_kind:  # the member of a union that its `kind` names
            inside = of_kind[0]
        elif records:
            place.append(part)
            field = records[0].model_fields.get(part)
            inside = None if field is None else field.annotation
        elif get_origin(inside) is dict:
            place.append(part)
            inside = None
    return place, inside


def _records(annotation: Any) -> list[type[BaseModel]]:
    """The records that a field may hold, also in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for one in get_args(annotation) for record in _records(one)]


def _is_kind(record: type[BaseModel], kind: str) -> bool:
    field = record.model_fields.get("kind")
    return field is not None and kind in get_args(field.annotation)
