"""Payloads: test rows with known answers, and the mix of requests made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, TypeVar

import msgspec

from skipserve.errors import ConfigError
from skipserve.intervals import ratio, spelled

V = TypeVar("V")


class Pool(msgspec.Struct, frozen=True):
    """Rows of one model and the answers its artifact gives.

    Attributes:
        model: Name on the server.
        depth: Blocks of the model.
        width: Numbers in a row's answer.
        rows: Each as the JSON of every input.
        full: Each row's label at full depth; its answer, where the task decides nothing.
        routed: The same at the thresholds in force, by what is asked of the router.
        inputs: Names of the inputs.
        task: What an answer is, as JSON; empty: one of so many classes.
    """

    model: str
    depth: int
    width: int
    rows: list[tuple[str, ...]]
    full: list[Any]
    routed: dict[str, list[Any]] = {}
    inputs: tuple[str, ...] = ("inputs",)
    task: str = ""


class Choice(msgspec.Struct, frozen=True):
    """One kind of request.

    Attributes:
        model: Name on the server.
        router: ``default`` sends no router request; ``on``, ``off`` or a risk such as ``0.02``.
        rows: In one request.
        weight: Share of the requests, relative to the others.
    """

    model: str
    router: str = "default"
    rows: int = 1
    weight: float = 1.0

    def __str__(self) -> str:
        rows = "" if self.rows == 1 else f", {self.rows} rows"
        return f"{self.model}, router {self.router}{rows}"


def body(pool: Pool, choice: Choice, first: int) -> str:
    """The request for ``choice.rows`` rows from ``first`` on, starting over at the pool's end."""
    count = len(pool.rows)
    rows = [pool.rows[(first + offset) % count] for offset in range(choice.rows)]
    columns = [f"[{','.join(column)}]" for column in zip(*rows, strict=True)]
    # Named, because a model of texts or pictures reads a bare list as those.
    names = [msgspec.json.encode(name).decode() for name in pool.inputs]
    tensors = ",".join(f"{name}:{column}" for name, column in zip(names, columns, strict=True))
    inputs = f"{{{tensors}}}"
    if choice.router == "default":
        return f'{{"inputs":{inputs}}}'
    router = (
        f'"{choice.router}"' if choice.router in ("on", "off") else f'{{"risk":{choice.router}}}'
    )
    return f'{{"inputs":{inputs},"parameters":{{"router":{router}}}}}'


def parse_mix(models: str, router: str, rows: str) -> list[Choice]:
    """Every combination of the models, router settings and row counts, by their weights.

    Args:
        models: ``NAME`` or ``NAME=WEIGHT,NAME=WEIGHT``.
        router: ``default``, ``on``, ``off`` or a risk, weighted the same way.
        rows: Rows of a request, weighted the same way.

    Raises:
        ConfigError: If one cannot be parsed.
    """
    return [
        Choice(name, setting, count, name_weight * setting_weight * count_weight)
        for (name, name_weight), (setting, setting_weight), (count, count_weight) in product(
            _weights("model", models, _name).items(),
            _weights("router", router, _router).items(),
            _weights("rows", rows, _count).items(),
        )
    ]


def with_router_off(choices: list[Choice]) -> list[Choice]:
    """The mix at full depth, for the baseline."""
    return [msgspec.structs.replace(choice, router="off") for choice in choices]


def _weights(what: str, text: str, read: Callable[[str], V]) -> Mapping[V, float]:
    found: dict[V, float] = {}
    for part in text.split(","):
        name, equals, weight = (piece.strip() for piece in part.partition("="))
        try:
            value, share = read(name), float(weight) if equals else 1.0
            if not 0 < share < math.inf:
                raise ValueError(f"the weight must be a positive number, got {weight}")
        except ValueError as error:
            raise ConfigError(
                f"{what}: {part.strip()!r} is wrong ({error}); "
                "expected VALUE or VALUE=WEIGHT,VALUE=WEIGHT"
            ) from None
        found[value] = share
    return found


def _name(text: str) -> str:
    if not text:
        raise ValueError("the name is empty")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("expected a whole number of rows, 1 or more")
    return int(text)


def _router(text: str) -> str:
    if text in ("default", "on", "off"):
        return text
    try:
        risk = ratio(text)
    except ValueError:
        risk = -1.0
    if not 0 < risk < 1:
        raise ValueError("expected default, on, off or a risk between 0 and 1")
    return spelled(risk)
