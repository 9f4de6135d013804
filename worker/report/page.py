"""The page of a backtest: one HTML file without scripts that asks nothing of any other host. Needs jinja2.

All text is a strategy's, or anybody's: it is escaped, and what is no character to read is shown as an escape.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from tasks.excerpt import printable
from tasks.models import MIB
from worker.report.chart import svg
from worker.report.figures import claims, contradicts, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.models import ExecutionResult
    from worker.report.backtest import Backtest
    from worker.report.figures import Figures
    from worker.report.timeline import Timeline

__all__ = ["Table", "Tile", "html", "table", "tiles", "title"]

#: Of trades or signals the last so many are listed.
LISTED = 200
#: Between these an amount is written with cents; of a pair the price is a ratio, smaller mostly.
CENTS_FROM, CENTS_BELOW = 10, 1e12
NAMES = {
    "total_return": "Total return",
    "sharpe": "Sharpe ratio",
    "max_drawdown": "Maximum drawdown",
    "trades": "Completed trades",
    "win_rate": "Win rate",
    "bars": "Bars",
}
#: Why there is no such figure.
UNDEFINED = {"trades": "no trades, no signals", "win_rate": "needs trades with\ntheir profit"}


@dataclass(frozen=True)
class Tile:
    """One figure."""

    key: str
    name: str
    #: None where it is not defined.
    value: float | None
    text: str
    note: str
    #: What the strategy says of it, where that is something else.
    claim: str = ""
    contradicted: bool = False


@dataclass(frozen=True)
class Table:
    """The last trades, or signals."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    #: How many there are in all.
    total: int


def html(result: ExecutionResult, backtest: Backtest, figures: Figures, timeline: Timeline) -> str:
    """Write the page.

    Args:
        result: how the strategy ran.
        backtest: what it printed.
        figures: computed from that.
        timeline: likewise, for the picture.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  # only who reports needs it
    from markupsafe import Markup  # noqa: PLC0415

    def plain(value: Any) -> Any:
        return value if isinstance(value, Markup) else printable(str(value))

    template = resources.files(__package__).joinpath("page.html.j2").read_text("utf-8")
    environment = Environment(
        autoescape=True, finalize=plain, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        backtest=backtest,
        title=title(backtest),
        tiles=tiles(backtest, figures, timeline.dates),
        picture=Markup(svg(backtest.equity, timeline)),  # noqa: S704  # matplotlib escapes what it writes
        notes=timeline.notes,
        table=table(backtest),
        run=_run(result),
    )


def title(backtest: Backtest) -> str:
    """Return what the strategy calls itself, and what it trades."""
    return " · ".join(filter(None, (backtest.strategy or "Backtest", backtest.symbol)))


def tiles(backtest: Backtest, figures: Figures, dates: Sequence[str] = ()) -> list[Tile]:
    """Return all figures with what there is to say of each."""
    said, notes = claims(backtest.metrics), _notes(backtest, figures, dates)
    found = []
    for key, name in NAMES.items():
        value: float | None = getattr(figures, key)
        contradicted = key in said and contradicts(value, said[key])
        claim = shown(key, said[key]) if contradicted or (value is None and key in said) else ""
        note = notes[key] if value is not None else UNDEFINED.get(key, "not defined for this equity")
        found.append(Tile(key, name, value, shown(key, value), note, claim, contradicted))
    return found


def table(backtest: Backtest) -> Table:
    """Return the trades, or else the signals, the last first."""
    if backtest.trades:
        trades = [
            (
                one.entry_date,
                _price(one.entry_price),
                one.exit_date or "open",
                _price(one.exit_price),
                _price(one.profit),
            )
            for one in backtest.trades[::-1][:LISTED]
        ]
        return Table("Trades", ("entry", "price", "exit", "price", "profit"), tuple(trades), len(backtest.trades))
    signals = backtest.signals or ()
    rows = tuple((one.date, one.action, _price(one.price)) for one in signals[::-1][:LISTED])
    return Table("Signals", ("date", "action", "price"), rows, len(signals))


def _notes(backtest: Backtest, figures: Figures, dates: Sequence[str]) -> dict[str, str]:
    return {
        "total_return": f"from {figures.start:,.6g}\nto {backtest.equity[-1]:,.6g}",
        "sharpe": "annualised",
        "max_drawdown": "below the highest\nequity before",
        "trades": "counted from the\nsignals" if backtest.trades is None else "the strategy's trades",
        "win_rate": "of the completed\ntrades",
        "bars": f"{dates[0]}\nto {dates[-1]}" if dates else "values of the equity",
    }


def _price(price: float | None) -> str:
    if price is None:
        return "—"
    return f"{price:,.2f}" if CENTS_FROM <= abs(price) < CENTS_BELOW else f"{price:.6g}"


def _run(result: ExecutionResult) -> dict[str, str]:
    metrics = result.metrics
    return {
        "status": str(result.status),
        "wall clock": f"{metrics.wall_seconds:.3f} s",
        "CPU": f"{metrics.cpu_seconds:.3f} s",
        "peak memory": f"{metrics.peak_memory_bytes / MIB:.0f} MiB",
        "output": "cut at the limit" if result.truncated else "complete",
    }
