"""What came of a run of the chaos suite, and how it is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.table import Table

from tests.chaos import schedule

if TYPE_CHECKING:
    from rich.console import Console

    from tests.chaos.audit import Memory

GROWTH_LIMIT_BYTES = 16 * 1024 * 1024
SHOWN = 10


@dataclass(frozen=True)
class Options:
    """How much of it."""

    seed: int = 1
    submissions: int = 2_000
    producers: int = 4
    workers: int = 3
    #: Of everything but the clean-up, seconds.
    deadline_seconds: float = 25 * 60.0
    faults: dict[str, int] = field(default_factory=lambda: schedule.FAULTS)
    private_engine: bool = True


@dataclass
class Report:
    """What came of a run."""

    options: Options
    accepted: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: Verdicts that were replaced, and results that nobody has asked for.
    duplicates: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    #: Failures of the suite itself.
    failures: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    diary: list[tuple[float, str]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    #: Workers that ended and nobody had ended them: they are replaced, but it should not be needed.
    deserters: list[str] = field(default_factory=list)
    re_executions: int = 0
    executions: int = 0
    memory: tuple[Memory, Memory] | None = None
    seconds: float = 0.0

    def grown_bytes(self) -> int:
        """Return by how much the elder's main process has grown."""
        return self.memory[1].bytes - self.memory[0].bytes if self.memory else 0

    def complaints(self) -> list[str]:
        """Return everything that is not as it should be."""
        grown = f"memory grew by {self.grown_bytes():,} bytes"
        return [
            *self.failures,
            *(f"lost: {one}" for one in self.lost),
            *(f"wrong: {one}" for one in self.wrong),
            *(f"duplicate: {one}" for one in self.duplicates),
            *(f"leaked: {one}" for one in self.leaked),
            *([f"{self.options.submissions - self.accepted} never accepted"] if self.is_short() else []),
            *([grown] if self.grown_bytes() > GROWTH_LIMIT_BYTES else []),
        ]

    def is_short(self) -> bool:
        """Whether not all could be submitted."""
        return self.accepted < self.options.submissions


def show(report: Report, console: Console) -> None:
    """Print what came of a run."""
    table = Table("what", "count", title=f"chaos, seed {report.options.seed}")
    for what, count in {
        "accepted": report.accepted,
        "verdicts": report.verdicts.total(),
        **{f"  {name}": number for name, number in sorted(report.verdicts.items())},
        "lost": len(report.lost),
        "wrong": len(report.wrong),
        "duplicates": len(report.duplicates),
        "leaked": len(report.leaked),
        "faults": report.faults.total(),
        **{f"  {name}": number for name, number in sorted(report.faults.items())},
        "executions that ended": report.executions,
        "starts beyond the first": report.re_executions,
        "workers that ended by themselves": len(report.deserters),
        **{f"submit raised {name}": number for name, number in sorted(report.refusals.items())},
    }.items():
        table.add_row(what, f"{count:,}")
    for memory in report.memory or ():
        table.add_row(f"elder's memory, MiB, after {memory.executions:,}", f"{memory.bytes / 2**20:.1f}")
    table.add_row("seconds", f"{report.seconds:.0f}")
    console.print(table)
    for one in report.deserters:
        console.print(f"ended by itself: {one}", markup=False)
    for complaint in report.complaints()[:SHOWN]:
        console.print(complaint, style="red", markup=False, highlight=False)
