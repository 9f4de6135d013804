"""What a person gives the command line to read, and where it writes to. What is wrong with it is one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from tasks.errors import InvalidRequest
from tasks.models import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

__all__ = ["check_writable", "parse_json", "read", "read_json", "write"]

#: A data file may hold white space beyond the 16 MiB of JSON it stands for, but not without end.
MAX_FILE_BYTES = 64 * MIB


def read(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidRequest: it cannot be read, or is no UTF-8.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            msg = f"{path}: {path.stat().st_size:,} bytes, far over every limit"
            raise InvalidRequest(msg)
        # Bytes first: reading as text would turn the line ends of the code into others.
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as exc:
        msg = f"{path}: not UTF-8 text (byte {exc.start})"
        raise InvalidRequest(msg) from exc
    except OSError as exc:
        msg = f"{path}: {(exc.strerror or str(exc)).lower()}"
        raise InvalidRequest(msg) from exc


def read_json(path: Path) -> JsonValue:
    """Return what a file says in strict JSON.

    Raises:
        InvalidRequest: it cannot be read, or is no JSON.
    """
    return parse_json(read(path), str(path))


def check_writable(path: Path) -> None:
    """See to it that a file can be written, without changing it or leaving one.

    Raises:
        InvalidRequest: it cannot.
    """
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as exc:
        msg = f"{path}: {(exc.strerror or str(exc)).lower()}"
        raise InvalidRequest(msg) from exc


def write(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        InvalidRequest: it cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as exc:
        msg = f"{path}: {(exc.strerror or str(exc)).lower()}"
        raise InvalidRequest(msg) from exc


def parse_json(text: str, name: str) -> JsonValue:
    """Return what a text says in strict JSON; where it is none, call it by this name.

    Raises:
        InvalidRequest: it is no JSON.
    """

    def refuse(constant: str) -> NoReturn:
        msg = f"{constant} is not JSON; use null"
        raise ValueError(msg)

    try:
        content: JsonValue = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as exc:
        reason = "nested too deeply" if isinstance(exc, RecursionError) else exc
        msg = f"{name}: not JSON ({reason})"
        raise InvalidRequest(msg) from exc
    return content
