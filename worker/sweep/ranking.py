"""What came of the points of a sweep: the numbers that were printed, which is best, and all of it as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from tasks.errors import ExecutionLost, OutputNotJSON
from tasks.excerpt import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tasks import SweepPoint
    from tasks.models import Violation

__all__ = ["LOST", "NOT_RUN", "Outcome", "best_first", "label", "outcome_of", "table", "to_csv", "to_json"]

#: The status of a point that has no result, and of one that was not submitted before the sweep was cut off.
LOST, NOT_RUN = "lost", "not_run"
#: Where the examples have their numbers; looked up after the printed object itself.
NESTED = "metrics"
#: A strategy prints up to a megabyte: of so many numbers, with names of so many characters, a sweep keeps note.
MAX_METRICS, MAX_NAME_CHARS = 50, 64
#: Larger ones are a mistake, and a picture of them would overflow.
MAX_NUMBER = 1e100
#: In the table there is room for so many beside the one that counts.
OTHER_COLUMNS = 4
#: Text that begins so is a formula to a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Outcome:
    """One point: its parameters, how it ended, and the numbers it printed."""

    params: Mapping[str, Any]
    #: One of `ExecutionStatus`, or `lost`, or `not_run`.
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    #: By which points are compared; None where there is none.
    score: float | None = None
    #: Why there is none, or how it failed; empty where all is well.
    error: str = ""
    violations: tuple[Violation, ...] = ()


def outcome_of(point: SweepPoint, by: str) -> Outcome:
    """Return what came of a point, to be compared by this key of what it printed."""
    result = point.outcome
    if isinstance(result, ExecutionLost):
        return Outcome(point.params, LOST, error=str(result))
    if not result.success:
        return Outcome(point.params, result.status, error=str(result.error), violations=result.violations)
    try:
        printed = result.json()
    except OutputNotJSON as exc:
        return Outcome(point.params, result.status, error=str(exc))
    metrics, score = _numbers(printed), _look_up(printed, by)
    if score is None:
        return Outcome(point.params, result.status, metrics, error=f"printed no number {by}")
    return Outcome(point.params, result.status, {by: score} | metrics, score)


def best_first(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return those that have a score, the highest first; of equals, the earlier."""
    return sorted((one for one in outcomes if one.score is not None), key=lambda one: -(one.score or 0))


def _look_up(printed: Any, path: str) -> float | None:
    for value in (printed, printed.get(NESTED) if isinstance(printed, dict) else None):
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None  # noqa: PLW2901  # a step down
        if _is_number(value):
            return value
    return None


def _numbers(printed: Any) -> dict[str, float]:
    """Return the numbers of the printed object, and of its `metrics`."""
    if not isinstance(printed, dict):
        return {}
    nested = printed.get(NESTED)
    together = (nested if isinstance(nested, dict) else {}) | printed
    names = [name for name, value in together.items() if _is_number(value) and len(name) <= MAX_NAME_CHARS]
    return {name: together[name] for name in names[:MAX_METRICS]}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def label(params: Mapping[str, Any]) -> str:
    """Return parameters as a person wrote them."""
    return " ".join(f"{name}={value}" for name, value in params.items())


def table(ranked: Sequence[Outcome], by: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table: parameters, the score, and some of the other numbers."""
    names = list(ranked[0].params)
    others = [name for name in ranked[0].metrics if name != by][:OTHER_COLUMNS]
    rows = [
        [
            *(str(one.params[name]) for name in names),
            f"{one.score:.6g}",
            *(f"{one.metrics[name]:.6g}" if name in one.metrics else "" for name in others),
        ]
        for one in ranked
    ]
    return [*names, by, *others], rows


def to_json(outcomes: Sequence[Outcome]) -> bytes:
    """Return all points as one JSON list, a line each."""
    lines = (
        json.dumps({"params": one.params, "status": one.status, "metrics": one.metrics, "error": one.error or None})
        for one in outcomes
    )
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def to_csv(outcomes: Sequence[Outcome]) -> bytes:
    """Return all points as a table: parameters, status, numbers, error. None of it is a formula."""
    params = dict.fromkeys(name for one in outcomes for name in one.params)
    metrics = dict.fromkeys(name for one in outcomes for name in one.metrics)
    heads = _unique(metrics, {*params, "status", "error"})
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_cell, [*params, "status", *heads, "error"]))
    for one in outcomes:
        numbers = [one.metrics.get(name, "") for name in metrics]
        writer.writerow(map(_cell, [*(one.params.get(name, "") for name in params), one.status, *numbers, one.error]))
    return text.getvalue().encode()


def _unique(names: Iterable[str], taken: set[str]) -> list[str]:
    heads = []
    for name in names:
        head = _cell(name)
        while head in taken:
            head = f"{NESTED}.{head}"
        taken.add(head)
        heads.append(head)
    return heads


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value).replace("\n", " ")
    return f"'{text}" if text.startswith(FORMULA) else text
