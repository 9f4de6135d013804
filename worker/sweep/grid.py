"""The grid of a sweep, as a person writes it: `fast=5:50:5` from 5 to 50 in steps of 5, `kind=a,b,c` one by one."""

from __future__ import annotations

import itertools
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING

from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Grid", "Value", "parse"]

Value = int | float | bool | str

#: More are a mistake sooner than a sweep: at ten strategies a second it would take a quarter of an hour.
MAX_POINTS = 10_000
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")
#: With no more digits than Decimal computes with, and within what a float can hold.
_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,8})?|\.\d{1,8})([eE][+-]?\d{1,2})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_WORDS = {"true": True, "false": False}
_RANGE_PARTS = 3
#: Columns of the CSV that are there for each point.
_TAKEN = ("status", "error")


class Grid:
    """Parameters with the values of each, and all points that they make.

    Args:
        axes: values by name.

    Raises:
        InvalidRequest: there are more points than a sweep may have.
    """

    def __init__(self, axes: Mapping[str, Sequence[Value]]) -> None:
        self.axes = dict(axes)
        # Not len(self): it cannot return more than 2**63.
        if math.prod(map(len, self.axes.values())) > MAX_POINTS:
            sizes = " x ".join(f"{len(values):,}" for values in axes.values())
            msg = f"--grid: {sizes} points, a sweep may have {MAX_POINTS:,}: take larger steps"
            raise InvalidRequest(msg)

    def __len__(self) -> int:
        """Return how many points there are."""
        return math.prod(map(len, self.axes.values()))

    def __iter__(self) -> Iterator[dict[str, Value]]:
        """Give each point; the last parameter changes first."""
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))


def parse(texts: Iterable[str]) -> Grid:
    """Read what stands behind each `--grid`.

    Raises:
        InvalidRequest: one is not as it should be; the text says which and why.
    """
    axes: dict[str, Sequence[Value]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise _wrong(text, "write name=start:stop:step or name=value,value")
        if name in axes:
            raise _wrong(text, f"{name} has its values already")
        if name in _TAKEN:
            raise _wrong(text, f"{name} is what --csv calls a column of its own: give the parameter another name")
        axes[name] = _range(text, values) if ":" in values and "," not in values else _list(text, values)
    if not axes:
        msg = "--grid: give one or more, like fast=5:50:5 or kind=a,b,c"
        raise InvalidRequest(msg)
    return Grid(axes)


def _range(text: str, values: str) -> Sequence[Value]:
    parts = values.split(":")
    if not _looks_like_range(parts) or not Decimal(parts[2]):
        raise _wrong(text, "write start:stop:step, three numbers, and no step of 0")
    start, stop, step = map(Decimal, parts)
    steps = (stop - start) / step
    if steps < 0:
        raise _wrong(text, "with this step the stop is never reached")
    if steps >= MAX_POINTS:
        raise _wrong(text, f"{steps:,.0f} steps, a sweep may have {MAX_POINTS:,} points: take larger ones")
    whole = all(map(_INTEGER.fullmatch, parts))
    points = [_number(start + index * step, whole=whole) for index in range(int(steps) + 1)]
    if len(set(points)) < len(points):
        raise _wrong(text, "numbers so large cannot differ by this step: take a larger one, or integers")
    return points


def _looks_like_range(parts: Sequence[str]) -> bool:
    return len(parts) == _RANGE_PARTS and all(map(_NUMBER.fullmatch, parts))


def _list(text: str, values: str) -> Sequence[Value]:
    found = [_value(text, value.strip()) for value in values.split(",")]
    # Also 1, 1.0 and true: a dictionary, and a picture, take them for one.
    if len(set(found)) < len(found):
        raise _wrong(text, "a value is there twice; 1, 1.0 and true are equal")
    return found


def _value(text: str, value: str) -> Value:
    if not value:
        raise _wrong(text, "a value is missing")
    if _looks_like_range(value.split(":")):
        raise _wrong(text, f"{value} in a list is no range: write start:stop:step alone, or all values")
    if _NUMBER.fullmatch(value):
        return _number(Decimal(value), whole=bool(_INTEGER.fullmatch(value)))
    return _WORDS.get(value, value)


def _number(number: Decimal, *, whole: bool) -> int | float:
    """Return what JSON has for it: computed in decimals, 0.1 three times is 0.3."""
    return int(number) if whole else float(number)


def _wrong(text: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"--grid {text}: {reason}")
