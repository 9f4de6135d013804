"""On a terminal: what a strategy printed is shown as it is, but cannot steer the reader's terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tasks.excerpt import printable
from tasks.ledger import DeadSubmission
from tasks.models import ErrorDetail, ExecutionMetrics, ExecutionResult, ExecutionStatus, Violation
from worker import display

S = ExecutionStatus
ANSI = re.compile(r"\x1b\[[\d;]*m")


def test_every_status_has_a_style() -> None:
    """A new status without one would be an error at the worst moment."""
    assert set(display.STYLES) == set(S)


@pytest.mark.parametrize("status", S)
def test_summary_of_every_status(status: ExecutionStatus) -> None:
    """Each is shown by its name."""
    assert f"{status}[/]" in display.summary(ExecutionResult(status=status))


def test_summary_is_one_line_and_says_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    """Error, times, memory, and that output was cut; hostile text is escaped."""
    result = ExecutionResult(
        status=S.FAILED,
        error=ErrorDetail(type="Value[bold]Error", message="a\nb\x1b[2J", line=3),
        truncated=True,
        metrics=ExecutionMetrics(wall_seconds=0.5, cpu_seconds=0.25, peak_memory_bytes=64 * 2**20, warm=True),
    )
    display.show_result(result)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "failed · Value[bold]Error: a b\\x1b[2J (line 3) · "
        "0.500 s, CPU 0.250 s, start-up 0.000 s (warm), peak 64 MiB · output cut at the limit\n"
    )


def test_output_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a pipe gets the data alone."""
    display.show_result(ExecutionResult(status=S.SUCCEEDED, output='{"a": [1]}\n', stderr="careful\n"))
    shown = capsys.readouterr()
    assert shown.out == '{"a": [1]}\n'
    assert shown.err == "careful\nsucceeded\n"


@pytest.mark.parametrize(
    "text", ["[bold]x[/]", "[/]", "\\[x]", "[link=http://a]b[/link]", "x" * 500, "a  b", "x" + " " * 200, "é 日本"]
)
def test_output_is_shown_as_it_was_printed(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Markup is not obeyed, and long lines are not folded."""
    display.show_result(ExecutionResult(status=S.SUCCEEDED, output=text, stderr=text))
    shown = capsys.readouterr()
    assert shown.out == text + "\n"
    assert shown.err.startswith(text + "\n")


@pytest.mark.parametrize("text", [":fire:", "a\tb"])
def test_output_is_not_edited(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A pipe gets the very bytes: `:fire:` may be data, and a tab is what separates columns."""
    display.show_result(ExecutionResult(status=S.SUCCEEDED, output=text))
    assert capsys.readouterr().out == text + "\n"


def test_hostile_output_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """On neither stream."""
    display.show_result(ExecutionResult(status=S.SUCCEEDED, output="\x1b[2Jx", stderr="\x1b]0;t\x07"))
    shown = capsys.readouterr()
    assert shown.out == "\\x1b[2Jx\n"
    assert "\x1b" not in shown.err


def test_violations_are_lines_that_editors_can_jump_to(capsys: pytest.CaptureFixture[str]) -> None:
    """File, line, column, rule, reason; the hint below. Nothing of it is markup."""
    violation = Violation("R2", 3, 5, "import os", "import [os]\x1b", "remove [it]")
    display.show_violations("a[b].py", (violation,))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "a[b].py:3:5 R2 import [os]\\x1b\n    remove [it]\n"


def test_moment_is_utc() -> None:
    """Whatever the zone of the machine; fractions are dropped."""
    assert display.moment(1_700_000_000.9) == "2023-11-14T22:13:20Z"


def dead(reason: str, tenant: str = "tenant") -> DeadSubmission:
    """One that was given up."""
    return DeadSubmission("4d1f0c1e-5b7a-4f4e-9a55-0f6f3c1d9b42", tenant, 1_700_000_000.0, reason, 12_345)


@pytest.mark.parametrize("reason", ["died", "x" * 300, "word " * 60 + "end"])
def test_dead_in_a_pipe_are_a_line_each(capsys: pytest.CaptureFixture[str], reason: str) -> None:
    """However narrow the terminal that is not there."""
    display.show_dead([dead(reason), dead("other")])
    head, _, first, second = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert head.split() == ["id", "user", "since", "bytes", "reason"]
    assert first.split(maxsplit=4) == [dead("").id, "tenant", "2023-11-14T22:13:20Z", "12,345", reason]
    assert second.endswith(" other")


def test_dead_on_a_terminal_keep_their_ids_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is folded instead, and nothing of it is cut."""
    shown = io.StringIO()
    monkeypatch.setattr(display, "out", Console(file=shown, force_terminal=True, width=120, soft_wrap=True))
    display.show_dead([dead("abcdefghij" * 20)])
    lines = [ANSI.sub("", line).rstrip() for line in shown.getvalue().splitlines()]
    assert max(map(len, lines)) <= 120
    assert dead("").id in lines[2]
    assert "".join(line.split()[-1] for line in lines[2:] if line) == "abcdefghij" * 20


@pytest.mark.parametrize("text", ["[bold]x[/]", "[/]", "a\x1b[2J", "a\nb", "\u202ex"])
def test_hostile_dead_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Neither the names of users nor reasons: shown on one line, as escapes where they would be obeyed."""
    written = printable(text).replace("\n", " ")
    display.show_dead([dead(text, tenant=text)])
    row = capsys.readouterr().out.splitlines()[2]
    assert row.count(written) == 2
    display.show_details({"user": text})
    assert capsys.readouterr().err == f"{'user':<11}{written}\n"


def test_a_table_in_a_pipe_is_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    """However wide; what a strategy called its numbers is no markup and steers no terminal."""
    head, row = ["[red]fast", "sharpe\x1b[2J"], ["5", "x" * 300]
    display.show_table(head, [row])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in (lines[0], lines[2])] == [["[red]fast", "sharpe\\x1b[2J"], row]
    assert len(lines) == 3


def test_a_line_of_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, whatever is said in it."""
    display.show_line("lost", "[bold]x[/]\n\x1b[2J")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "lost [bold]x[/] \\x1b[2J\n")
