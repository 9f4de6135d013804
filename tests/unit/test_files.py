"""What the command line reads and writes; what is wrong with a file's content is shown in test_cli.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.errors import InvalidRequest
from worker import files


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


def test_a_link_that_leads_nowhere_stays(tmp_path: Path) -> None:
    """It is written through; where its target has no folder, that is said."""
    link, lost = tmp_path / "link", tmp_path / "lost"
    link.symlink_to(tmp_path / "target")
    lost.symlink_to(tmp_path / "none" / "target")
    files.check_writable(link)
    assert link.is_symlink()
    assert not link.exists()
    with pytest.raises(InvalidRequest, match=f"^{lost}: no such file or directory$"):
        files.check_writable(lost)


def test_what_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel says; it lets root do anything."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidRequest, match=r"x: permission denied$"):
        files.check_writable(tmp_path / "x")


@pytest.mark.parametrize("name", ["read", "link", "one"])
def test_no_output_takes_the_place_of_another_file(tmp_path: Path, name: str) -> None:
    """Neither of what is read, under whatever name, nor of what is written."""
    read, one, link = tmp_path / "read", tmp_path / "one", tmp_path / "link"
    link.symlink_to(read)
    files.check_outputs([one, tmp_path / "two"], [read])
    with pytest.raises(InvalidRequest, match=f"{name}: is read or written already; give each output a file of its own"):
        files.check_outputs([one, tmp_path / name], [read])


@pytest.mark.parametrize("name", ["/dev/zero", "sparse"])
def test_a_file_without_end_is_not_read_to_it(tmp_path: Path, name: str) -> None:
    """Neither a device, which has no size, nor a terabyte of which the disk holds nothing."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InvalidRequest, match=r": more than 67,108,864 bytes, far over every limit$"):
        files.read(tmp_path / name)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(path := tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match=f"^{path}: a named pipe; give a file$"):
        files.read(path)
    with pytest.raises(InvalidRequest, match=f"^{path}: a named pipe; give a file$"):
        files.check_writable(path)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    """Editors put one first."""
    (path := tmp_path / "data.json").write_bytes(b"\xef\xbb\xbf{}")
    assert files.read_json(path) == {}


def test_params_are_an_object() -> None:
    """In JSON's terms."""
    assert files.parse_object("{}", "--params") == {}
    with pytest.raises(InvalidRequest, match=r"^--params: must be a JSON object$"):
        files.parse_object("[]", "--params")


def test_a_pipe_of_the_shell_is_read() -> None:
    """What `<(...)` gives."""
    end, other = os.pipe()
    os.write(other, b"print(1)")
    os.close(other)
    assert files.read(Path(f"/dev/fd/{end}")) == "print(1)"
    files.check_writable(Path(f"/dev/fd/{end}"))
    os.close(end)


def test_deep_json_is_refused_with_its_reason() -> None:
    """Where the contract would name the path to the place, and nothing else."""
    assert files.parse_json("[" * 200 + "]" * 200, "--params")
    with pytest.raises(InvalidRequest, match=r"^--params: nested too deeply, more than 200 levels$"):
        files.parse_json('{"a":[' * 101 + "]}" * 101, "--params")


def test_json_is_strict() -> None:
    """With the name it is to have in a line about it."""
    assert files.parse_json('{"fast": 5}', "--params") == {"fast": 5}
    with pytest.raises(InvalidRequest, match=r"^--params: not JSON \(Infinity is not JSON; use null\)$"):
        files.parse_json("[Infinity]", "--params")
