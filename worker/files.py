"""What a person gives the command line to read, and where it writes to. What is wrong with it is one line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tasks.errors import InvalidRequest
from tasks.models import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import JsonValue

__all__ = [
    "check_outputs",
    "check_source",
    "check_writable",
    "parse_json",
    "parse_object",
    "read",
    "read_input",
    "read_json",
    "write",
]

#: A data file may hold white space beyond the 16 MiB of JSON it stands for, but not without end.
MAX_FILE_BYTES = 64 * MIB
#: The contract refuses values nested deeper than some 250, and names the path to the place instead of the reason.
MAX_DEPTH = 200


def read(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidRequest: it cannot be read, or is no UTF-8.
    """
    return _read(str(path), lambda: _content(path))


def read_input() -> str:
    """Return the text on standard input.

    Raises:
        InvalidRequest: it cannot be read, or is no UTF-8.
    """
    if sys.stdin is None:
        msg = "standard input is closed"
        raise InvalidRequest(msg)
    return _read("standard input", lambda: sys.stdin.buffer.read(MAX_FILE_BYTES + 1))


def read_json(path: Path) -> JsonValue:
    """Return what a file says in strict JSON.

    Raises:
        InvalidRequest: it cannot be read, or is no JSON.
    """
    return parse_json(read(path), str(path))


def check_writable(path: Path) -> None:
    """See whether a file can be written, by looking only.

    Raises:
        InvalidRequest: it cannot.
    """
    try:
        may_write = os.access(_written_to(path), os.W_OK)
    except OSError as exc:
        raise _refusal(path, exc) from exc
    if _is_named_pipe(path):  # it would wait for a reader, perhaps for ever
        msg = f"{path}: a named pipe; give a file"
        raise InvalidRequest(msg)
    if path.is_dir() or not may_write:
        msg = f"{path}: {'is a directory' if path.is_dir() else 'permission denied'}"
        raise InvalidRequest(msg)


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """See whether all these files can be written, and none in place of another.

    Raises:
        InvalidRequest: one cannot, or is one of the others, or is read.
    """
    taken = set(map(os.path.realpath, inputs))
    for path in outputs:
        if (real := os.path.realpath(path)) in taken:
            msg = f"{path}: is read or written already; give each output a file of its own"
            raise InvalidRequest(msg)
        taken.add(real)
        check_writable(path)


def check_source(data: Path | None, dataset: str | None) -> None:
    """See to it that data come from one place.

    Raises:
        InvalidRequest: they come from a file and from Redis.
    """
    if data is not None and dataset is not None:
        msg = "give either --data or --dataset"
        raise InvalidRequest(msg)


def write(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        InvalidRequest: it cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as exc:
        raise _refusal(path, exc) from exc


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
    if _is_deep(content):
        msg = f"{name}: nested too deeply, more than {MAX_DEPTH} levels"
        raise InvalidRequest(msg)
    return content


def parse_object(text: str, name: str) -> dict[str, JsonValue]:
    """Return what a text says in strict JSON, which must be an object.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(content := parse_json(text, name), dict):
        msg = f"{name}: must be a JSON object"
        raise InvalidRequest(msg)
    return content


def _read(name: str, content: Callable[[], bytes]) -> str:
    try:
        # Bytes first: reading as text would turn the line ends of the code into others.
        read = content()
    except OSError as exc:
        raise _refusal(name, exc) from exc
    # A device has no size that could be asked for.
    if len(read) > MAX_FILE_BYTES:
        msg = f"{name}: more than {MAX_FILE_BYTES:,} bytes, far over every limit"
        raise InvalidRequest(msg)
    try:
        return read.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        msg = f"{name}: not UTF-8 text (byte {exc.start})"
        raise InvalidRequest(msg) from exc


def _content(path: Path) -> bytes:
    if _is_named_pipe(path):  # it would wait for a writer, perhaps for ever
        msg = f"{path}: a named pipe; give a file"
        raise InvalidRequest(msg)
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _is_named_pipe(path: Path) -> bool:
    # A shell's pipe, `<(...)`, has no name in the file system.
    return Path(os.path.realpath(path)).is_fifo()


def _written_to(path: Path) -> Path:
    """Return the file, or the folder in which it would be new: of a link that leads nowhere, that of its target."""
    try:
        path.stat()
    except FileNotFoundError:
        folder = Path(os.path.realpath(path)).parent
        folder.stat()
        return folder
    return path


def _is_deep(content: JsonValue) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        # One level after the other, and only what has another below.
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _refusal(path: Path | str, exc: OSError) -> InvalidRequest:
    return InvalidRequest(f"{path}: {(exc.strerror or str(exc)).lower()}")
