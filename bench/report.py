"""Results as tables, as the chart and the lines that README.md shows: `make bench-report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
CHART = HERE.parent / "docs" / "images" / "speed.png"
README = HERE.parent / "README.md"
PERFORMANCE = HERE.parent / "docs" / "performance.md"
BASELINE, OURS = "docker run", ("strict", "reuse")
BEGIN, END = "<!-- speed: make bench-report -->", "<!-- end of speed -->"
MEBIBYTE = 2**20
#: The heads of the tables.
IDLE = ("one at a time", "sooner than docker run", "p50 ms", "p95 ms", "p99 ms")
SATURATED = ("saturated", "times docker run", "at once", "strategies/s", "CPU ms each")
EVERY = ("saturated", "at once", "strategies/s", "least", "most", "CPU ms each")
BESIDES = ("besides", "")


def idle_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Contender, how much sooner than the baseline (median, and by the quarters), p50, p95, p99 in milliseconds."""
    base = next(one for one in results["idle"] if one["contender"] == BASELINE)["milliseconds"]
    rows: list[tuple[str, ...]] = []
    for one in results["idle"]:
        own = one["milliseconds"]
        low, high = base["p25"] / own["p75"], base["p75"] / own["p25"]
        times = (f"{own[name]:.1f}" for name in ("p50", "p95", "p99"))
        rows.append((one["contender"], f"{base['p50'] / own['p50']:.1f} x ({low:.1f} to {high:.1f})", *times))
    return rows


def saturated_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Contender and how many at once at its best, how many times the baseline's best, strategies/s, CPU of each."""
    best = _best(results)
    base = best[BASELINE]["per_second"]
    rows: list[tuple[str, ...]] = []
    for name, one in best.items():
        own, cpu = one["per_second"], one["cpu_seconds"]["p50"]
        low, high = own["least"] / base["most"], own["most"] / base["least"]
        ratio = f"{own['p50'] / base['p50']:.1f} x ({low:.1f} to {high:.1f})"
        rows.append((name, ratio, f"{one['at_once']}", f"{own['p50']:.1f}", f"{cpu * 1000:.0f}"))
    return rows


def _best(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for one in results["saturated"]:
        name = one["contender"]
        if name not in best or one["per_second"]["p50"] > best[name]["per_second"]["p50"]:
            best[name] = one
    return best


def other_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """All the rest, a line each."""
    broker, parts = results["broker"], results["anatomy"]
    queued = f"{broker['queued']:,}"
    phases = ", ".join(f"{name} {one['p50']:.0f}" for name, one in parts["phases"].items())
    deep = broker["deep_milliseconds"]["p50"] / broker["empty_milliseconds"]["p50"]
    flooded = broker["flooded_milliseconds"]["p50"] / broker["busy_milliseconds"]["p50"]
    return [
        ("submissions/s of one producer", f"{broker['submits_per_second']['p50']:,.0f}"),
        ("bytes in Redis for each queued", f"{broker['bytes_each']:,.0f}"),
        (f"p50 with {queued} queued for later, to that of an empty queue", f"{deep:.2f}"),
        (f"p50 behind {queued} of another user, to that behind 100", f"{flooded:.2f}"),
        ("start of a sandbox, ms", f"{parts['ready_milliseconds']['p50']:.0f} ({phases})"),
        ("memory of an idle sandbox, MiB", f"{parts['idle_bytes'] / MEBIBYTE:.0f}"),
        ("peak memory of the strategy, MiB, shared pages included", f"{parts['strategy_peak_bytes'] / MEBIBYTE:.0f}"),
        ("executor image, MB", f"{parts['image_bytes'] / 1e6:.0f}"),
        *((f"validator, {one['lines']:,} lines, ms", f"{one['median']:.1f}") for one in results["validator"]),
    ]


def every_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Contender, how many at once, strategies/s with the least and the most, CPU of each."""
    rows: list[tuple[str, ...]] = []
    for one in results["saturated"]:
        rate = one["per_second"]
        numbers = (f"{rate[name]:.1f}" for name in ("p50", "least", "most"))
        rows.append((one["contender"], f"{one['at_once']}", *numbers, f"{one['cpu_seconds']['p50'] * 1000:.0f}"))
    return rows


def sections(results: dict[str, Any]) -> list[tuple[tuple[str, ...], Sequence[tuple[str, ...]]]]:
    """Return head and rows of every table, those that README.md shows first."""
    return [
        (IDLE, idle_rows(results)),
        (SATURATED, saturated_rows(results)),
        (EVERY, every_rows(results)),
        (BESIDES, other_rows(results)),
    ]


def tables(results: dict[str, Any]) -> list[Table]:
    """Return the results as tables for a terminal."""
    found = []
    for head, rows in sections(results):
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        found.append(table)
    return found


def block(results: dict[str, Any], page: Path) -> str:
    """Return what stands in a page, from mark to mark: the ratios, or everything in docs/performance.md."""
    shown = sections(results) if page == PERFORMANCE else sections(results)[:2]
    machine = results["machine"]
    where = f"{machine['cpus']} CPUs ({machine['cpu']}), Docker {machine['engine']}, {results['when']}."
    return "\n\n".join([BEGIN, *(_markdown(head, rows) for head, rows in shown), where, END])


def _markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def chart(results: dict[str, Any], path: Path) -> None:
    """Draw how much faster than the baseline each contender is."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # installed for the chart only

    figure = Figure(figsize=(10, 2.8), layout="constrained")
    for axis, title, rows in zip(
        figure.subplots(1, 2),
        ("one at a time: times sooner than docker run", "saturated: times as many as docker run"),
        (idle_rows(results), saturated_rows(results)),
        strict=True,
    ):
        ratios = [float(row[1].split(" ")[0]) for row in rows]
        colours = ["#2a6fbb" if row[0].startswith(OURS) else "#b0b0b0" for row in rows]
        bars = axis.barh([row[0] for row in rows], ratios, color=colours)
        axis.bar_label(bars, labels=[f"{ratio:g} x" for ratio in ratios], padding=3)
        axis.set_xscale("log")
        axis.set_xlim(0.8, max(ratios) * 3)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Bring the chart and the pages up to date with the committed results."""
    results = json.loads(RESULTS.read_text())
    chart(results, CHART)
    for page in (README, PERFORMANCE):
        before, _, rest = page.read_text().partition(BEGIN)
        end, after = rest.partition(END)[1:]
        if not end:
            msg = f"{page.name} lacks the lines {BEGIN!r} and {END!r}: put them where the figures are to stand"
            raise SystemExit(msg)
        page.write_text(before + block(results, page) + after)


if __name__ == "__main__":
    main()
