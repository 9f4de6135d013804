"""A backtest as a picture: prices with the signals, the equity, its drawdown. Needs matplotlib."""

from __future__ import annotations

import io
import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tasks.excerpt import printable
from worker.report.backtest import Side
from worker.report.figures import drawdowns
from worker.report.timeline import thin, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.report.timeline import Timeline

__all__ = ["png", "svg"]

INCHES = (12.0, 7.0)
DOTS_PER_INCH = 120
PANELS = (5, 4, 2)
INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
PRICE, EQUITY, DRAWDOWN = "#64748b", "#1d4ed8", "#b91c1c"
#: Shape, colour and relative size. Shapes differ for those who see colours alike.
MARKS = {
    Side.BUY: ("^", "#047857", 1.0),
    Side.SELL: ("v", "#b91c1c", 1.0),
    Side.CLOSE: ("o", "#b45309", 0.75),
    Side.OTHER: ("D", "#6d28d9", 0.65),
}
#: Up to so many marks have this size, points.
MARK_SIZES = ((100, 8.0), (400, 6.5), (math.inf, 5.0))
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": FAINT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "path.simplify": True,
    "svg.fonttype": "none",  # text stays text: small, and to be found
    "svg.hashsalt": "stratbox",  # the same picture is the same file
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def svg(equity: Sequence[float], timeline: Timeline) -> str:
    """Draw it as an element for an HTML page; it has no background."""
    with _figure(equity, timeline) as figure:
        picture = io.StringIO()
        figure.savefig(picture, format="svg", transparent=True, metadata=NO_METADATA)
    text = picture.getvalue()
    return text[text.index("<svg") :]


def png(equity: Sequence[float], timeline: Timeline, title: str) -> bytes:
    """Draw it with a title, as a file of its own."""
    with _figure(equity, timeline) as figure:
        line = " ".join(printable(title).split())
        # Whoever named it: no formula begins at a `$`.
        figure.suptitle(line, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return picture.getvalue()


@contextmanager
def _figure(equity: Sequence[float], timeline: Timeline) -> Iterator[Any]:
    """Give the drawn figure; what holds while it is drawn must hold while it is saved."""
    import matplotlib as mpl  # noqa: PLC0415  # only who draws needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever the reader's own matplotlibrc says
        mpl.rcParams.update(STYLE)
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=INCHES, layout="constrained")
        _draw(figure, equity, timeline)
        yield figure


def _draw(figure: Any, equity: Sequence[float], timeline: Timeline) -> None:
    with_prices = bool(timeline.close or timeline.marks)
    *prices, middle, bottom = figure.subplots(2 + with_prices, height_ratios=PANELS[not with_prices :])
    for top in prices:
        _prices(top, timeline)
    _line(middle, "Equity", equity, EQUITY)
    _drawdown(bottom, equity)
    at_bars = [*(prices if timeline.at_bars else ()), middle, bottom]
    _bars(at_bars, len(equity), timeline.dates)


def _prices(axes: Any, timeline: Timeline) -> None:
    _line(axes, "Price", timeline.close or (), PRICE)
    size = next(size for most, size in MARK_SIZES if len(timeline.marks) <= most)
    for side, (shape, colour, share) in MARKS.items():
        marks = [mark for mark in timeline.marks if mark.side is side]
        if not marks:
            continue
        places, prices = [mark.x for mark in marks], [mark.price for mark in marks]
        style = {"color": colour, "markersize": size * share, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axes.plot(places, prices, shape, label=str(side), gid=f"signals-{side}", zorder=3, **style)
    if timeline.marks:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(MARKS), frameon=False, borderaxespad=0.2)
    if not timeline.at_bars:
        _whole_numbers(axes, "signals, in order")


def _line(axes: Any, title: str, values: Sequence[float], colour: str) -> None:
    drawn = thin(values)
    axes.plot(drawn, [values[bar] for bar in drawn], color=colour, linewidth=1.1, gid=f"line-{title.lower()}")
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def _drawdown(axes: Any, equity: Sequence[float]) -> None:
    values = drawdowns(equity)
    _line(axes, "Drawdown", values, DRAWDOWN)
    drawn = thin(values)
    axes.fill_between(drawn, [values[bar] for bar in drawn], color=DRAWDOWN, alpha=0.15, linewidth=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:,.6g}%")


def _bars(panels: Sequence[Any], bars: int, dates: Sequence[str]) -> None:
    """Give all of them the same axis, and write below the last what stands there."""
    margin = max(0.5, bars * 0.01)
    for axes in panels:
        axes.set_xlim(-margin, bars - 1 + margin)
        if dates:
            found = ticks(dates)
            axes.set_xticks(list(found), list(found.values()), parse_math=False)
        else:
            _whole_numbers(axes, "bar")
    for axes in panels[:-1]:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)


def _whole_numbers(axes: Any, of: str) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(of)
