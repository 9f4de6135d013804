"""Data: bombs that the strategy unpacks, and JSON that no honest producer writes."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tasks import ExecutionRequest, ExecutionStatus
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from tests.security.arena import Arena

UNPACK = """
    import base64, zlib
    print('begun')
    held = zlib.decompress(base64.b64decode(json.load(open('/workspace/data.json'))))
"""
PARSE = """
    import gc
    text = json.load(open('/workspace/data.json'))
    print('begun')
    try:
        json.loads(text)
        print('parsed')
    except (ValueError, RecursionError) as exc:
        print(type(exc).__name__)
"""
READ = "data = json.load(open('/workspace/data.json'))\nprint(json.dumps(data))"

#: JSON text of a producer, and why it is refused.
REFUSED = {
    "NaN": ("[NaN]", "NaN"),
    "infinity by size": ('{"a": [1, 1e999]}', "infinite"),
    "nested to the parser's end": ("[" * 900 + "]" * 900, "data"),
    "lone surrogate": (r'"\ud800"', "surrogate"),
    "over the limit": (json.dumps("x" * (16 << 20)), "limit"),
}
#: JSON text that is taken for what the parser makes of it.
ODD = ['{"a": 1, "a": 2}', "9" * 4000, "[1e-999, -0.0, 1e-320]", r'"\u0000\u001b[2J\u202e"', "[" * 100 + "]" * 100]


def compressed_zeros(mebibytes: int) -> str:
    """Return zeros, packed in pieces so that this process stays small."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    packed = b"".join(packer.compress(block) for _ in range(mebibytes)) + packer.flush()
    return base64.b64encode(packed).decode()


@pytest.mark.threat("zip bomb in the data", control="memory 256 MiB", differs="the whole sandbox goes")
def test_zip_bomb(arena: Arena) -> None:
    """400 MiB in two of data: out of memory, not out of the host's."""
    result = arena.attack(UNPACK, data=compressed_zeros(400))
    assert result.status is ExecutionStatus.OUT_OF_MEMORY or (
        result.error is not None and result.error.type == "MemoryError"
    ), result
    assert result.output == "begun\n"


@pytest.mark.threat("JSON bomb in the data", control="memory 256 MiB; the worker never parses what it passes on")
@pytest.mark.parametrize(
    ("text", "outcome"),
    [("[" * 2_000_000, "RecursionError"), ("9" * 2_000_000, "ValueError"), ("[" + "[]," * 4_000_000 + "1]", None)],
    ids=["nested", "huge integer", "many small"],
)
def test_json_bomb(arena: Arena, text: str, outcome: str | None) -> None:
    """The strategy's parser refuses it, or its memory ends it."""
    result = arena.attack(PARSE, data=text)
    if outcome:
        assert result.success, result
        assert result.output == f"begun\n{outcome}\n"
    else:
        assert result.status is ExecutionStatus.OUT_OF_MEMORY, result
        assert result.output == "begun\n"


@pytest.mark.threat("data that JSON cannot hold", control="strict encoding before a container is spent")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_json_cannot_hold_is_refused(kind: str) -> None:
    """The request says what is wrong with it."""
    text, reason = REFUSED[kind]
    with pytest.raises(InvalidRequest, match=reason):
        ExecutionRequest.build("print(1)", json.loads(text))


@pytest.mark.threat("JSON that is not what it seems", control="one parse, one strict encoding")
def test_odd_json_arrives_as_it_was_parsed(arena: Arena) -> None:
    """The strategy reads exactly what the request holds."""
    data: Any = [json.loads(text) for text in ODD]
    assert arena.probe(READ, data=data) == data
