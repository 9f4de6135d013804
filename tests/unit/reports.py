"""What a runner reports, for tests of what is made of it."""

from __future__ import annotations

from typing import Any

from worker.sandbox.ending import Ending, How, Report

CLEAN = {
    "exit_code": 0,
    "signal": None,
    "timed_out": False,
    "oom_kills": 0,
    "truncated": False,
    "wall_seconds": 0.25,
    "cpu_seconds": 0.125,
    "peak_memory_bytes": 70_000_000,
    "explanation": "",
    "token": "",
}


def reported(**fields: Any) -> Ending:
    """Return the ending of a run whose runner reported `fields`, and else a clean end."""
    return Ending(how=How.REPORTED, report=Report.model_validate({**CLEAN, **fields}))
