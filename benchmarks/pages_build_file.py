"""The tables of docs/build-file.md, from the records that read a build file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import ExportConfig
from skipserve.networks.config import ConvNetConfig, EncoderConfig, MLPConfig
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.schema import Record
from skipserve.slices import Slices
from skipserve.sources.config import DataConfig, SourceConfig
from skipserve.tasks import TaskConfig
from skipserve.tasks.config import DecideConfig
from skipserve.training.config import TrainingConfig
from skipserve.training.tuning.config import TuningConfig

# Sections, and the records that read them: one, or one a value of `family`.
SECTIONS: dict[str, tuple[type[Record], ...]] = {
    "source": (SourceConfig,),
    "data": (DataConfig,),
    "task": (TaskConfig,),
    "task.decide": (DecideConfig,),
    "tuning": (TuningConfig,),
    "network": (
        MLPConfig,
        ConvNetConfig,
        EncoderConfig,
    ),
    "training": (TrainingConfig,),
    "export": (ExportConfig,),
    "exits": (ExitsConfig,),
    "router": (RouterConfig,),
    "router.slices": (Slices,),
    "serving": (ServingConfig,),
}
# Fields that a recipe or another section gives.
GIVEN = {"network": {"inputs", "classes"}, "router": {"slices"}, "task": {"decide"}}


def build_tables() -> dict[str, str]:
    """The table of each section, by the name of its place in the page."""
    return {
        f"build:{name}": "\n".join([*_table(name, records), "", ""])
        for name, records in SECTIONS.items()
    }


def _table(section: str, records: tuple[type[Record], ...]) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    common = set.intersection(*(set(one.model_fields) for one in records))
    for record in records:
        said = meanings(record)
        for key, field in record.model_fields.items():
            if key in GIVEN.get(section, ()) or (key in common and record is not records[0]):
                continue
            families = len(records) > 1
            value, default = values(field), _default(field)
            if families and key in common:
                value = ", ".join(dict.fromkeys(values(one.model_fields[key]) for one in records))
                default = _of_each(key, records)
            meaning = said.get(key, "")
            if families and key not in common:
                family = record.model_fields["family"].default
                meaning = f"`{family}`: {meaning or key}"
            yield f"| `{key}` | {value} | {default} | {meaning} |"


def meanings(record: type[Record]) -> dict[str, str]:
    """What the docstrings of a record and of those it extends say of each field."""
    found: dict[str, str] = {}
    for one in reversed(record.__mro__):
        _, _, attributes = (one.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", attributes, re.MULTILINE):
            found[name] = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return found


def values(field: FieldInfo) -> str:
    """What a field may hold, as a person would say it."""
    low = high = ""
    for one in field.metadata:
        low = f"≥ {one.ge:,}" if isinstance(one, Ge) else low
        low = f"> {one.gt:,}" if isinstance(one, Gt) else low
        high = f"≤ {one.le:,}" if isinstance(one, Le) else high
        high = f"< {one.lt:,}" if isinstance(one, Lt) else high
    return ", ".join(part for part in (_kind(field.annotation), low, high) if part)


def _kind(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inside)
    if origin is tuple:
        return f"list of {_kind(inside[0])}"
    if origin is dict:
        return "table"
    if hasattr(annotation, "__metadata__"):  # a number with a range, in a list or a union
        return values(FieldInfo.from_annotation(annotation))
    if inside:
        return " or ".join(_kind(one) for one in inside if one is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return "section"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[annotation]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "–"
    if field.default is PydanticUndefined:
        return "needed"
    return _toml(field.default)


def _of_each(key: str, records: tuple[type[Record], ...]) -> str:
    """The default of a key of several records, each named where they differ."""
    made = {one.model_fields["family"].default: _default(one.model_fields[key]) for one in records}
    if key == "family":
        return "`mlp`"
    if len(set(made.values())) == 1:
        return next(iter(made.values()))
    return ", ".join(f"{name}: {default}" for name, default in made.items())


def _toml(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return f"`[{', '.join(_toml(one).strip('`') for one in value)}]`"
    if isinstance(value, float):
        return f"`{value:.4g}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"
