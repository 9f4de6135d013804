"""A sweep over two parameters as a picture. Needs matplotlib, which `stratbox[plot]` brings."""

from __future__ import annotations

import importlib.util
import io
import math
from typing import TYPE_CHECKING

from tasks.errors import InvalidRequest
from tasks.excerpt import printable
from worker.sweep.ranking import best_first

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.sweep.grid import Grid, Value
    from worker.sweep.ranking import Outcome

__all__ = ["png", "two_axes"]

#: So many labels have room on an axis.
MOST_LABELS = 12
DOTS_PER_INCH = 120
FAILED_COLOUR = "#d0d0d0"


def two_axes(grid: Grid) -> tuple[str, str]:
    """Return the names of the two parameters to draw; asked before the sweep, for what would be in vain after it.

    Raises:
        InvalidRequest: it has not exactly two with more than one value, or matplotlib is not there.
    """
    names = [name for name, values in grid.axes.items() if len(values) > 1]
    if len(names) != 2:  # noqa: PLR2004  # a picture has two directions
        msg = f"--heatmap: exactly two parameters must have more than one value, here {len(names)} do"
        raise InvalidRequest(msg)
    if importlib.util.find_spec("matplotlib") is None:
        msg = "--heatmap: matplotlib is not installed: pip install 'stratbox[plot]'"
        raise InvalidRequest(msg)
    return names[0], names[1]


def png(grid: Grid, outcomes: Sequence[Outcome], *, by: str, title: str) -> bytes:
    """Draw the score of each point, the best one marked; those without one are grey.

    Args:
        grid: the sweep's; of its parameters, exactly two have more than one value.
        outcomes: of its points.
        by: what the score is called.
        title: above the picture.
    """
    from matplotlib import colormaps  # noqa: PLC0415  # only who draws needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    down, across = two_axes(grid)
    rows = scores(grid.axes[down], grid.axes[across], {(one.params[down], one.params[across]): one for one in outcomes})
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["viridis"].with_extremes(bad=FAILED_COLOUR)
    image = axes.imshow(rows, origin="lower", aspect="auto", cmap=colours)
    figure.colorbar(image, label=_plain(by))
    for name, values, axis in ((across, grid.axes[across], axes.xaxis), (down, grid.axes[down], axes.yaxis)):
        step = math.ceil(len(values) / MOST_LABELS)
        axis.set_ticks(range(0, len(values), step), [_plain(str(value)) for value in values[::step]])
        axis.set_label_text(name)
    if best := best_first(outcomes):
        column, row = (grid.axes[name].index(best[0].params[name]) for name in (across, down))
        axes.plot(column, row, marker="o", markersize=10, markerfacecolor="none", markeredgecolor="red")
    axes.set_title(_plain(title))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return picture.getvalue()


def scores(
    down: Sequence[Value], across: Sequence[Value], outcomes: Mapping[tuple[Value, Value], Outcome]
) -> list[list[float]]:
    """Return the scores as rows of a picture, NaN where there is none."""
    found = [[outcomes.get((row, column)) for column in across] for row in down]
    # An integer beyond 64 bits is no number to numpy.
    return [[math.nan if one is None or one.score is None else float(one.score) for one in line] for line in found]


def _plain(text: str) -> str:
    return printable(text).replace("$", r"\$")  # it would begin a formula
