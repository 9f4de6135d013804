"""How results look on a terminal. What a strategy printed is escaped: it cannot steer the reader's terminal."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from tasks.errors import InvalidRequest
from tasks.excerpt import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tasks.ledger import DeadSubmission
    from tasks.models import ExecutionResult, ExecutionStatus
    from tasks.validator import Violation

__all__ = [
    "STYLES",
    "check_output",
    "err",
    "moment",
    "out",
    "show_dead",
    "show_details",
    "show_line",
    "show_result",
    "show_table",
    "show_violations",
    "summary",
    "write",
]

#: Data goes to stdout, talk to stderr, so that a pipe gets only the data.
out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(soft_wrap=True, highlight=False, emoji=False, stderr=True)

STYLES: dict[ExecutionStatus | str, str] = {
    "succeeded": "green",
    "rejected": "magenta",
    "failed": "red",
    "timed_out": "yellow",
    "out_of_memory": "yellow",
    "crashed": "red",
    "cancelled": "blue",
}
#: Where no terminal sets a width: no line of a table is folded or cut.
_UNBOUNDED = 1_000_000


def moment(seconds: float) -> str:
    """Return seconds since the epoch as date and time, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(line: str) -> None:
    """Write a line of data to stdout as it is: rich would expand its tabs.

    Raises:
        InvalidRequest: it is closed.
    """
    check_output()
    out.file.write(f"{line}\n")
    # A full disk is told here, not by the interpreter on its way out.
    out.file.flush()


def check_output() -> None:
    """See whether there is a standard output.

    Raises:
        InvalidRequest: it is closed.
    """
    if sys.stdout is None:
        msg = "standard output is closed: send it somewhere"
        raise InvalidRequest(msg)


def show_result(result: ExecutionResult) -> None:
    """Print the strategy's output on stdout, and what became of it on stderr."""
    if result.output:
        write(printable(result.output.removesuffix("\n")))
    if result.stderr:
        err.print(escape(printable(result.stderr.removesuffix("\n"))), style="dim")
    err.print(summary(result))


def summary(result: ExecutionResult) -> str:
    """Describe a result in one line of rich markup."""
    metrics = result.metrics
    style = STYLES[result.status]
    parts = [f"[bold {style}]{result.status}[/]"]
    if result.error:
        parts.append(_cell(str(result.error)))
    if metrics.peak_memory_bytes:
        start = "warm" if metrics.warm else "cold"
        parts.append(
            f"[dim]{metrics.wall_seconds:.3f} s, CPU {metrics.cpu_seconds:.3f} s, "
            f"start-up {metrics.startup_seconds:.3f} s ({start}), peak {metrics.peak_memory_bytes / 2**20:.0f} MiB[/]"
        )
    if result.truncated:
        parts.append("[yellow]output cut at the limit[/]")
    return " · ".join(parts)


def show_violations(name: str, violations: tuple[Violation, ...]) -> None:
    """Print violations on stderr, each on a line that editors can jump to, with its hint below."""
    for violation in violations:
        where = f"{name}:{violation.line}:{violation.column}"
        err.print(f"{escape(where)} [bold magenta]{violation.rule}[/] {escape(printable(violation.message))}")
        err.print(f"    [dim]{escape(printable(violation.hint))}[/]")


def show_dead(found: Iterable[DeadSubmission]) -> None:
    """Print a table on stdout, in a pipe one line for each."""
    table = _table()
    for name in ("id", "user", "since"):
        table.add_column(name, no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold", min_width=30)
    for one in found:
        table.add_row(_cell(one.id), _cell(one.tenant), moment(one.since), f"{one.bytes:,}", _cell(one.reason))
    _print(table)


def show_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table of numbers on stdout, in a pipe one line for each row."""
    table = _table()
    for head in heads:
        table.add_column(_cell(head), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _print(table)


def show_line(status: str, text: str) -> None:
    """Print on stderr what ended with this status."""
    style = STYLES.get(status, "red")
    err.print(f"[bold {style}]{status}[/] {_cell(text)}")


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _print(table: Table) -> None:
    if not out.is_terminal:
        table.width = Measurement.get(out, out.options.update(width=_UNBOUNDED), table).maximum
    out.print(table)


def show_details(details: Mapping[str, str]) -> None:
    """Print what is known of something on stderr, a line for each."""
    for name, text in details.items():
        err.print(f"[dim]{name:<11}[/]{_cell(text)}")


def _cell(text: str) -> str:
    return escape(printable(text).replace("\n", " "))
