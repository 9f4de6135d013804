"""What comes out of a sandbox, whatever happened in it; nothing of it is believed before its types are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tasks.validator import Violation

__all__ = ["VIOLATIONS", "Ending", "How", "Report"]


class Report(BaseModel):
    """What the runner says of a run; checked field by field, since it comes out of a container."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    exit_code: int | None
    signal: int | None
    timed_out: bool
    oom_kills: int
    truncated: bool
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    explanation: str
    #: As in STARTED; empty when no strategy was started.
    token: str


#: What the runner's check refused; checked like the report.
VIOLATIONS: TypeAdapter[tuple[Violation, ...]] = TypeAdapter(
    Annotated[tuple[Violation, ...], Field(min_length=1)], config=ConfigDict(extra="forbid", strict=True)
)


class How(StrEnum):
    """How a conversation with a sandbox ended."""

    REPORTED = "reported"
    #: The runner missed its own deadline.
    OVERDUE = "overdue"
    #: Somebody called `interrupt()`.
    INTERRUPTED = "interrupted"
    #: The container ended without a report.
    VANISHED = "vanished"
    #: It sent what no runner sends.
    BABBLED = "babbled"


@dataclass
class Ending:
    """What came out of a sandbox, whatever happened."""

    how: How = How.VANISHED
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    truncated: bool = False
    report: Report | None = None
    #: What the sandbox's own check of the code refused; the strategy has not run then.
    violations: tuple[Violation, ...] = ()
    wall_seconds: float = 0.0
    #: For a container that vanished: what the engine saw.
    exit_code: int | None = None
    out_of_memory: bool = False

    @property
    def clean(self) -> bool:
        """Whether the strategy left by itself with exit code 0, within every bound: another may have its place."""
        report = self.report
        return (
            report is not None
            and report.exit_code == 0
            and not (report.timed_out or report.oom_kills or self.truncated or self.violations)
        )
