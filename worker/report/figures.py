"""The figures of a backtest, computed from its equity. Standard library only.

A strategy's own `metrics` are claims: they are compared with what comes out here. What agrees with the examples, whose
metrics come from numpy and pandas, is the definition:

- a year has 252 bars, the risk-free rate is zero, the deviation is that of a sample;
- returns and drawdowns are fractions, a drawdown is negative;
- a flat equity has a Sharpe ratio of 0;
- a figure that is not defined, as of an equity that falls to zero on its way, is None.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.report.backtest import Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from worker.report.backtest import Backtest, Signal, Trade

__all__ = [
    "FRACTIONS",
    "Figures",
    "claims",
    "contradicts",
    "drawdowns",
    "max_drawdown",
    "measure",
    "round_trips",
    "sharpe",
    "shown",
    "win_rate",
]

BARS_PER_YEAR = 252
#: Without `capital` an equity starts from 1.0; one that begins further away than costs explain is in money.
NEAR_ONE = 0.1
#: What rounding leaves of a deviation that is none.
NOISE = 1e-12
#: What rounding to two digits may hide; of larger figures a thousandth.
TOLERANCE, RELATIVE_TOLERANCE = 0.005, 0.001
FRACTIONS = ("total_return", "max_drawdown", "win_rate")
#: Which of a strategy's `metrics` are compared.
CLAIMED = (*FRACTIONS, "sharpe", "trades")
#: Beyond, digits are noise: powers of ten.
MOST_DIGITS = 1e6


@dataclass(frozen=True)
class Figures:
    """What came of it. The names are those of the convention's `metrics`."""

    #: Fraction of `start`.
    total_return: float | None
    #: Annualised.
    sharpe: float | None
    #: Fraction of the highest equity before; negative.
    max_drawdown: float | None
    #: Completed round trips; None where neither trades nor signals were printed.
    trades: int | None
    #: Fraction of the completed trades whose profit is above zero.
    win_rate: float | None
    bars: int
    #: What the return is a return on.
    start: float


def measure(backtest: Backtest) -> Figures:
    """Compute all of them."""
    equity, start = backtest.equity, _start(backtest)
    return Figures(
        total_return=_finite(equity[-1] / start - 1.0) if start > 0 else None,
        sharpe=sharpe(equity),
        max_drawdown=max_drawdown(equity),
        trades=_completed(backtest),
        win_rate=win_rate(backtest.trades or ()),
        bars=len(equity),
        start=start,
    )


def sharpe(equity: Sequence[float]) -> float | None:
    """Return mean over deviation of the bars' returns, annualised."""
    returns = _returns(equity)
    if len(returns) < 2:  # noqa: PLR2004  # a deviation needs two
        return None
    mean = sum(returns) / len(returns)
    # Not `** 2`, which raises where a product is infinite.
    deviation = math.sqrt(sum((one - mean) * (one - mean) for one in returns) / (len(returns) - 1))
    if deviation < NOISE:
        return 0.0 if abs(mean) < NOISE else None
    return _finite(mean / deviation * math.sqrt(BARS_PER_YEAR))


def drawdowns(equity: Sequence[float]) -> list[float]:
    """Return for each bar how far it is below the highest one so far; NaN while none was above zero."""
    peaks = itertools.accumulate(equity, max)
    return [one / peak - 1.0 if peak > 0 else math.nan for one, peak in zip(equity, peaks, strict=True)]


def max_drawdown(equity: Sequence[float]) -> float | None:
    """Return the deepest; None where one bar has none."""
    found = drawdowns(equity)
    return min(found) if all(map(math.isfinite, found)) else None


def round_trips(signals: Iterable[Signal]) -> int:
    """Count positions that were opened and closed: when flat a BUY or SELL opens, the opposite or a CLOSE closes."""
    held, completed = None, 0
    for signal in signals:
        if held is None:
            held = signal.side if signal.side in (Side.BUY, Side.SELL) else None
        elif signal.side not in (held, Side.OTHER):
            held, completed = None, completed + 1
    return completed


def win_rate(trades: Iterable[Trade]) -> float | None:
    """Return how many of the completed trades won; None where there is none, or one does not say its profit."""
    profits = [trade.profit for trade in trades if trade.exit_date is not None]
    known = [profit for profit in profits if profit is not None]
    return sum(profit > 0 for profit in known) / len(known) if known and len(known) == len(profits) else None


def claims(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what a strategy says these figures are."""
    said = metrics or {}
    return {name: _float(said[name]) for name in CLAIMED if type(said.get(name)) in {int, float}}


def contradicts(figure: float | None, claim: float) -> bool:
    """Whether a claim says something else, and not only with other digits; a count has none."""
    if figure is None:
        return False
    tolerance = 0.0 if isinstance(figure, int) else max(TOLERANCE, RELATIVE_TOLERANCE * abs(figure))
    return not abs(figure - claim) <= tolerance


def shown(name: str, figure: float | None) -> str:
    """Return a figure as people read it."""
    if figure is None:
        return "—"
    if name in FRACTIONS:
        sign = "+" if name == "total_return" else ""
        return f"{figure:{sign},.1%}" if abs(figure) < MOST_DIGITS else f"{figure * 100:{sign}.2e}%"
    digits = ".2f" if name == "sharpe" else ",.6g"
    return f"{figure:{digits}}" if abs(figure) < MOST_DIGITS else f"{figure:.2e}"


def _start(backtest: Backtest) -> float:
    if backtest.capital is not None:
        return backtest.capital
    first = backtest.equity[0]
    return 1.0 if abs(first - 1.0) <= NEAR_ONE else first


def _returns(equity: Sequence[float]) -> list[float]:
    """Return the bars' returns; none at all where one would be a return on nothing."""
    if min(equity[:-1], default=0.0) <= 0:
        return []
    return [after / before - 1.0 for before, after in itertools.pairwise(equity)]


def _completed(backtest: Backtest) -> int | None:
    if backtest.trades is not None:
        return sum(trade.exit_date is not None for trade in backtest.trades)
    return None if backtest.signals is None else round_trips(backtest.signals)


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
