"""The page of a backtest, as a browser's parser sees it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from tasks import ExecutionMetrics, ExecutionResult, ExecutionStatus
from worker.report import page
from worker.report.backtest import Backtest, Bars
from worker.report.figures import measure
from worker.report.page import LISTED, table, tiles, title
from worker.report.timeline import arrange

RESULT = ExecutionResult(
    status=ExecutionStatus.SUCCEEDED,
    metrics=ExecutionMetrics(wall_seconds=0.25, cpu_seconds=0.125, peak_memory_bytes=70 * 2**20),
)
#: What a page may consist of. Nothing that acts, nothing that fetches.
HARMLESS = set(
    "html head meta title style body main h1 p dl div dt dd data section figure h2 table thead tr th tbody td "
    "svg defs g path use text clippath rect".split()
)


class Seen(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.words)


def backtest(**printed: Any) -> Backtest:
    """Return what a strategy printed that printed this."""
    return Backtest.model_validate({"equity": [1.0, 1.1, 1.05, 1.2]} | printed)


def made(printed: Backtest, bars: Any = None, result: ExecutionResult = RESULT) -> Seen:
    """Make the page."""
    timeline = arrange(printed, bars and Bars.model_validate(bars))
    return Seen(page.html(result, printed, measure(printed), timeline))


def test_the_page_has_it_all() -> None:
    """Title, headline, figures, picture, trades, how it ran."""
    trade = {
        "entry_date": "2024-01-02",
        "entry_price": 1234.5,
        "exit_date": "2024-01-05",
        "exit_price": 2,
        "profit": -3,
    }
    seen = made(backtest(strategy="rsi", symbol="SP500", headline="return +20.0%", trades=[trade]))
    for text in (
        "rsi · SP500", "The strategy says: return +20.0%", "+20.0%", "Equity", "Drawdown",
        "2024-01-02", "1,234.50", "2024-01-05", "-3", "succeeded", "0.250 s", "0.125 s", "70 MiB", "complete",
    ):  # fmt: skip
        assert text in seen.text
    assert {name for name, value in seen.attributes if value == "total_return"} == {"id"}
    assert dict(seen.attributes)["http-equiv"] == "Content-Security-Policy"
    assert seen.elements <= HARMLESS


def test_output_that_was_cut_is_told() -> None:
    """The object came last, so it is whole; what was before it is not."""
    assert "cut at the limit" in made(backtest(), result=RESULT.model_copy(update={"truncated": True})).text


HOSTILE = [
    "<script>alert(1)</script>",
    "</svg></title></style><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "{{ 7 * 7 }}{% raw %}",
    "<!--",
    "]]><![CDATA[",
    "&lt;script&gt;",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_not_markup(text: str) -> None:
    """Wherever a strategy or the data can put it: it is read as it is written."""
    short = text[:39]
    signals = [{"date": short, "action": text, "price": 1}, {"date": "d", "action": "BUY", "price": 1}]
    trades = [{"entry_date": short, "exit_date": short}]
    bars = {"date": [short, "b", "c", short + " "], "close": [1, 1, 1, 1]}
    for printed in (
        backtest(strategy=text, symbol=text, headline=text, signals=signals, metrics={text: text}),
        backtest(strategy=text, trades=trades),
    ):
        seen = made(printed, bars)
        assert seen.elements <= HARMLESS
        assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "src"]
        assert {value for name, value in seen.attributes if name == "xlink:href" and not value.startswith("#")} == set()
        assert text in seen.text
        assert short in seen.text


def test_what_is_no_character_to_read_is_shown() -> None:
    """Nothing turns the text around, or hides in it."""
    seen = made(backtest(strategy="a\u202eb\x00c\u200bd\x1b[2J", headline="\u2066x"))
    assert r"a\u202eb\x00c\u200bd\x1b[2J" in seen.text
    assert r"\u2066x" in seen.text


def test_a_contradiction_is_plain() -> None:
    """Beside the figure; what agrees but for digits is not repeated."""
    printed = backtest(
        metrics={"total_return": 0.9, "sharpe": 99, "max_drawdown": -0.045, "trades": 3, "win_rate": 0.5}
    )
    found = {tile.key: (tile.claim, tile.contradicted) for tile in tiles(printed, measure(printed))}
    assert found == {
        "total_return": ("+90.0%", True),
        "sharpe": ("99.00", True),
        "max_drawdown": ("", False),
        "trades": ("3", False),
        "win_rate": ("50.0%", False),
        "bars": ("", False),
    }
    seen = made(printed)
    assert "the strategy says +90.0%" in seen.text
    assert [value for name, value in seen.attributes if name == "class"].count("tile contradicted") == 2


def test_figures_are_there_in_full() -> None:
    """For whoever reads the page with a program; a figure that is not defined has a dash and says why."""
    printed = backtest()
    figures = measure(printed)
    seen = made(printed)
    values = [value for name, value in seen.attributes if name == "value"]
    assert values == [str(figures.total_return), str(figures.sharpe), str(figures.max_drawdown), "", "", "4"]
    assert "no trades, no signals" in seen.text
    assert "not defined for this equity" in made(backtest(equity=[0.0, 1.0])).text


def test_the_dates_of_the_bars_are_told() -> None:
    """The first and the last."""
    text = made(backtest(), {"date": ["2024-01-02", "b", "c", "2024-01-05"], "close": [1, 2, 3, 4]}).text
    assert "2024-01-02\nto 2024-01-05" in text


def test_the_latest_are_listed() -> None:
    """So many, the last first, and how many there are; trades go before signals."""
    signals = [{"date": bar, "action": "BUY", "price": bar} for bar in range(1234)]
    found = table(backtest(signals=signals))
    assert (found.title, found.total, len(found.rows)) == ("Signals", 1234, LISTED)
    assert found.rows[0] == ("1233", "BUY", "1,233.00")
    assert found.rows[-1][0] == str(1234 - LISTED)
    assert "The last 200 of 1,234, the latest first." in made(backtest(signals=signals)).text
    trades = [{"entry_date": "a", "entry_price": 2.123456789}, {"entry_date": "b", "exit_date": "c", "profit": 1e99}]
    found = table(backtest(signals=signals, trades=trades))
    assert found.rows == (("b", "—", "c", "—", "1e+99"), ("a", "2.12346", "open", "—", "—"))


def test_a_page_without_signals_has_no_table() -> None:
    """Nothing is shown for nothing."""
    assert "table" not in made(backtest(signals=[], trades=[])).elements


@pytest.mark.parametrize(
    ("printed", "expected"),
    [({"strategy": "a", "symbol": "b"}, "a · b"), ({"strategy": "a"}, "a"), ({"symbol": "b"}, "Backtest · b")],
)
def test_a_title_is_what_there_is(printed: Any, expected: str) -> None:
    """Names, or a word for none."""
    assert title(backtest(**printed)) == expected


def test_the_same_backtest_is_the_same_page() -> None:
    """It can be kept under version control."""
    printed = backtest()
    pages = [page.html(RESULT, printed, measure(printed), arrange(printed, None)) for _ in range(2)]
    assert pages[0] == pages[1]
