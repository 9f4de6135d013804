"""`stratbox report` on the command line: what it writes, and that what is wrong is one line and nothing written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from worker import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = {"strategy": "s", "equity": [1.0, 1.1, 1.0], "metrics": {"total_return": 0.5, "win_rate": 0.5}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a result in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").write_text(json.dumps({"status": "succeeded", "output": json.dumps(GOOD)}))
    (tmp_path / "d.json").write_text('{"bars": {"close": [1, 2, 3]}}')
    return tmp_path


@pytest.fixture
def report(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command; gives exit code, stdout and stderr."""
    del folder

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stratbox", "report", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, shown.out, shown.err

    return call


def names(folder: Path) -> set[str]:
    """Return what is in it."""
    return {path.name for path in folder.iterdir()}


def test_a_page_is_written(folder: Path, report: Callable[..., tuple[int, str, str]]) -> None:
    """As report.html where nothing else is said; figures on stdout, on stderr what the strategy has wrong."""
    code, out, err = report("r.json")
    assert code == 0
    head, _, row = out.splitlines()
    assert head.split() == ["total_return", "sharpe", "max_drawdown", "trades", "win_rate", "bars"]
    assert row.split()[0] == "+0.0%"
    assert err.splitlines() == [
        "contradicted the strategy says total_return +50.0%, computed is +0.0%",
        "wrote report.html",
    ]
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert names(folder) == {"r.json", "d.json", "report.html"}


def test_a_picture_is_written(folder: Path, report: Callable[..., tuple[int, str, str]]) -> None:
    """Beside the page, where both are wanted to be."""
    code, _, err = report("r.json", "--data", "d.json", "-o", "p.html", "--png", "p.png")
    assert (code, err.splitlines()[1:]) == (0, ["wrote p.html", "wrote p.png"])
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")
    assert names(folder) == {"r.json", "d.json", "p.html", "p.png"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.json"], "none.json: no such file or directory"),
        (["."], ".: is a directory"),
        (["d.json"], "d.json: not a result (status: Field required); give what `stratbox run … --json` printed"),
        (["r.json", "--data", "none"], "none: no such file or directory"),
        (["r.json", "--data", "r.json"], "r.json: bars: Field required"),
        (["r.json", "-o", "r.json"], "r.json: is read or written already; give each output a file of its own"),
        (["r.json", "-o", "x", "--png", "x"], "x: is read or written already; give each output a file of its own"),
        (["r.json", "-o", "none/x"], "none/x: no such file or directory"),
        (["r.json", "--png", "."], ".: is a directory"),
        (["r.json", "--png"], "Option '--png' requires an argument. (see stratbox --help)"),
        ([], "Missing argument 'RESULT'. (see stratbox --help)"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, report: Callable[..., tuple[int, str, str]], arguments: list[str], reason: str
) -> None:
    """Exit code 2, and nothing is written."""
    before = names(folder)
    assert report(*arguments) == (2, "", f"stratbox: {reason}\n")
    assert names(folder) == before


@pytest.mark.parametrize("content", ["", "{", "[" * 300, "\x00", '{"status": "succeeded"}\n{"status": "succeeded"}'])
def test_a_file_that_is_no_json(folder: Path, report: Callable[..., tuple[int, str, str]], content: str) -> None:
    """As of a run that was repeated: one line."""
    (folder / "r.json").write_text(content)
    code, out, err = report("r.json")
    assert (code, out) == (2, "")
    assert err.startswith("stratbox: r.json: n")
    assert len(err.splitlines()) == 1
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_the_extra_one_line_says_what_to_install(
    folder: Path, report: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Before anything is read."""
    find = importlib.util.find_spec

    def look(name: str, *rest: Any) -> Any:
        return None if name == missing else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", look)
    expected = f"stratbox: report: {missing} is not installed: pip install 'stratbox[plot]'\n"
    assert report("none.json") == (2, "", expected)
    assert "report.html" not in names(folder)


def test_a_name_does_not_steer_the_terminal(folder: Path, report: Callable[..., tuple[int, str, str]]) -> None:
    """That of a file as little as a strategy's error."""
    failed = {"status": "failed", "error": {"type": "E\x1b[2J", "message": "[red]\n\x07"}}
    (folder / "r.json").write_text(json.dumps(failed))
    _, _, err = report("r.json")
    assert err == (
        "stratbox: r.json: the strategy ended as failed, E\\x1b[2J: [red] \\x07; a report needs one that succeeded\n"
    )


def test_only_who_draws_loads_the_extra() -> None:
    """Every other command starts without, and as soon."""
    code = "import sys, worker.cli; print({'matplotlib', 'jinja2', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "set()\n"
