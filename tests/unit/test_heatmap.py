"""A sweep as a picture."""

from __future__ import annotations

import importlib.util
import io
import math
from typing import Any

import pytest
from matplotlib import image

from tasks.errors import InvalidRequest
from worker.sweep import grid, heatmap
from worker.sweep.ranking import Outcome

GRID = grid.parse(["fast=1:3:1", "cost=0.1", "kind=a,$b_{"])


def outcomes(scores: list[float | None]) -> list[Outcome]:
    """Return outcomes of the grid's points, in their order."""
    return [Outcome(params, "succeeded", {}, score) for params, score in zip(GRID, scores, strict=True)]


@pytest.mark.parametrize(
    "scores",
    [
        [1, 2, 3, 4, 5, 6],
        [1, None, None, None, None, None],
        [None] * 6,
        [2] * 6,
        [1e100, -1e100, 0, 0, 0, 0],
        [10**20, 1, 2, 3, 4, 5],
    ],
)
def test_it_is_a_picture(scores: list[float | None]) -> None:
    """Whatever the scores and whatever the names, of which none is a formula; without a warning."""
    drawn = heatmap.png(GRID, outcomes(scores), by="sharpe$_{", title="a$b\udcff.py")
    assert drawn.startswith(b"\x89PNG")
    height, width, _ = image.imread(io.BytesIO(drawn)).shape
    assert (width, height) == (960, 720)


def test_the_same_sweep_is_the_same_file() -> None:
    """It can be kept under version control; another best one shows."""
    one, other = [1, 2, 3, 4, 5, 6], [6, 2, 3, 4, 5, 1]
    drawn = [heatmap.png(GRID, outcomes(list(scores)), by="x", title="x") for scores in (one, one, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_rows_are_the_first_parameter() -> None:
    """Where there is no score there is nothing."""
    found = {(one.params["fast"], one.params["kind"]): one for one in outcomes([1, 2, None, 4, 5, 6])}
    rows = heatmap.scores([1, 2, 3], ["a", "$b_{"], found)
    assert [["" if math.isnan(score) else score for score in row] for row in rows] == [[1, 2], ["", 4], [5, 6]]


@pytest.mark.parametrize(("texts", "count"), [(["a=1,2"], 1), (["a=1,2", "b=1,2", "c=1,2"], 3), (["a=1", "b=1"], 0)])
def test_it_needs_two_directions(texts: list[str], count: int) -> None:
    """Said before the sweep; a parameter with one value does not count."""
    reason = f"^--heatmap: exactly two parameters must have more than one value, here {count} do$"
    with pytest.raises(InvalidRequest, match=reason):
        heatmap.two_axes(grid.parse(texts))
    assert heatmap.two_axes(GRID) == ("fast", "kind")


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the sweep."""

    def find(name: str, *_: Any) -> None:
        assert name == "matplotlib"

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(
        InvalidRequest, match=r"^--heatmap: matplotlib is not installed: pip install 'stratbox\[plot\]'$"
    ):
        heatmap.two_axes(GRID)
