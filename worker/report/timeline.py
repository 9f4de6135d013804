"""What of a backtest goes where in its picture: bars, dates, signals. Standard library only."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.excerpt import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.report.backtest import Backtest, Bars, Side, Signal

__all__ = ["Mark", "Timeline", "arrange", "thin", "ticks"]

#: A picture is some thousand pixels wide; of each of these parts its first, lowest and highest value are drawn.
PARTS = 600
#: More triangles are a carpet, and a page of megabytes.
MAX_MARKS = 2_000
#: So many dates have room below a picture.
MOST_TICKS, FEWEST_TICKS = 12, 4
#: So many characters of an ISO date are its year, its month, its day.
YEAR, MONTH, DAY = 4, 7, 10
TICK_CHARS = 16
#: A fill differs from the close of its bar by the moves of a day; a price of something else by more.
SAME_PRICE = 0.25


@dataclass(frozen=True)
class Mark:
    """A signal in the picture."""

    x: float
    price: float
    side: Side


@dataclass(frozen=True)
class Timeline:
    """What the panel of prices shows, and what there is to know of it."""

    marks: tuple[Mark, ...]
    #: The closes, NaN where there is none; None where there is no line.
    close: tuple[float, ...] | None
    #: Whether marks stand at their bars. If not, they stand in order, on an axis of their own.
    at_bars: bool
    #: Below the bars; empty where they are numbers.
    dates: tuple[str, ...]
    #: For people: what is not in the picture, and why.
    notes: tuple[str, ...]


def arrange(backtest: Backtest, bars: Bars | None) -> Timeline:
    """Find the bar of each signal, and what the picture cannot show.

    Args:
        backtest: its signals.
        bars: that the strategy was given, as many as its equity has; None where nobody knows.
    """
    signals = backtest.signals or ()
    dates = bars.date or () if bars else ()
    known = _bars_by_date(dates or list(map(str, range(len(backtest.equity)))))
    found = [(known.get(signal.date, known.get(signal.date[:DAY])), signal) for signal in signals]
    placed = [(bar, signal) for bar, signal in found if bar is not None]
    # Where no bars are known, signals say at least what came after what.
    at_bars = bool(bars or placed or not signals)
    if not at_bars:
        placed = list(enumerate(signals, start=1))
    close = tuple(math.nan if price is None else price for price in bars.close) if bars else None
    theirs = close is None or _are_prices_of(placed, close)
    step = max(1, math.ceil(len(placed) / MAX_MARKS))
    notes = {
        "Without --data, the strategy's data file, there are no dates and no line of prices.": bars is None,
        f"{len(signals) - len(placed):,} of {len(signals):,} signals are not drawn: no bar has their date.": (
            len(placed) < len(signals)
        ),
        "The signals' prices are not those of the data: the line of prices is left out.": not theirs,
        f"One signal in {step} is drawn.": step > 1,
    }
    return Timeline(
        marks=tuple(Mark(bar, signal.price, signal.side) for bar, signal in placed[::step]),
        close=close if theirs else None,
        at_bars=at_bars,
        dates=dates,
        notes=tuple(note for note, holds in notes.items() if holds),
    )


def thin(values: Sequence[float], parts: int = PARTS) -> list[int]:
    """Return the positions of the values to draw, in order: extremes stay, NaN goes."""
    kept = [position for position, value in enumerate(values) if math.isfinite(value)]
    size = math.ceil(len(kept) / parts)
    if size <= 3:  # noqa: PLR2004  # nothing to gain
        return kept
    chosen = {kept[-1]}
    for start in range(0, len(kept), size):
        part = kept[start : start + size]
        chosen |= {part[0], min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(chosen)


def ticks(dates: Sequence[str]) -> dict[int, str]:
    """Return the bars below which a date stands, and its text: where a year begins, or a month, or a day."""
    for length in (YEAR, MONTH, DAY):
        begins = [bar for bar in range(1, len(dates)) if dates[bar][:length] != dates[bar - 1][:length]]
        if len(begins) >= FEWEST_TICKS:
            break
    else:
        begins, length = list(range(len(dates))), TICK_CHARS
    step = math.ceil(len(begins) / MOST_TICKS) or 1
    return {bar: " ".join(printable(dates[bar][:length]).split()) for bar in begins[::step]}


def _bars_by_date(dates: Sequence[str]) -> dict[str, int]:
    """Return the bar of each date; of daily bars also by the day alone, as pandas adds a midnight."""
    exact = {date: bar for bar, date in enumerate(dates)}
    days = {date[:DAY]: bar for bar, date in enumerate(dates)}
    return days | exact if len(days) == len(dates) else exact


def _are_prices_of(placed: Sequence[tuple[int, Signal]], close: Sequence[float]) -> bool:
    """Whether the signals' prices are about the closes of their bars; one that is far off alone may be a lie."""
    closes = [(close[place], signal.price) for place, signal in placed]
    gaps = [abs(price / known - 1.0) for known, price in closes if math.isfinite(known) and known != 0]
    return not gaps or statistics.median(gaps) <= SAME_PRICE
