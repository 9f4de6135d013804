"""What goes where in the picture of a backtest."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.report.backtest import Backtest, Bars, Side
from worker.report.timeline import MAX_MARKS, MOST_TICKS, Mark, Timeline, arrange, thin, ticks

DAYS = [str(date(2024, 1, 1) + timedelta(day)) for day in range(40)]


def arranged(signals: Any, bars: Any = None, length: int = 40) -> Timeline:
    """Arrange (date, action, price), beside these bars."""
    printed = [{"date": day, "action": action, "price": price} for day, action, price in signals]
    backtest = Backtest.model_validate({"equity": [1.0] * length, "signals": printed})
    return arrange(backtest, bars and Bars.model_validate(bars))


def test_signals_stand_at_their_bars() -> None:
    """At their own price, beside the line of closes."""
    found = arranged([(DAYS[3], "BUY", 101), (DAYS[5], "SELL", 99)], {"date": DAYS, "close": [100.0] * 40})
    assert found.marks == (Mark(3, 101.0, Side.BUY), Mark(5, 99.0, Side.SELL))
    assert (found.close, found.dates, found.at_bars) == ((100.0,) * 40, tuple(DAYS), True)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("2024-01-04 00:00:00", "2024-01-04"), ("2024-01-04", "2024-01-04T00:00:00"), ("2024-01-04", "2024-01-04")],
)
def test_a_midnight_makes_no_difference(theirs: str, ours: str) -> None:
    """Of daily bars: strategies print it or not, data have it or not."""
    dates = [day + ours[10:] for day in DAYS]
    assert [mark.x for mark in arranged([(theirs, "BUY", 1)], {"date": dates, "close": [1] * 40}).marks] == [3]


def test_a_day_is_no_hour() -> None:
    """Of hourly bars a day names none."""
    hours = [f"2024-01-01 {hour:02}:00" for hour in range(24)]
    signals = [("2024-01-01", "BUY", 1), ("2024-01-01 05:00", "BUY", 1)]
    found = arranged(signals, {"date": hours, "close": [1] * 24}, length=24)
    assert [mark.x for mark in found.marks] == [5]
    assert found.notes == ("1 of 2 signals are not drawn: no bar has their date.",)


def test_without_data_signals_stand_in_order() -> None:
    """Nobody knows at which bar; a note says what --data would add."""
    found = arranged([(DAYS[3], "BUY", 7), (DAYS[9], "CLOSE", 8)])
    assert [(mark.x, mark.price) for mark in found.marks] == [(1, 7.0), (2, 8.0)]
    assert (found.at_bars, found.close, found.dates) == (False, None, ())
    assert found.notes == ("Without --data, the strategy's data file, there are no dates and no line of prices.",)


@pytest.mark.parametrize("bars", [None, {"close": [7.0] * 40}])
def test_numbers_of_bars_need_no_dates(bars: Any) -> None:
    """With or without data; one that no bar has is not drawn."""
    found = arranged([(3, "BUY", 7), ("5", "SELL", 7), (40, "BUY", 7), (-1, "BUY", 7)], bars)
    assert [mark.x for mark in found.marks] == [3, 5]
    assert found.at_bars
    assert found.notes[-1] == "2 of 4 signals are not drawn: no bar has their date."


def test_prices_of_something_else_are_not_drawn_beside_the_line() -> None:
    """As a pair's ratio is not the close of one of the two."""
    bars = {"date": DAYS, "close": [1000.0] * 40}
    pair = arranged([(DAYS[3], "BUY_SPREAD", 2.1), (DAYS[5], "CLOSE", 2.2)], bars)
    assert pair.close is None
    assert [mark.price for mark in pair.marks] == [2.1, 2.2]
    assert pair.notes == ("The signals' prices are not those of the data: the line of prices is left out.",)
    one_lie = arranged([(DAYS[3], "BUY", 1001), (DAYS[5], "SELL", 5000), (DAYS[7], "BUY", 999)], bars)
    assert one_lie.close is not None
    assert one_lie.marks[1].price == 5000


def test_gaps_in_the_data_are_gaps() -> None:
    """A close that is not there is neither drawn nor compared with."""
    found = arranged([(DAYS[1], "BUY", 5)], {"date": DAYS, "close": [None] * 39 + [0]})
    assert found.close is not None
    assert [math.isnan(price) for price in found.close] == [True] * 39 + [False]


def test_a_crowd_of_signals_is_thinned() -> None:
    """Evenly, and it is said."""
    found = arranged([(bar, "BUY", 1) for bar in range(9_000)], length=9_000)
    assert MAX_MARKS / 2 < len(found.marks) <= MAX_MARKS
    assert [mark.x for mark in found.marks[:3]] == [0, 5, 10]
    assert found.notes[-1] == "One signal in 5 is drawn."


@given(st.lists(st.floats(allow_infinity=False) | st.integers(-3, 3), max_size=300), st.integers(1, 20))
def test_a_thinned_line_keeps_its_extremes(values: list[float], parts: int) -> None:
    """Also its ends, the order, and no NaN; it is a few points for each part."""
    found = thin(values, parts)
    known = [position for position, value in enumerate(values) if math.isfinite(value)]
    assert found == sorted(set(found))
    assert set(found) <= set(known)
    assert len(found) <= 3 * parts + 1
    if known:
        assert (found[0], found[-1]) == (known[0], known[-1])
        for extreme in (min, max):
            assert extreme(values[bar] for bar in found) == extreme(values[bar] for bar in known)


def test_a_spike_of_one_bar_is_seen() -> None:
    """In 200,000 bars."""
    values = [0.0] * 200_000
    values[123_456] = 1.0
    assert 123_456 in thin(values)


@pytest.mark.parametrize(
    ("dates", "first", "count"),
    [
        ([f"{year}-06-{day:02}" for year in range(2000, 2020) for day in range(1, 29)], (28, "2001"), 10),
        ([f"{year}-06-{day:02}" for year in range(2000, 2006) for day in range(1, 29)], (28, "2001"), 5),
        ([f"2024-{month:02}-{day:02}" for month in range(1, 8) for day in range(1, 29)], (28, "2024-02"), 6),
        (DAYS, (1, "2024-01-02"), 10),
        ([f"2024-01-02 {hour:02}:30:00" for hour in range(24)], (0, "2024-01-02 00:30"), 12),
        (["same"] * 9, (0, "same"), 9),
        (["a"], (0, "a"), 1),
        (["\x1b\n$x$"], (0, r"\x1b $x$"), 1),
    ],
)
def test_where_dates_stand(dates: list[str], first: tuple[int, str], count: int) -> None:
    """Where years begin, or months, or days, else everywhere; never more than there is room for, on one line each."""
    found = ticks(dates)
    assert next(iter(found.items())) == first
    assert len(found) == count <= MOST_TICKS
