"""How long the validator takes for honest strategies of 100, 1,000 and 5,000 lines: by itself, or in `make bench`.

A strategy is put together from the statements of examples/, in their order, over and over. It is accepted, so that
every node is looked at, and nothing is kept from one repeat to the next.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.validator import ASTValidator

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LINES = (100, 1000, 5000)
REPEATS = 50
WARM_UPS = 3
#: What the project promises of a strategy of so many lines.
PROMISED_LINES, PROMISED_MILLISECONDS = 1000, 20.0


@dataclass(frozen=True)
class Timing:
    """One size of strategy and the times of all repeats: milliseconds of wall clock, and of CPU, which load spares."""

    lines: int
    nodes: int
    repeats: int
    median: float
    fastest: float
    p95: float
    slowest: float
    cpu_median: float


def strategy(lines: int) -> str:
    """Return a strategy of exactly so many lines, made of the examples' statements."""
    statements = list(_statements())
    single = itertools.cycle([text for text in statements if "\n" not in text])
    source: list[str] = []
    for text in itertools.cycle(statements):
        if len(source) + text.count("\n") + 1 > lines:
            break
        source += text.split("\n")
    source += itertools.islice(single, lines - len(source))
    return "\n".join(source) + "\n"


def _statements() -> list[str]:
    """Return the examples' top-level statements as text, without docstrings and what must stand first."""
    found = []
    for path in sorted(EXAMPLES.glob("*.py")):
        text = path.read_text()
        for node in ast.parse(text).body[1:]:
            if not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
                first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
                found.append("\n".join(text.split("\n")[first - 1 : node.end_lineno]))
    return found


def measure(lines: int, repeats: int) -> Timing:
    """Validate one strategy again and again, with a validator that is used once."""
    code = strategy(lines)
    times, cpu_times = [], []
    for _ in range(WARM_UPS + repeats):
        validator = ASTValidator()
        started, cpu_started = time.perf_counter(), time.thread_time()
        report = validator.validate(code)
        times.append((time.perf_counter() - started) * 1000)
        cpu_times.append((time.thread_time() - cpu_started) * 1000)
        if not report:
            msg = f"the strategy of {lines} lines is refused: {report.violations[0]}"
            raise SystemExit(msg)
    times = sorted(times[WARM_UPS:])
    return Timing(
        lines=code.count("\n"),
        nodes=sum(1 for _ in ast.walk(ast.parse(code))),
        repeats=repeats,
        median=statistics.median(times),
        fastest=times[0],
        p95=times[int(len(times) * 0.95)],
        slowest=times[-1],
        cpu_median=statistics.median(cpu_times[WARM_UPS:]),
    )


def show(timings: list[Timing]) -> None:
    """Print a table, and whether the promise holds."""
    table = Table(title=f"validator, Python {platform.python_version()}, milliseconds")
    for name in ("lines", "nodes", "median", "fastest", "p95", "slowest", "CPU", "lines/s"):
        table.add_column(name, justify="right")
    for one in timings:
        times = (f"{value:.2f}" for value in (one.median, one.fastest, one.p95, one.slowest, one.cpu_median))
        table.add_row(f"{one.lines:,}", f"{one.nodes:,}", *times, f"{one.lines / one.median * 1000:,.0f}")
    console = Console()
    console.print(table)
    median = next(one.median for one in timings if one.lines == PROMISED_LINES)
    holds = "yes" if median < PROMISED_MILLISECONDS else "no"
    console.print(f"{PROMISED_LINES:,} lines under {PROMISED_MILLISECONDS:g} ms: {holds} (median {median:.1f} ms)")


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description="Time the validator on honest strategies.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"for each size, {REPEATS} by default")
    options = parser.parse_args()
    timings = [measure(lines, options.repeats) for lines in LINES]
    if options.json:
        print(json.dumps({"python": platform.python_version(), "timings": [asdict(one) for one in timings]}))
    else:
        show(timings)


if __name__ == "__main__":
    main()
