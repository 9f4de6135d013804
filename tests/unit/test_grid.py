"""The grid of a sweep: what a person writes, and the points that come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InvalidRequest
from worker.sweep.grid import MAX_POINTS, parse

if TYPE_CHECKING:
    from decimal import Decimal


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x=5:50:15", [5, 20, 35, 50]),
        ("x=5:49:15", [5, 20, 35]),
        ("x=5:5:1", [5]),
        ("x=5:1:-2", [5, 3, 1]),
        ("x=-3:3:3", [-3, 0, 3]),
        ("x=0.1:0.5:0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("x=0:1:0.3", [0.0, 0.3, 0.6, 0.9]),
        ("x=1:2:0.5", [1.0, 1.5, 2.0]),
        ("x=1.0:3.0:1", [1.0, 2.0, 3.0]),
        ("x=1e-3:3e-3:1e-3", [0.001, 0.002, 0.003]),
        ("x=5", [5]),
        ("x=a,b,c", ["a", "b", "c"]),
        ("x= a , 2 ,2.50,-1e2, .5", ["a", 2, 2.5, -100.0, 0.5]),
        ("x=true,false,True", [True, False, "True"]),
        ("x=nan,inf,1_000,0x10,1e999,٣", ["nan", "inf", "1_000", "0x10", "1e999", "٣"]),
        ("x=09:30,10:00", ["09:30", "10:00"]),
        ("x=a=b", ["a=b"]),
        ("x=9007199254740992:9007199254740994:1", [2**53, 2**53 + 1, 2**53 + 2]),
    ],
)
def test_values(text: str, values: list[object]) -> None:
    """Integers stay integers, decimals have no drift, all else is text; the stop is there when a step meets it."""
    assert [(one, type(one)) for one in parse([text]).axes["x"]] == [(one, type(one)) for one in values]


@given(
    start=st.decimals(-100, 100, places=3),
    step=st.decimals("0.001", 10, places=3),
    count=st.integers(1, 50),
)
def test_decimals_are_those_that_were_written(start: Decimal, step: Decimal, count: int) -> None:
    """However many steps: each value is the float nearest to its decimal, and the stop is the last."""
    stop = start + step * (count - 1)
    values = parse([f"x={start}:{stop}:{step}"]).axes["x"]
    assert list(values) == [float(start + step * number) for number in range(count)]


def test_points_are_all_combinations() -> None:
    """In the order of the options, the last one changing first."""
    grid = parse(["fast=1,2", "kind=a,b,c"])
    assert len(grid) == 6
    assert list(grid)[:4] == [
        {"fast": 1, "kind": "a"},
        {"fast": 1, "kind": "b"},
        {"fast": 1, "kind": "c"},
        {"fast": 2, "kind": "a"},
    ]
    assert list(grid) == list(grid), "it can be gone through again"


NUMBERS = "write start:stop:step, three numbers, and no step of 0"
COINCIDE = "numbers so large cannot differ by this step: take a larger one, or integers"
TWICE = "a value is there twice; 1, 1.0 and true are equal"
FORM = "write name=start:stop:step or name=value,value"


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], "--grid: give one or more, like fast=5:50:5 or kind=a,b,c"),
        (["fast"], f"--grid fast: {FORM}"),
        (["=1"], f"--grid =1: {FORM}"),
        (["a b=1"], f"--grid a b=1: {FORM}"),
        (["1a=1"], f"--grid 1a=1: {FORM}"),
        (["x="], "--grid x=: a value is missing"),
        (["x=1,,2"], "--grid x=1,,2: a value is missing"),
        (["x=1,2,1"], f"--grid x=1,2,1: {TWICE}"),
        (["x=1,true"], f"--grid x=1,true: {TWICE}"),
        (["x=1,1.0"], f"--grid x=1,1.0: {TWICE}"),
        (["x=false,-0.0"], f"--grid x=false,-0.0: {TWICE}"),
        (["x=1:3:1,7"], "--grid x=1:3:1,7: 1:3:1 in a list is no range: write start:stop:step alone, or all values"),
        (
            ["status=1"],
            "--grid status=1: status is what --csv calls a column of its own: give the parameter another name",
        ),
        (["error=1"], "--grid error=1: error is what --csv calls a column of its own: give the parameter another name"),
        (["x=1", "x=2"], "--grid x=2: x has its values already"),
        (["x=1:2"], f"--grid x=1:2: {NUMBERS}"),
        (["x=1:2:3:4"], f"--grid x=1:2:3:4: {NUMBERS}"),
        (["x=1:b:1"], f"--grid x=1:b:1: {NUMBERS}"),
        (["x=1:2:0"], f"--grid x=1:2:0: {NUMBERS}"),
        (["x=1:2:0.000"], f"--grid x=1:2:0.000: {NUMBERS}"),
        (["x=0:inf:1"], f"--grid x=0:inf:1: {NUMBERS}"),
        (["x=0:nan:1"], f"--grid x=0:nan:1: {NUMBERS}"),
        (["x=2:1:1"], "--grid x=2:1:1: with this step the stop is never reached"),
        (["x=1:2:-1"], "--grid x=1:2:-1: with this step the stop is never reached"),
        (["x=0:1:1e-9"], "--grid x=0:1:1e-9: 1,000,000,000 steps, a sweep may have 10,000 points: take larger ones"),
        (
            ["x=1e17:100000000000000004:1"],
            f"--grid x=1e17:100000000000000004:1: {COINCIDE}",
        ),
        (["x=1:200:1", "y=1:100:1"], "--grid: 200 x 100 points, a sweep may have 10,000: take larger steps"),
        (
            [f"{name}=1:9999:1" for name in "abcde"],
            "--grid: 9,999 x 9,999 x 9,999 x 9,999 x 9,999 points, a sweep may have 10,000: take larger steps",
        ),
    ],
)
def test_what_is_no_grid(texts: list[str], reason: str) -> None:
    """One line that names the option and says what to write; nothing is built first."""
    with pytest.raises(InvalidRequest) as caught:
        parse(texts)
    assert str(caught.value) == reason


def test_the_largest_grid() -> None:
    """The bound itself is inside."""
    assert len(parse(["x=1:100:1", "y=1:100:1"])) == MAX_POINTS == len(parse([f"x=1:{MAX_POINTS}:1"]))
