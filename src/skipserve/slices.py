"""Slices of a model's traffic, each certified by itself: [router.slices] of a build file."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from pydantic import Field

from skipserve.errors import InputError
from skipserve.schema import Record

# Where a protocol has no place for parameters, a header says which slice a request is of.
HEADER = "x-skipserve-slice"
# What is of no declared slice.
OTHER = "other"
# Each has counts, a ledger and series of its own.
MOST = 64
LONGEST = 64
# Of a value: it stands in headers, labels and files, so it has no space, quote or comma.
PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$"
# Parameters of requests that mean something else.
_TAKEN = ("router", "router_measure", "binary_data_output")

Value = Annotated[str, Field(pattern=PATTERN, max_length=LONGEST)]


class Slice(Record):
    """One slice of a model's traffic, and what makes it the slice that it is.

    Attributes:
        parameter: Of a request.
        value: Of the parameter; ``other`` for every value that is not declared.
        values: All that are declared. What ``other`` is depends on them.
    """

    parameter: Annotated[str, Field(min_length=1)]
    value: str
    values: Annotated[tuple[Value, ...], Field(min_length=1)]

    def model_post_init(self, _context: Any) -> None:
        if self.value not in (*self.values, OTHER):
            raise ValueError(f"value = {self.value!r} is none of the declared ones, nor {OTHER!r}")


class Slices(Record):
    """Into which slices traffic falls: by the value that a request gives one parameter.

    Attributes:
        parameter: Of a request; empty where nothing is sliced.
        values: One a slice. All others, and requests without the parameter, are ``other``.
    """

    parameter: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*)?$", max_length=64)] = ""
    values: Annotated[tuple[Value, ...], Field(max_length=MOST)] = ()

    def model_post_init(self, _context: Any) -> None:
        if self.parameter in _TAKEN:
            raise ValueError(f"parameter = {self.parameter!r} says something else in a request")
        if bool(self.parameter) != bool(self.values):
            raise ValueError(
                "parameter and values belong together: parameter = 'tenant', "
                "values = ['acme', 'globex']"
            )
        if OTHER in self.values:
            raise ValueError(f"{OTHER!r} is what all undeclared values are; leave it out")
        twice = [value for value, count in Counter(self.values).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is declared twice; declare each value once")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all slices, ``other`` at the end; without slices, one empty name."""
        return (*self.values, OTHER) if self.values else ("",)

    def named(self, name: str) -> Slice | None:
        """A slice by its name; ``None`` for traffic that is one whole."""
        if not self.values:
            return None
        return Slice(parameter=self.parameter, value=name, values=self.values)

    def has(self, one: Slice | None) -> bool:
        """Whether traffic that falls into these slices has that one.

        What a declared value is does not change with the others; what ``other`` is does.

        Args:
            one: The slice; ``None`` for traffic that is one whole.
        """
        if one is None or not self.values:
            return one is None and not self.values
        same = one.value != OTHER or set(one.values) == set(self.values)
        return same and one.parameter == self.parameter and one.value in self.names

    def name_of(self, said: str | None) -> str:
        """The slice that a request is of.

        Args:
            said: The value of its parameter, or ``None``.

        Raises:
            InputError: If the value is longer than any that can be declared.
        """
        if not self.values:
            return ""
        if said is not None and len(said) > LONGEST:
            raise InputError(
                "invalid_parameter",
                f"{self.parameter} has {len(said)} characters, expected at most {LONGEST}",
            )
        return said if said is not None and said in self.values else OTHER


# Traffic that is one whole.
UNSLICED = Slices()


def sliced(model: str, of_slice: str) -> str:
    """The name of a slice in a sentence; without slices, the name of the model."""
    return f"{model} for {of_slice}" if of_slice else model
