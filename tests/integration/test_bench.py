"""The benchmark's contenders do the same work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench import contenders, measure

if TYPE_CHECKING:
    import pytest


def test_contenders_give_the_same_answer() -> None:
    """Each runs the strategy in a container, and prints the same."""
    answers = {}
    ways: list[type[contenders.Contender]] = [contenders.DockerRun, *contenders.OURS, contenders.Fork]
    for way in ways:
        with way(1) as one:
            answers[way.name] = one.run()
    assert len(set(answers.values())) == 1, answers
    assert json.loads(answers["docker run"])["signals"]


def test_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every contender is timed alone and at work; the warm sandbox answers before a container has started."""
    monkeypatch.setattr(measure, "CALM_SECONDS", 2.0)  # other tests may run beside this one
    ways = [contenders.DockerRun, contenders.Strict]
    plain, strict = measure.idle(ways, 3, 1, lambda _: None)
    assert strict.milliseconds.p50 * 3 < plain.milliseconds.p50
    busy = measure.saturated(ways, [1], windows=1, seconds=8.0, seed=1, tell=lambda _: None)
    assert [one.contender for one in busy] == ["docker run", "strict"]
    assert all(one.per_second.p50 > 0.2 for one in busy)
