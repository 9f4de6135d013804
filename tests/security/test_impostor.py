"""A runner that was taken over: it says what it likes on the control channel, and the worker bounds it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tasks import ExecutionStatus
from tests.security.arena import Arena
from tests.security.test_output import peak_resident_bytes, reset_peak
from worker import SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

    from worker.sandbox.pool import Acquired

#: Greets as the runner does, then runs what comes as code as PID 1 itself, the control channel at hand.
IMPOSTOR = """
import json, os, time
from worker.sandbox.frames import PROTOCOL, Frame, FrameDecoder, encode

def say(kind, payload):
    data = bytes([kind]) + len(payload).to_bytes(4, 'big') + payload
    while data: data = data[os.write(1, data):]

say(Frame.READY, json.dumps({'protocol': PROTOCOL}).encode())
decoder = FrameDecoder()
while chunk := os.read(0, 1 << 16):
    for kind, payload in decoder.feed(chunk):
        if kind is Frame.CODE: exec(payload.partition(b'\\n')[2])
os._exit(0)
"""

REPORT = {
    "exit_code": 0,
    "signal": None,
    "timed_out": False,
    "oom_kills": 0,
    "truncated": False,
    "wall_seconds": 0.1,
    "cpu_seconds": 0.1,
    "peak_memory_bytes": 1,
    "explanation": "",
    "token": "",
}

#: What no runner sends, after one frame of output that it might have sent.
LIES = {
    "unknown kind": "os.write(1, bytes([99, 0, 0, 0, 0]))\ntime.sleep(60)",
    "frame of 4 GiB": "os.write(1, b'\\x11\\xff\\xff\\xff\\xff')\nwhile True: os.write(1, bytes(1 << 16))",
    "the worker's own kind": "say(Frame.RUN, b'{}')\ntime.sleep(60)",
    "a second greeting": "say(Frame.READY, b'{\"protocol\": 1}')\ntime.sleep(60)",
    "no frames at all": "os.write(1, b'Traceback (most recent call last):\\n' * 100)\ntime.sleep(60)",
    "report that is not JSON": "say(Frame.REPORT, b'{')\ntime.sleep(60)",
    "report, deeply nested": "say(Frame.REPORT, b'[' * 200_000)\ntime.sleep(60)",
    "report with text for numbers": f"say(Frame.REPORT, {json.dumps({**REPORT, 'exit_code': '0'}).encode()!r})",
    "report with a field more": f"say(Frame.REPORT, {json.dumps({**REPORT, 'output': 'x'}).encode()!r})",
    "report with a field less": f"say(Frame.REPORT, {json.dumps({'exit_code': 0}).encode()!r})",
    "report with not a number": f"say(Frame.REPORT, {json.dumps({**REPORT, 'timed_out': None}).encode()!r})",
    "report of another's run": f"say(Frame.STARTED, b'1')\nsay(Frame.REPORT, {json.dumps(REPORT).encode()!r})",
    "a second start": "say(Frame.STARTED, b'1')\nsay(Frame.STARTED, b'2')\ntime.sleep(60)",
    "violations after the start": "say(Frame.STARTED, b'1')\nsay(Frame.VIOLATIONS, b'[]')\ntime.sleep(60)",
    "report that is not UTF-8": "say(Frame.REPORT, b'\\xff\\xfe')",
}


class ImpostorConfig(SandboxConfig):
    """Makes sandboxes whose runner was taken over."""

    def container_spec(self, owner: str) -> dict[str, Any]:
        """Return the usual body of the "create container" call, with another command."""
        return super().container_spec(owner) | {"Entrypoint": ["/python", "-s", "-P", "-c", IMPOSTOR]}


@pytest.fixture(scope="module")
def module_den(sandboxes: SandboxConfig, docker_client: docker.DockerClient) -> Iterator[Arena]:
    """One executor for all of this module."""
    den = Arena(ImpostorConfig(runtime=sandboxes.runtime), docker_client)
    with den.executor:
        den.executor.warm()
        yield den


@pytest.fixture
def den(module_den: Arena, arena: Arena) -> Iterator[Arena]:
    """A place whose runner is an impostor; honest strategies run beside it, unharmed."""
    assert arena.executor is not module_den.executor
    yield module_den
    module_den.assert_gone()


@pytest.mark.threat("a runner that was taken over: lies", control="kinds, sizes and types checked by the worker")
@pytest.mark.parametrize("lie", LIES)
def test_lies_end_the_conversation(den: Arena, lie: str) -> None:
    """The first frame that no runner sends ends the run as crashed, at once; what came before it is kept."""
    reset_peak()
    before = peak_resident_bytes()
    started = time.monotonic()
    result = den.attack("say(Frame.STDOUT, b'begun')\n" + LIES[lie], timeout=8)
    assert result.status is ExecutionStatus.CRASHED, result
    assert result.output == "begun"
    assert time.monotonic() - started < 6
    assert peak_resident_bytes() - before < 32 << 20


@pytest.mark.threat(
    "a runner that was taken over: endless output", control="the worker's own output budget and deadline"
)
def test_endless_output_is_bounded(den: Arena) -> None:
    """1 MiB is kept of what never ends; the worker's deadline ends it, and its memory stays flat."""
    reset_peak()
    before = peak_resident_bytes()
    result = den.attack("while True: say(Frame.STDOUT, b'x' * (1 << 16))", timeout=1)
    assert result.status is ExecutionStatus.TIMED_OUT
    assert result.truncated
    assert len(result.output) == 1 << 20
    assert peak_resident_bytes() - before < 32 << 20


@pytest.mark.threat(
    "a runner that was taken over: silence", control="the worker's own deadline, 2 s after the runner's"
)
@pytest.mark.timeout(20)
def test_silence_ends_at_the_deadline(den: Arena) -> None:
    """A runner that never reports costs the run's time and 2 s."""
    result = den.attack("say(Frame.STDOUT, b'begun')\nwhile True: time.sleep(1)", timeout=1)
    assert result.status is ExecutionStatus.TIMED_OUT
    assert result.output == "begun"
    assert result.metrics.wall_seconds < 4


@pytest.mark.threat("a runner that was taken over: stderr", control="the worker keeps the last 4 KiB of it")
def test_flood_of_stderr_is_bounded(den: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's own stderr is for diagnostics: its tail is kept, and none of it becomes output."""
    held: list[int] = []
    release = den.executor._pool.release

    def looking(acquired: Acquired, *, clean: bool) -> None:
        held.append(len(acquired.sandbox._stream._stderr))
        release(acquired, clean=clean)

    monkeypatch.setattr(den.executor._pool, "release", looking)
    flood = "for _ in range(1 << 10): os.write(2, bytes(1 << 16))\n"
    result = den.attack(f"{flood}say(Frame.REPORT, {json.dumps(REPORT).encode()!r})\ntime.sleep(60)")
    assert result.success, result
    assert (result.output, result.stderr) == ("", "")
    assert 0 < held[0] <= 4096


@pytest.mark.threat("a runner that was taken over: numbers", control="strict types; what it measures is only its word")
def test_absurd_numbers_are_only_numbers(den: Arena) -> None:
    """A report of the right types and absurd values gives a result that can be sent."""
    absurd = {**REPORT, "exit_code": 2**62, "signal": None, "peak_memory_bytes": 2**63, "explanation": "x" * 100_000}
    result = den.attack(f"say(Frame.REPORT, {json.dumps(absurd).encode()!r})\ntime.sleep(60)")
    assert result.status is ExecutionStatus.FAILED
    assert json.loads(result.model_dump_json())["exit_code"] == 2**62
