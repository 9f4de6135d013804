"""Writes the table of attacks in docs/security.md from a real run: `python ops/security_table.py`.

The rows are the `threat` markers of tests/security; the results are how those tests ended. The suite compares them with
the published table whenever it runs as a whole, and fails when they differ.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/security.md"
BEGIN = "<!-- attacks: written by `make security-table` -->\n"
END = "<!-- end of attacks -->\n"
HEAD = ("threat", "control", "test", "runc", "gVisor")


@dataclass(frozen=True)
class Threat:
    """One `threat` marker."""

    name: str
    control: str
    #: Function and file.
    test: str
    #: What is different under gVisor; empty when nothing is.
    differs: str
    #: Whether the test asks for a runtime at all: what the worker does is the same under each.
    in_sandbox: bool


@dataclass
class Outcomes:
    """How the attacks of one session ended."""

    threats: dict[Threat, None] = field(default_factory=dict)
    #: By test and runtime: whether all that ran of it passed.
    passed: dict[tuple[str, str], bool] = field(default_factory=dict)
    #: Whether the whole suite runs.
    complete: bool = True

    def expect(self, item: pytest.Item) -> None:
        """Take the rows of one test."""
        in_sandbox = "runtime" in getattr(item, "fixturenames", ())
        for marker in item.iter_markers("threat"):
            differs = marker.kwargs.get("differs", "")
            threat = Threat(marker.args[0], marker.kwargs["control"], _name(item), differs, in_sandbox)
            self.threats.setdefault(threat)

    def note(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Take the outcome of one phase of one test; what was skipped has none."""
        if report.failed or (report.when == "call" and report.passed):
            key = _name(item), _runtime(item)
            self.passed[key] = self.passed.get(key, True) and report.passed

    def table(self, published: str) -> str:
        """Return the table as Markdown; a column of a runtime that is not here is taken from the published one."""
        known = dict(_gvisor_cells(published))
        with_gvisor = any(runtime == "runsc" for _, runtime in self.passed)
        lines = [_line(HEAD), _line(("---",) * len(HEAD)).replace(" ", "")]
        # By file: the order of a session depends on what else runs.
        for threat in sorted(self.threats, key=lambda threat: (*reversed(threat.test.split()), threat.name)):
            runc = self._result(threat, "runc" if threat.in_sandbox else "")
            if not threat.in_sandbox:
                gvisor = "the same: in the worker"
            elif with_gvisor:
                gvisor = self._result(threat, "runsc")
                gvisor += f"; {threat.differs}" if threat.differs else ""
            else:
                gvisor = known.get((threat.name, threat.test), "not run")
            lines.append(_line((threat.name, threat.control, threat.test, runc, gvisor)))
        return "\n".join(lines) + "\n"

    def _result(self, threat: Threat, runtime: str) -> str:
        passed = self.passed.get((threat.test, runtime))
        return "not run" if passed is None else "holds" if passed else "FAILS"


def published() -> str:
    """Return the table as it stands in docs/security.md."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def publish(table: str) -> None:
    """Put the table into docs/security.md."""
    before, begin, rest = DOCUMENT.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"{DOCUMENT} has lost the comments around its table: {BEGIN.strip()} … {END.strip()}"
        raise ValueError(msg)
    DOCUMENT.write_text(before + begin + table + end + after)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _gvisor_cells(table: str) -> list[tuple[tuple[str, str], str]]:
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return [((row[0], row[2]), row[4]) for row in rows if len(row) == len(HEAD)]


def _name(item: pytest.Item) -> str:
    return f"`{item.name.partition('[')[0]}` (`{item.path.name}`)"


def _runtime(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("runtime", "")) if callspec else ""


if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "tests/security", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, "SECURITY_TABLE": "write"}, check=False).returncode)
