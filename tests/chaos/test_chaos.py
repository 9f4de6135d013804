"""The short form of `make chaos`: what a minute can bear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.chaos import chaos, schedule
from tests.chaos.report import Options, show
from tests.chaos.work import SHARES, mix

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(180)
def test_nothing_is_lost(tmp_path: Path) -> None:
    """Every submission that was accepted has one verdict, the right one, and nothing is left behind."""
    options = Options(
        seed=1,
        submissions=60,
        producers=2,
        workers=2,
        deadline_seconds=100,
        faults=schedule.SHORT_FAULTS,
        private_engine=False,
    )
    report = chaos.run(options, tmp_path)
    show(report, Console())
    assert report.complaints() == []
    assert report.verdicts.total() == report.accepted == options.submissions
    assert report.faults.total() >= 6


def test_a_seed_gives_one_run() -> None:
    """The same seed gives the same work and the same faults, another seed others; faults leave time to recover."""
    assert mix(300, seed=3) == mix(300, seed=3) != mix(300, seed=4)
    assert {piece.kind for piece in mix(300, seed=3)} == set(SHARES)
    planned = schedule.plan(schedule.FAULTS, 2_000, seed=3)
    assert planned == schedule.plan(schedule.FAULTS, 2_000, seed=3) != schedule.plan(schedule.FAULTS, 2_000, seed=4)
    assert len(planned) == sum(schedule.FAULTS.values())
    assert all(60 <= appointment.accepted <= 1_400 for appointment in planned)
