"""Figures of a backtest, against the same computed in another way."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.report import figures
from worker.report.backtest import Backtest
from worker.report.figures import claims, contradicts, drawdowns, max_drawdown, measure, sharpe, shown

#: What an account may be worth, a broken one left out.
WORTH = st.floats(min_value=0.01, max_value=1e9)


def backtest(**printed: Any) -> Backtest:
    """Return what a strategy printed that printed this."""
    return Backtest.model_validate({"equity": [1.0]} | printed)


def signals(*actions: str) -> list[dict[str, Any]]:
    """Return signals with these actions."""
    return [{"date": "2024-01-02", "action": action, "price": 1.0} for action in actions]


@given(st.lists(WORTH, min_size=3, max_size=60))
def test_sharpe_is_mean_over_sample_deviation(equity: list[float]) -> None:
    """As the statistics module has both; a year has 252 bars."""
    returns = [equity[bar] / equity[bar - 1] - 1 for bar in range(1, len(equity))]
    deviation = statistics.stdev(returns)
    found = sharpe(equity)
    if deviation > 1e-9:
        assert found == pytest.approx(statistics.mean(returns) / deviation * math.sqrt(252), rel=1e-6, abs=1e-9)
    if len(set(equity)) == 1:
        assert found == 0.0


@given(st.lists(WORTH, min_size=1, max_size=60))
def test_max_drawdown_is_the_worst_of_all_pairs(equity: list[float]) -> None:
    """Bought at any bar and looked at in any later one, nothing is worse."""
    worst = min(later / equity[bar] - 1 for bar in range(len(equity)) for later in equity[bar:])
    assert max_drawdown(equity) == pytest.approx(worst, abs=1e-12)


@given(st.lists(WORTH, min_size=2, max_size=30), st.floats(min_value=0.001, max_value=1000))
def test_currency_does_not_matter(equity: list[float], rate: float) -> None:
    """Each figure is the same in another one; the return too, where the capital is said."""
    one = measure(backtest(equity=equity, capital=equity[0]))
    other = measure(backtest(equity=[rate * worth for worth in equity], capital=rate * equity[0]))
    assert one.total_return == pytest.approx(other.total_return, rel=1e-6, abs=1e-9)
    assert one.max_drawdown == pytest.approx(other.max_drawdown, abs=1e-9)


@pytest.mark.parametrize(
    ("equity", "expected"),
    [
        ([1.0, 1.1, 1.1 * 1.2, 1.1 * 1.2 * 0.9], 0.2 / 3 / statistics.stdev([0.1, 0.2, -0.1]) * math.sqrt(252)),
        ([1.0, 1.0, 1.0], 0.0),
        ([1.0, 2.0, 4.0, 8.0], None),
        ([1.0, 2.0], None),
        ([1.0], None),
        ([0.0, 0.0, 0.0], None),
        ([1.0, 0.0, 1.0], None),
        ([1.0, -1.0, 1.0], None),
        ([1e-300, 1e100, 1e-300, 1e100], None),
        ([1.0, 2.0, 0.0], 0.0),
    ],
)
def test_sharpe_by_hand(equity: list[float], expected: float | None) -> None:
    """None where there are no two returns, where they do not vary, or one is a return on nothing."""
    assert sharpe(equity) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("equity", "expected"),
    [
        ([1.0, 2.0, 1.0, 3.0, 2.4], -0.5),
        ([1.0, 2.0], 0.0),
        ([5.0], 0.0),
        ([2.0, -2.0], -2.0),
        ([0.0, 0.0], None),
        ([-1.0, -2.0], None),
        ([-1.0, 2.0, 1.0], None),
    ],
)
def test_max_drawdown_by_hand(equity: list[float], expected: float | None) -> None:
    """Negative, below -1 for what is in debt; None where there was never anything to lose."""
    assert max_drawdown(equity) == expected


def test_drawdowns_are_one_a_bar() -> None:
    """NaN until the equity is above zero."""
    found = drawdowns([-1.0, 0.0, 4.0, 3.0, 5.0])
    assert [None if math.isnan(one) else one for one in found] == [None, None, 0.0, -0.25, 0.0]


@pytest.mark.parametrize(
    ("printed", "start", "expected"),
    [
        ({"equity": [1.0, 1.5]}, 1.0, 0.5),
        ({"equity": [0.9995, 1.5]}, 1.0, 0.5),
        ({"equity": [100_000, 150_000], "capital": 100_000}, 100_000, 0.5),
        ({"equity": [99_000, 150_000], "capital": 100_000}, 100_000, 0.5),
        ({"equity": [10_000, 15_000]}, 10_000, 0.5),
        ({"equity": [0.5, 0.75]}, 0.5, 0.5),
        ({"equity": [1.0, -0.5]}, 1.0, -1.5),
        ({"equity": [0.0, 5.0]}, 0.0, None),
        ({"equity": [-3.0, 5.0]}, -3.0, None),
        ({"equity": [5e-324, 1e100]}, 5e-324, None),
    ],
)
def test_what_the_return_is_on(printed: dict[str, Any], start: float, expected: float | None) -> None:
    """The capital; else 1.0 if the equity begins there, but for costs; else the first equity, if it is anything."""
    found = measure(backtest(**printed))
    assert (found.start, found.total_return) == (start, expected)


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([], 0),
        (["BUY"], 0),
        (["BUY", "SELL"], 1),
        (["BUY", "SELL", "BUY"], 1),
        (["SELL", "BUY"], 1),
        (["BUY", "BUY", "SELL"], 1),
        (["BUY", "CLOSE"], 1),
        (["SELL_SPREAD", "CLOSE", "BUY_SPREAD", "CLOSE"], 2),
        (["CLOSE", "CLOSE", "BUY", "close_all"], 1),
        (["buy", "HOLD", "sell", "HOLD"], 1),
        (["HOLD", "", "§"], 0),
    ],
)
def test_round_trips_are_counted_from_signals(actions: list[str], expected: int) -> None:
    """What opens when flat is closed by its opposite or a CLOSE; of an unknown action nothing comes."""
    assert measure(backtest(signals=signals(*actions))).trades == expected


def test_trades_go_before_signals() -> None:
    """An open one is no completed one; who printed neither has no count."""
    entry = {"entry_date": "a"}
    trades = [entry | {"exit_date": "b"}, entry | {"exit_date": None}, entry]
    assert measure(backtest(trades=trades, signals=signals("BUY", "SELL") * 5)).trades == 1
    assert measure(backtest(trades=[], signals=signals("BUY", "SELL"))).trades == 0
    assert measure(backtest()).trades is None


@pytest.mark.parametrize(
    ("profits", "expected"),
    [([1.0, -1.0, 0.0, 2.0], 0.5), ([], None), ([1.0, None], None), ([0.0], 0.0), ([5.0], 1.0)],
)
def test_win_rate_needs_every_profit(profits: list[float | None], expected: float | None) -> None:
    """A profit of nothing is no win; an open trade does not count."""
    closed = [{"entry_date": "a", "exit_date": "b", "profit": profit} for profit in profits]
    assert measure(backtest(trades=[*closed, {"entry_date": "c", "profit": 9.0}])).win_rate == expected


@pytest.mark.parametrize(
    ("figure", "claim", "expected"),
    [
        (0.393502, 0.3935, False),
        (0.393502, 0.39, False),
        (0.393502, 0.41, True),
        (0.393502, 39.35, True),
        (-0.279, 0.279, True),
        (21.978, 21.99, False),
        (21.978, 22.5, True),
        (25, 25.0, False),
        (25, 26.0, True),
        (25, 25.001, True),
        (0.5, math.inf, True),
        (0.5, 1e308, True),
        (None, 0.5, False),
    ],
)
def test_what_contradicts(figure: float | None, claim: float, *, expected: bool) -> None:
    """More than digits that rounding takes away; a count has none to lose."""
    assert contradicts(figure, claim) is expected


def test_only_numbers_are_claims() -> None:
    """Of the names a figure has; whatever else a strategy says of itself is not compared."""
    metrics = {"total_return": 1, "sharpe": "high", "max_drawdown": True, "trades": None, "win_rate": [1], "beta": 2.0}
    assert claims(metrics) == {"total_return": 1.0}
    assert claims({"sharpe": 10**400, "trades": -(10**400)}) == {"sharpe": math.inf, "trades": -math.inf}
    assert claims(None) == {}
    assert set(figures.CLAIMED) < set(figures.Figures.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "figure", "text"),
    [
        ("total_return", 0.3935, "+39.4%"),
        ("total_return", -0.2, "-20.0%"),
        ("total_return", 1234.5, "+123,450.0%"),
        ("total_return", 1e99, "+1.00e+101%"),
        ("max_drawdown", -0.279, "-27.9%"),
        ("win_rate", 0.84, "84.0%"),
        ("sharpe", 0.1992, "0.20"),
        ("sharpe", -1e9, "-1.00e+09"),
        ("trades", 12_524, "12,524"),
        ("bars", 200_000, "200,000"),
        ("sharpe", None, "—"),
    ],
)
def test_how_figures_are_written(name: str, figure: float | None, text: str) -> None:
    """Fractions as percent, no more digits than are read, and a dash for none."""
    assert shown(name, figure) == text
