"""What the command line reads and writes; what is wrong with a file's content is shown in test_cli.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.errors import InvalidRequest
from worker import files

if TYPE_CHECKING:
    from pathlib import Path


def test_whether_a_file_can_be_written_is_asked_without_a_trace(tmp_path: Path) -> None:
    """One that is there stays as it is, one that is not is not there afterwards."""
    known = tmp_path / "known"
    known.write_text("kept")
    files.check_writable(known)
    files.check_writable(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["known"]
    assert known.read_text() == "kept"


@pytest.mark.parametrize(("name", "reason"), [("", "is a directory"), ("none/x", "no such file or directory")])
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str, reason: str) -> None:
    """When asked, and when it is written."""
    path = tmp_path / name
    with pytest.raises(InvalidRequest, match=f"^{path}: {reason}$"):
        files.check_writable(path)
    with pytest.raises(InvalidRequest, match=f"^{path}: {reason}$"):
        files.write(path, b"x")


def test_json_is_strict() -> None:
    """With the name it is to have in a line about it."""
    assert files.parse_json('{"fast": 5}', "--params") == {"fast": 5}
    with pytest.raises(InvalidRequest, match=r"^--params: not JSON \(Infinity is not JSON; use null\)$"):
        files.parse_json("[Infinity]", "--params")
