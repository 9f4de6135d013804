"""The benchmark's figures, and that README.md shows those that are committed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from bench import report
from bench.measure import Spread, busy_seconds

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = json.loads(report.RESULTS.read_text())


def test_spread_of_a_hundred() -> None:
    """Each percentile is a value that was measured, the median the middle of the two in the middle."""
    spread = Spread.of([float(number) for number in range(100, 0, -1)])
    assert spread == Spread(count=100, least=1.0, p25=26.0, p50=50.5, p75=76.0, p95=96.0, p99=100.0, most=100.0)


def test_spread_of_one() -> None:
    """One value is all there is."""
    assert Spread.of([7.0]) == Spread(1, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0)


def test_work_is_seen_as_work() -> None:
    """The CPU time of the whole machine grows by what one process burns, at least."""
    before, deadline = busy_seconds(), time.process_time() + 0.3
    while time.process_time() < deadline:
        pass
    assert busy_seconds() - before > 0.2


def test_the_baseline_is_one() -> None:
    """All ratios refer to it."""
    for rows in (report.idle_rows(RESULTS), report.saturated_rows(RESULTS)):
        (baseline,) = (row for row in rows if row[0] == report.BASELINE)
        assert baseline[1].startswith("1.0 x ")


@pytest.mark.parametrize("page", [report.README, report.PERFORMANCE])
def test_the_published_figures_are_those_of_the_committed_run(page: Path) -> None:
    """`make bench-report` writes them."""
    assert report.block(RESULTS, page) in page.read_text(), f"{page.name} is stale: run `make bench-report`"


def test_a_terminal_shows_them_all() -> None:
    """Tables of every contender at every load, and of all the rest."""
    idle, best, every, besides = report.tables(RESULTS)
    assert idle.row_count == best.row_count == len(RESULTS["idle"])
    assert every.row_count == len(RESULTS["saturated"])
    assert besides.row_count >= 10


@pytest.mark.parametrize("page", ["# Stratbox\n", report.BEGIN])
def test_a_page_without_the_marks_is_left_alone(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which lines are missing."""
    readme = tmp_path / "README.md"
    readme.write_text(page)
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "chart", lambda *_: None)
    with pytest.raises(SystemExit, match="put them where the figures are to stand"):
        report.main()
    assert readme.read_text() == page
