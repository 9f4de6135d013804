"""The data file of a strategy as JSON text: how data become one, what refers to it, and how parameters get into it.

The text of an object begins with its key `params`, if it has one. So parameters are put into megabytes of data by
looking at the first bytes.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["DIGEST", "DatasetRef", "encode", "put_params"]

#: What a reference looks like.
DIGEST = re.compile("[0-9a-f]{64}")

_PARAMS = "params"
_OPENING = b'{"params":'


@dataclass(frozen=True)
class DatasetRef:
    """Data that were put into Redis before, by the hash of their text. `str()` gives the hash."""

    #: SHA-256 of the data's JSON text, 64 hexadecimal digits. Whoever knows it can read the data.
    digest: str
    #: Of that text.
    size_bytes: int

    def __str__(self) -> str:
        """Return the hash."""
        return self.digest


def encode(data: JsonValue, name: str = "data") -> bytes:
    """Return data as UTF-8 JSON text, without spaces.

    Args:
        data: any JSON value.
        name: what to call it where something is wrong with it.

    Raises:
        ValueError: JSON cannot hold it; the text says what and where.
    """
    if isinstance(data, dict) and _PARAMS in data:
        data = {_PARAMS: data[_PARAMS]} | data
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        msg = f"{name}: holds text that is not valid Unicode (a lone surrogate)"
    except RecursionError:
        msg = f"{name}: nested too deeply"
    except ValueError as exc:
        where = _first_non_finite(data, name)
        msg = f"{where} is NaN or infinite, which JSON cannot hold; use null" if where else f"{name}: {exc}"
    raise ValueError(msg)


def put_params(text: bytes, params: bytes) -> bytes:
    """Return the text of an object with its top-level key `params` set, in place of its own if it has one.

    Args:
        text: as `encode` has written it; it is copied, not parsed.
        params: likewise.

    Raises:
        ValueError: it is not the text of an object.
    """
    rest = _after_params(text)
    comma = b"" if text[rest : rest + 1] in (b",", b"}") else b","
    return b"".join((_OPENING, params, comma, memoryview(text)[rest:]))


def _after_params(text: bytes) -> int:
    """Return where the text goes on after the brace, or after its own `params`."""
    if not text.startswith(b"{"):
        msg = "params: they become a key of the data, so the data must be an object"
        raise ValueError(msg)
    if not text.startswith(_OPENING):
        return 1
    try:
        decoded = text.decode()
        _, end = json.JSONDecoder().raw_decode(decoded, len(_OPENING))
    except (ValueError, RecursionError):
        msg = "params: the data are not JSON"
        raise ValueError(msg) from None
    return len(decoded[:end].encode())


def _first_non_finite(data: JsonValue, name: str) -> str | None:
    stack: list[tuple[str, Any]] = [(name, data)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path
        if isinstance(value, dict):
            stack.extend((f"{path}[{key!r}]", item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend((f"{path}[{index}]", value[index]) for index in reversed(range(len(value))))
    return None
