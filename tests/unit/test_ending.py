"""What comes out of a sandbox: which endings are clean, so that another strategy of the tenant may follow."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.validator import Violation
from tests.unit.reports import reported
from worker.sandbox.ending import Ending, How

REFUSED = (Violation("R6", 5, 1, "eval", "the builtin eval is not allowed", "leave it out"),)


def test_a_clean_end() -> None:
    """Exit code 0, whatever it printed and used."""
    ending = reported(cpu_seconds=59.0, peak_memory_bytes=2**28)
    ending.stdout, ending.stderr = bytearray(b"\xff" * 1000), bytearray(b"Traceback (most recent call last):\n")
    assert ending.clean


@pytest.mark.parametrize(
    "fields",
    [
        {"exit_code": 1},
        {"exit_code": 255},
        {"exit_code": None, "signal": 9},
        {"exit_code": None},
        {"timed_out": True},
        {"oom_kills": 1},
    ],
    ids=str,
)
def test_any_other_report_is_not(fields: dict[str, Any]) -> None:
    """An exception, a signal, the deadline, a process that was killed for memory: something may be left."""
    assert not reported(**fields).clean


def test_output_over_its_bound_is_not() -> None:
    """Whoever cut it."""
    ending = reported()
    ending.truncated = True
    assert not ending.clean


def test_a_refusal_is_not() -> None:
    """Nothing ran, but a parser has read hostile source."""
    ending = reported()
    ending.violations = REFUSED
    assert not ending.clean


@pytest.mark.parametrize("how", How)
def test_without_a_report_none_is(how: How) -> None:
    """Whatever the engine says of it."""
    assert not Ending(how=how).clean
    assert not Ending(how=how, exit_code=0).clean
