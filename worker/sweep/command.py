"""The `stratbox sweep` command."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.client import StrategyClient
from tasks.document import DatasetRef
from tasks.errors import InvalidRequest
from tasks.excerpt import printable
from tasks.models import ExecutionStatus
from worker import display, files
from worker.interrupt import ending_signals_interrupt
from worker.options import Dataset, Seed, Timeout, User  # noqa: TC001  # typer needs them at run time
from worker.sweep import grid, heatmap
from worker.sweep.ranking import LOST, NOT_RUN, Outcome, best_first, label, outcome_of, table, to_csv, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tasks import SweepPoint

__all__ = ["exit_code", "sweep"]

SUCCEEDED, NOT_ALL, REFUSED, INFRASTRUCTURE = range(4)
#: What the examples print.
DEFAULT_KEY = "sharpe"
CUT_OFF = "it had not ended when the sweep was cut off"
NEVER_SUBMITTED = "the sweep was cut off before it was submitted"
#: Of those that have no place in the ranking, so many of each status are listed.
LISTED = 5

File = Annotated[Path, typer.Argument(help="The strategy, a Python file; each point is its `data['params']`.")]
Points = Annotated[
    list[str],
    typer.Option("--grid", help="NAME=START:STOP:STEP, STOP included, or NAME=VALUE,VALUE. Once for each parameter."),
]
Data = Annotated[Path | None, typer.Option(help="JSON file, an object. It is put into Redis once.")]
Key = Annotated[
    str, typer.Option(help="Compare by this number of the printed object, or of its `metrics`; a.b goes down.")
]
Top = Annotated[int, typer.Option(min=1, help="Show so many, the highest first.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write all points to this file, as a table.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write all points to this file.")]
Picture = Annotated[Path | None, typer.Option("--heatmap", help="Draw two parameters to this file, a PNG.")]


def sweep(
    file: File,
    points: Points,
    data: Data = None,
    dataset: Dataset = None,
    by: Key = DEFAULT_KEY,
    top: Top = 10,
    csv: Csv = None,
    json: Json = None,
    picture: Picture = None,
    user: User = "",
    timeout: Timeout = None,
    seed: Seed = None,
) -> None:
    """Run one strategy with every point of a grid, and show the best."""
    whole = grid.parse(points)
    if not by:
        msg = "--by: give the name of a number that the strategy prints"
        raise InvalidRequest(msg)
    code, shared = files.read(file), _shared(data, dataset)
    if picture:
        heatmap.two_axes(whole)
    files.check_outputs(filter(None, (csv, json, picture)), filter(None, (file, data)))
    ended: dict[str, Outcome] = {}
    submitted: set[str] = set()
    failures: list[str] = []
    with ending_signals_interrupt():
        try:
            with StrategyClient() as client:
                asked = _noting(whole, submitted)
                results = client.sweep(code, shared, asked, timeout=timeout, user_id=user, seed=seed)
                with contextlib.closing(results):  # whatever cuts it off, the rest is cancelled
                    _follow(results, len(whole), by, ended)
        finally:
            outcomes = [ended.get(_key(one)) or _cut_off(one, submitted) for one in whole]
            if ended:  # what there is, also of a sweep that was cut off
                # Files first: there may be nobody to show the table to.
                failures = _write(
                    (csv, lambda: to_csv(outcomes)),
                    (json, lambda: to_json(outcomes)),
                    (picture, lambda: heatmap.png(whole, outcomes, by=by, title=file.name)),
                )
                for failure in failures:
                    display.show_line("not written", failure)
                _show(outcomes, file, by, top)
    raise typer.Exit(exit_code(outcomes) or (NOT_ALL if failures else SUCCEEDED))


def _shared(data: Path | None, dataset: str | None) -> Any:
    files.check_source(data, dataset)
    if dataset is not None:
        return DatasetRef(dataset, 0)
    if data is None:
        return None
    if not isinstance(content := files.read_json(data), dict):
        msg = f"{data}: must hold an object, in which each point becomes the key `params`"
        raise InvalidRequest(msg)
    return content


def _noting(points: Iterable[dict[str, Any]], submitted: set[str]) -> Iterator[dict[str, Any]]:
    """Give each point, and note it when the next is asked for: by then it is submitted."""
    for one in points:
        yield one
        submitted.add(_key(one))


def _write(*outputs: tuple[Path | None, Callable[[], bytes]]) -> list[str]:
    """Write each file that is wanted, and return which could not be and why."""
    failures = []
    for path, content in outputs:
        if path is None:
            continue
        try:
            files.write(path, content())
        except Exception as exc:  # noqa: BLE001  # a picture that cannot be drawn must not cost the rest
            failures.append(str(exc) if isinstance(exc, InvalidRequest) else f"{path}: {exc}")
    return failures


def _follow(results: Iterable[SweepPoint], total: int, by: str, ended: dict[str, Outcome]) -> None:
    """Take down each point as it ends, and on a terminal how far the sweep is."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    best: Outcome | None = None
    without = 0
    with Progress(*columns, console=display.err, transient=True, disable=not display.err.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        for point in results:
            ended[_key(point.params)] = one = outcome_of(point, by)
            without += one.score is None
            best = max(filter(None, (best, one)), key=lambda each: -math.inf if each.score is None else each.score)
            text = f"{without} without {by}, best {_score(best)}" if without else f"best {_score(best)}"
            progress.update(bar, advance=1, description=text)


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))


def _cut_off(params: Mapping[str, Any], submitted: set[str]) -> Outcome:
    if _key(params) in submitted:
        return Outcome(params, ExecutionStatus.CANCELLED, error=CUT_OFF)
    return Outcome(params, NOT_RUN, error=NEVER_SUBMITTED)


def _score(one: Outcome) -> str:
    return "none yet" if one.score is None else f"{one.score:.6g}: {label(one.params)}"


def _show(outcomes: Sequence[Outcome], file: Path, by: str, top: int) -> None:
    """Print the best on stdout, and on stderr what has no place among them, by status, and a count of all."""
    ranked = best_first(outcomes)
    if ranked:
        display.show_table(*table(ranked[:top], by))
    if exit_code(outcomes) == REFUSED:
        display.show_violations(str(file), outcomes[0].violations)
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        if one.score is None:
            groups.setdefault(one.status, []).append(one)
    for group in groups.values():
        for one in group[:LISTED]:
            display.show_line(one.status, f"{label(one.params)}: {one.error}")
        if len(group) > LISTED:
            display.show_line(group[0].status, f"and {len(group) - LISTED:,} more: --csv or --json has them all")
    counts = Counter(one.status for one in outcomes)
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    best = f"; best {by} {_score(ranked[0])}" if ranked else _hint(outcomes, by)
    points = "1 point" if len(outcomes) == 1 else f"{len(outcomes):,} points"
    display.err.print(printable(f"{points}: {told}{best}"), markup=False)


def _hint(outcomes: Sequence[Outcome], by: str) -> str:
    printed = list(dict.fromkeys(name for one in outcomes for name in one.metrics))
    return f"; none printed a number {by}: use --by with one of {', '.join(printed[:LISTED])}" if printed else ""


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return what the command leaves with."""
    statuses = {one.status for one in outcomes}
    if LOST in statuses:
        return INFRASTRUCTURE
    if statuses == {ExecutionStatus.REJECTED}:
        return REFUSED
    return NOT_ALL if any(one.score is None for one in outcomes) else SUCCEEDED
