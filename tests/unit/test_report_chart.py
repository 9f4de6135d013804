"""A backtest as a picture."""

from __future__ import annotations

import io
import random
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from matplotlib import image

from worker.report import chart
from worker.report.backtest import Backtest, Bars
from worker.report.timeline import arrange

EQUITY = [1.0, 1.1, 1.05, 1.2]
SIGNALS = [("a", "BUY"), ("b", "SELL"), ("c", "BUY"), ("d", "CLOSE"), ("d", "HOLD")]
BARS = {"date": ["a", "b", "c", "d"], "close": [1.0, 1.1, None, 1.0]}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(equity: Any = EQUITY, signals: Any = SIGNALS, bars: Any = BARS, price: float = 1.0) -> str:
    """Draw a backtest as SVG."""
    printed = [{"date": date, "action": action, "price": price} for date, action in signals]
    backtest = Backtest.model_validate({"equity": equity, "signals": printed})
    return chart.svg(backtest.equity, arrange(backtest, bars and Bars.model_validate(bars)))


def marks(svg: str) -> dict[str, int]:
    """Count the marks of each kind."""
    groups = {group.get("id", ""): group for group in ET.fromstring(svg).iter(f"{SVG}g")}
    kinds = [name for name in groups if name.startswith("signals-")]
    return {kind.removeprefix("signals-"): len(list(groups[kind].iter(f"{SVG}use"))) for kind in kinds}


def texts(svg: str) -> list[str]:
    """Return what is written in it."""
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_three_panels_and_a_mark_for_each_signal() -> None:
    """By kind, with a legend of those that there are, and the dates below."""
    svg = drawn()
    assert svg.startswith("<svg ")
    assert marks(svg) == {"buy": 2, "sell": 1, "close": 1, "other": 1}
    assert {"Price", "Equity", "Drawdown", "buy", "sell", "close", "other", "a", "d"} <= set(texts(svg))


def test_without_signals_and_data_there_are_no_prices() -> None:
    """Two panels, above numbers of bars."""
    svg = drawn(signals=[], bars=None)
    assert {"Equity", "Drawdown", "bar"} <= set(texts(svg))
    assert "Price" not in texts(svg)
    assert marks(svg) == {}


def test_signals_of_unknown_bars_have_an_axis_of_their_own() -> None:
    """Which says so."""
    assert {"signals, in order", "bar"} <= set(texts(drawn(bars=None)))


@pytest.mark.parametrize(
    "equity",
    [[1.0], [0.0] * 3, [-1.0, -2.0], [5.0] * 4, [1e100, -1e100, 1e-300, 0.0], [1.0, -1.0], [0.0, 1.0, 0.5]],
)
def test_whatever_the_equity_it_is_drawn(equity: list[float]) -> None:
    """Without a warning; also a bar alone."""
    bars = {"close": [1e100 if bar % 2 else -1e100 for bar in range(len(equity))]}
    assert "Drawdown" in texts(drawn(equity=equity, bars=None))
    assert "Price" in texts(drawn(equity=equity, signals=[(0, "BUY")], bars=bars, price=-1e100))


@pytest.mark.parametrize("date", ["$x_{$", "</text><script>", "\u202e\x00", "日本", "&lt;", "\n\n\n", r"\$"])
def test_a_date_is_text(date: str) -> None:
    """Neither a formula nor markup, nor anything that turns the text around."""
    svg = drawn(bars=BARS | {"date": [date, "b", "c", "d"]}, signals=[(date, "BUY")])
    assert marks(svg) == {"buy": 1}
    shown = date.replace("\u202e\x00", r"\u202e\x00").strip()
    assert shown == "" or shown in texts(svg)
    assert "<script" not in svg


def test_the_same_backtest_is_the_same_file() -> None:
    """Neither names nor dates of the moment are in it, and the reader's own settings of matplotlib do not count."""
    first = drawn()
    with mpl.rc_context({"font.size": 30, "axes.titlecolor": "red", "lines.linestyle": "--"}):
        assert drawn() == first
    assert drawn(equity=[1.0, 1.1, 1.05, 1.3]) != first


def test_many_bars_make_a_small_picture() -> None:
    """As many as there may be, with as many signals; less than a megabyte."""
    dice = random.Random(1)
    equity = [dice.random() for _ in range(200_000)]
    signals = [(bar, dice.choice(("BUY", "SELL"))) for bar in range(50_000)]
    svg = drawn(equity, signals, {"close": equity})
    assert len(svg) < 1_000_000
    assert sum(marks(svg).values()) == 2_000


@pytest.mark.parametrize("title", ["rsi · SP500", "$x_{$", "\n" * 200, "x" * 400, "日本\x1b[2J"])
def test_the_file_has_a_title(title: str) -> None:
    """Of whatever kind: a picture of always the same size, in which it is to be seen; without a warning."""
    backtest = Backtest.model_validate({"equity": EQUITY})
    timeline = arrange(backtest, None)
    content = chart.png(backtest.equity, timeline, title)
    height, width, _ = image.imread(io.BytesIO(content)).shape
    assert (width, height) == (1440, 840)
    assert content == chart.png(backtest.equity, timeline, title)
    assert (content == chart.png(backtest.equity, timeline, "")) is (not title.strip())
