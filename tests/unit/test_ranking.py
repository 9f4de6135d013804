"""What is made of the output of a sweep's strategies, which may print anything."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from tasks import ErrorDetail, ExecutionResult, ExecutionStatus, Submission, SweepPoint
from tasks.errors import ExecutionLost
from worker.sweep.command import exit_code
from worker.sweep.ranking import Outcome, best_first, outcome_of, table, to_csv, to_json

S = ExecutionStatus


def point(outcome: Any, **params: Any) -> SweepPoint:
    """Return a point that ended so."""
    return SweepPoint(params, Submission("x", None), outcome)  # type: ignore[arg-type]


def printed(value: Any, by: str = "sharpe") -> Outcome:
    """Return what is made of a strategy that has printed this as JSON."""
    output = value if isinstance(value, str) else json.dumps(value)
    return outcome_of(point(ExecutionResult(status=S.SUCCEEDED, output=output), fast=5), by)


@pytest.mark.parametrize(
    ("value", "by", "score"),
    [
        ({"sharpe": 0.5}, "sharpe", 0.5),
        ({"sharpe": 2}, "sharpe", 2),
        ({"metrics": {"sharpe": 0.5}}, "sharpe", 0.5),
        ({"sharpe": 1, "metrics": {"sharpe": 0.5}}, "sharpe", 1),
        ({"sharpe": "high", "metrics": {"sharpe": 0.5}}, "sharpe", 0.5),
        ({"risk": {"tail": {"var": 3}}}, "risk.tail.var", 3),
        ({"metrics": {"risk": {"var": 3}}}, "metrics.risk.var", 3),
        ({"metrics": {"risk": {"var": 3}}}, "risk.var", 3),
        ("progress\nmore\n" + json.dumps({"sharpe": 4}), "sharpe", 4),
    ],
)
def test_the_score_is_found(value: Any, by: str, score: float) -> None:
    """In the printed object, by a path, or in its `metrics`; the first lines may be talk."""
    one = printed(value, by)
    assert (one.score, one.error) == (score, "")
    assert one.metrics[by] == score


@pytest.mark.parametrize(
    "value",
    [
        {},
        [1],
        1,
        None,
        {"sharpe": True},
        {"sharpe": None},
        {"sharpe": "1"},
        {"sharpe": {"x": 1}},
        {"sharpe": 1e200},
        {"sharpe": 10**4000},
        {"metrics": [1]},
        {"metrics": {"Sharpe": 1}},
    ],
)
def test_what_is_no_score(value: Any) -> None:
    """It has none, and says which was looked for."""
    one = printed(value)
    assert (one.score, one.error, one.status) == (None, "printed no number sharpe", "succeeded")


@pytest.mark.parametrize("output", ["", "hello", '{"sharpe": NaN}', '{"sharpe": 1e999}', "[" * 100_000])
def test_output_that_is_not_json(output: str) -> None:
    """Is told in one line."""
    one = printed(output)
    assert one.score is None
    assert one.error.startswith("the output is not JSON")
    assert "\n" not in one.error


def test_metrics_are_numbers_of_the_object_and_its_metrics() -> None:
    """Nothing else, not too many, and none with a name as long as a book."""
    value = {"bars": 7, "name": "x", "ok": True, "metrics": {"sharpe": 1.5, "bars": 8, "of": {"x": 1}}, "n" * 65: 1}
    assert printed(value).metrics == {"sharpe": 1.5, "bars": 7}
    many = printed({f"m{number}": number for number in range(1000)} | {"sharpe": 1})
    assert len(many.metrics) <= 51
    assert many.metrics["sharpe"] == 1


def test_how_a_point_failed() -> None:
    """Status and error, in one line; what it printed before does not count."""
    detail = ErrorDetail(type="ValueError", message="fast\nis slow", line=7)
    failed = ExecutionResult(status=S.FAILED, output='{"sharpe": 9}', error=detail)
    assert outcome_of(point(failed), "sharpe") == Outcome({}, "failed", error="ValueError: fast is slow (line 7)")
    assert outcome_of(point(ExecutionLost("no engine")), "sharpe") == Outcome({}, "lost", error="no engine")


def test_the_highest_is_first() -> None:
    """Of equals the earlier; who has no score has no place."""
    scores = [1.0, None, -3.0, 2.0, 1.0]
    outcomes = [Outcome({"n": number}, "succeeded", {}, score) for number, score in enumerate(scores)]
    assert [one.params["n"] for one in best_first(outcomes)] == [3, 0, 4, 2]


def test_table_shows_the_score_and_a_few_more() -> None:
    """Parameters first; a number that one point lacks leaves its place empty."""
    metrics = {"sharpe": 1.23456789, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    ranked = [Outcome({"fast": 5}, "succeeded", metrics, 1.23456789), Outcome({"fast": 6}, "succeeded", {"a": 7}, 1.0)]
    head, rows = table(ranked, "sharpe")
    assert head == ["fast", "sharpe", "a", "b", "c", "d"]
    assert rows == [["5", "1.23457", "1", "2", "3", "4"], ["6", "1", "7", "", "", ""]]


OUTCOMES = [
    Outcome({"fast": 5, "kind": "=1+1"}, "succeeded", {"sharpe": 0.5, "fast": 9}, 0.5),
    Outcome({"fast": 6, "kind": "b"}, "failed", error="@cmd: a,\n\x1b[2J"),
]


def test_json_has_every_point() -> None:
    """With parameters, status, numbers and error; one line each."""
    text = to_json(OUTCOMES).decode()
    assert json.loads(text) == [
        {
            "params": {"fast": 5, "kind": "=1+1"},
            "status": "succeeded",
            "metrics": {"sharpe": 0.5, "fast": 9},
            "error": None,
        },
        {"params": {"fast": 6, "kind": "b"}, "status": "failed", "metrics": {}, "error": "@cmd: a,\n\x1b[2J"},
    ]
    assert len(text.splitlines()) == 4


def test_csv_has_every_point_and_no_formula() -> None:
    """A number that is called like a parameter has a name of its own; what strategies say is text to a spreadsheet."""
    rows = list(csv.reader(io.StringIO(to_csv(OUTCOMES).decode(), newline="")))
    assert rows == [
        ["fast", "kind", "status", "sharpe", "metrics.fast", "error"],
        ["5", "'=1+1", "succeeded", "0.5", "9", ""],
        ["6", "b", "failed", "", "", "'@cmd: a, \\x1b[2J"],
    ]


def test_csv_heads_are_unique() -> None:
    """Also where a number has the name that another would get."""
    numbers = {"a": 1, "metrics.a": 2, "=x": 3, "'=x": 4, "error": 5}
    head = next(csv.reader(io.StringIO(to_csv([Outcome({"a": 0}, "succeeded", numbers, 1.0)]).decode())))
    heads = ["metrics.a", "metrics.metrics.a", "'=x", "metrics.'=x", "metrics.error"]
    assert head == ["a", "status", *heads, "error"]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome({}, "succeeded", score=1.0)] * 2, 0),
        ([Outcome({}, "succeeded", score=1.0), Outcome({}, "succeeded")], 1),
        ([Outcome({}, "succeeded", score=1.0), Outcome({}, "timed_out")], 1),
        ([Outcome({}, "succeeded", score=1.0), Outcome({}, "rejected")], 1),
        ([Outcome({}, "rejected")] * 2, 2),
        ([Outcome({}, "succeeded", score=1.0), Outcome({}, "lost")], 3),
        ([Outcome({}, "rejected"), Outcome({}, "lost")], 3),
    ],
)
def test_exit_code(outcomes: list[Outcome], code: int) -> None:
    """0 when every point has its number, 2 when all were refused, 3 when one was lost, else 1."""
    assert exit_code(outcomes) == code
