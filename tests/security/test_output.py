"""Output: floods of it, and bytes that are not text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionResult
from tasks.errors import OutputNotJSON
from worker.sandbox.stream import AttachedStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.arena import Arena

MIB = 1 << 20
GIGABYTE_EACH = """
    block = b'x' * (1 << 16)  # with not one line end
    fd = 1 if os.fork() else 2
    for _ in range(1 << 14):
        os.write(fd, block)
    if fd == 1: os.wait()
"""

#: Not UTF-8 at all, NUL, orders to terminals, reversed text, and a character that was cut off.
HOSTILE_BYTES = [
    b"\xff\xfe\x80 \xc3( \xed\xa0\x80 \xf8\x88\x80\x80\x80",
    b"a\0b\0\0",
    b"\x1b[2J\x1b]0;title\x07\x9b31m\x08\x7f",
    "\u202e\u2066\ufeff".encode(),
    "é漢😀".encode()[:-1],
]

#: Expressions whose values no strict parser takes.
NOT_JSON = ["'[' * 200_000", "'{\"a\":' * 50_000", "'[NaN]'", "'1e999'", "'9' * 100_000", r"'\ud800'"]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of each piece the runner sent."""
    sizes: list[int] = []
    demultiplex = AttachedStream._demultiplex

    def counting(self: AttachedStream, data: bytes) -> Iterator[bytes]:
        sizes.append(len(data))
        return demultiplex(self, data)

    monkeypatch.setattr(AttachedStream, "_demultiplex", counting)
    return sizes


def peak_resident_bytes() -> int:
    """Return the most memory this process has held since `reset_peak()`."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def reset_peak() -> None:
    """Begin to look for the peak anew; see proc(5), clear_refs."""
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.threat("a flood of output, one endless line", control="capped in the runner, and again in the worker")
def test_flood_of_both_streams(arena: Arena, received: list[int]) -> None:
    """Of a gigabyte on each stream 1 MiB is kept; the rest never leaves the container, and the worker stays small."""
    reset_peak()
    before = peak_resident_bytes()
    result = arena.attack(GIGABYTE_EACH, timeout=50)
    assert result.success, result.error
    assert result.truncated
    assert len(result.output) + len(result.stderr) == MIB
    assert sum(received) < 1.1 * MIB
    assert peak_resident_bytes() - before < 32 * MIB


@pytest.mark.threat("output that is not text", control="decoded with replacement")
def test_hostile_bytes_are_data(arena: Arena) -> None:
    """Both streams come back as text, and the result survives the way through JSON unchanged."""
    raw = b"\n".join(HOSTILE_BYTES)
    result = arena.attack(f"os.write(1, {raw!r})\nos.write(2, {raw!r})")
    assert result.success, result.error
    assert result.output == result.stderr == raw.decode(errors="replace")
    assert ExecutionResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.threat("lone surrogates in output and errors", control="escaped or replaced where they leave the sandbox")
def test_lone_surrogates_break_nothing(arena: Arena) -> None:
    """Printed, on stderr, and as message of an exception."""
    result = arena.attack("print('\\ud800')\nprint('\\udfff', file=sys.stderr)\nraise ValueError('\\ud83d')")
    assert result.status == "failed"
    assert result.output == "\\ud800\n"
    assert ExecutionResult.model_validate(json.loads(result.model_dump_json())) == result


@pytest.mark.threat("JSON bombs in the output", control="strict parse, one clear error")
def test_json_bombs_in_the_output_raise_one_error(arena: Arena) -> None:
    """`result.json()` says that it is not JSON; nothing recurses, hangs or grows."""
    result = arena.attack("\n".join(f"print({expression})" for expression in NOT_JSON))
    assert result.success, result.error
    bombs = result.output.splitlines()
    assert len(bombs) == len(NOT_JSON)
    for bomb in bombs:
        with pytest.raises(OutputNotJSON):
            result.model_copy(update={"output": bomb}).json()


@pytest.mark.threat("filling the host's disk with output", control="log driver `none`")
def test_the_engine_keeps_no_copy(arena: Arena) -> None:
    """The engine has no log of a sandbox."""
    arena.executor.wait_until_warm()
    for container in arena.own_containers():
        assert container["HostConfig"]["LogConfig"]["Type"] == "none"
        assert container["LogPath"] == ""
