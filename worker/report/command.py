"""The `stratbox report` command."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from tasks.errors import InvalidRequest
from tasks.excerpt import printable
from worker import display, files
from worker.report import chart, page
from worker.report.backtest import backtest_of, bars_of, result_of
from worker.report.figures import measure
from worker.report.timeline import arrange

__all__ = ["report"]

#: What `stratbox[plot]` brings.
NEEDED = ("matplotlib", "jinja2")

Result = Annotated[
    Path, typer.Argument(help="What `run`, `result` or `generate` printed with --json.", metavar="RESULT")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Write the page to this file.")]
Data = Annotated[
    Path | None, typer.Option(help="The JSON file the strategy was given: adds dates and the line of prices.")
]
Picture = Annotated[Path | None, typer.Option("--png", help="Draw the chart to this file, too.")]


def report(result: Result, output: Output = Path("report.html"), data: Data = None, png: Picture = None) -> None:
    """Make a page of a backtest: figures computed from its equity, a chart, its trades."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            msg = f"report: {name} is not installed: pip install 'stratbox[plot]'"
            raise InvalidRequest(msg)
    files.check_outputs(filter(None, (output, png)), filter(None, (result, data)))
    execution = result_of(files.read_json(result), str(result))
    backtest = backtest_of(execution, str(result))
    bars = bars_of(files.read_json(data), str(data), len(backtest.equity)) if data else None
    figures, timeline = measure(backtest), arrange(backtest, bars)
    # All of it is drawn before anything is written.
    written = {output: page.html(execution, backtest, figures, timeline).encode()}
    if png:
        written[png] = chart.png(backtest.equity, timeline, page.title(backtest))
    for path, content in written.items():
        files.write(path, content)
    tiles = page.tiles(backtest, figures)
    display.show_table((tile.key for tile in tiles), [[tile.text for tile in tiles]])
    for tile in tiles:
        if tile.contradicted:
            display.show_line("contradicted", f"the strategy says {tile.key} {tile.claim}, computed is {tile.text}")
    for path in written:
        display.err.print(printable(f"wrote {path}"), markup=False)
