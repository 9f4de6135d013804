"""The runner's pure pieces, over real pipes. What kills every process it can see is tested in real containers only."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker.sandbox import channel, runner
from worker.sandbox.channel import Run
from worker.sandbox.frames import CHUNK_BYTES, MAX_PAYLOAD_BYTES, Frame, FrameDecoder, FrameError, encode, split
from worker.sandbox.runner import Outlet
from worker.sandbox.strategy import EXPLANATION_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator


class Control:
    """The worker's ends of the control channel."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.runner_in, self._to_runner = os.pipe()
        self._from_runner, self.runner_out = os.pipe()
        patch.setattr(channel, "CONTROL_IN", self.runner_in)
        patch.setattr(channel, "CONTROL_OUT", self.runner_out)

    def say(self, *pieces: bytes) -> None:
        """Send bytes to the runner, each piece on its own, and then hang up."""

        def write() -> None:
            with contextlib.suppress(BrokenPipeError):
                for piece in pieces:
                    os.write(self._to_runner, piece)
            os.close(self._to_runner)
            self._to_runner = -1

        threading.Thread(target=write, daemon=True).start()

    def heard(self) -> list[tuple[Frame, bytes]]:
        """Return what the runner has sent; it says nothing more after that."""
        os.close(self.runner_out)
        self.runner_out = -1
        decoder = FrameDecoder()
        frames: list[tuple[Frame, bytes]] = []
        while data := os.read(self._from_runner, 1 << 16):
            frames += decoder.feed(data)
        return frames

    def close(self) -> None:
        """Close what is open."""
        for fd in (self.runner_in, self._to_runner, self._from_runner, self.runner_out):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """Pipes in place of the runner's stdin and stdout."""
    ends = Control(monkeypatch)
    yield ends
    deadline = time.monotonic() + 5
    while ends._to_runner >= 0 and threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    ends.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe as the runner has it for a strategy's output: its end does not block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    for fd in (read, write):
        with contextlib.suppress(OSError):
            os.close(fd)


Pipe = tuple[int, int]


# Outlet.


def test_output_is_forwarded_as_a_frame(control: Control, pipe: Pipe) -> None:
    """With its kind; the budget shrinks by what was kept."""
    outlet = Outlet(10, {pipe[0]: Frame.STDERR})
    os.write(pipe[1], b"abc")
    assert outlet.forward(pipe[0]) is True
    assert (outlet.budget, outlet.truncated) == (7, False)
    assert control.heard() == [(Frame.STDERR, b"abc")]


def test_nothing_to_read_is_no_output(control: Control, pipe: Pipe) -> None:
    """Neither while the strategy is silent nor when it has closed the pipe."""
    outlet = Outlet(10, {pipe[0]: Frame.STDOUT})
    assert outlet.forward(pipe[0]) is False
    os.close(pipe[1])
    assert outlet.forward(pipe[0]) is False
    assert control.heard() == []


@pytest.mark.parametrize(
    ("budget", "kept", "truncated"),
    [(5, b"abcde", False), (6, b"abcde", False), (4, b"abcd", True), (0, b"", True)],
)
def test_the_budget_is_exact(control: Control, pipe: Pipe, budget: int, kept: bytes, *, truncated: bool) -> None:
    """What fits is sent, the rest is dropped and that is said; no empty frame."""
    outlet = Outlet(budget, {pipe[0]: Frame.STDOUT})
    os.write(pipe[1], b"abcde")
    assert outlet.forward(pipe[0]) is True
    assert outlet.truncated is truncated
    assert control.heard() == ([(Frame.STDOUT, kept)] if kept else [])


def test_over_budget_output_is_read_on_and_dropped(control: Control, pipe: Pipe) -> None:
    """A strategy that floods is not blocked by a full pipe, and nothing more of it is sent."""
    outlet = Outlet(3, {pipe[0]: Frame.STDOUT})
    for _ in range(20):
        os.write(pipe[1], b"x" * CHUNK_BYTES)
        assert outlet.forward(pipe[0]) is True
    assert (outlet.budget, outlet.truncated) == (0, True)
    assert control.heard() == [(Frame.STDOUT, b"xxx")]


def test_both_streams_share_one_budget(control: Control, pipe: Pipe) -> None:
    """First come, first kept."""
    err_read, err_write = os.pipe()
    outlet = Outlet(5, {pipe[0]: Frame.STDOUT, err_read: Frame.STDERR})
    os.write(pipe[1], b"abc")
    os.write(err_write, b"defg")
    outlet.forward(pipe[0])
    outlet.forward(err_read)
    os.close(err_read)
    os.close(err_write)
    assert outlet.truncated is True
    assert control.heard() == [(Frame.STDOUT, b"abc"), (Frame.STDERR, b"de")]


def test_one_piece_fits_one_frame() -> None:
    """What one read may give is what one frame may hold."""
    assert CHUNK_BYTES <= MAX_PAYLOAD_BYTES


# The wire.


def header(data_bytes: int, **fields: Any) -> bytes:
    """Return a RUN frame."""
    message = {"timeout": 5.0, "output_bytes": 100, "data_bytes": data_bytes, "check": False, "last": True, **fields}
    return encode(Frame.RUN, json.dumps(message).encode())


def task(source: str, **options: Any) -> bytes:
    """Return a CODE frame."""
    return encode(Frame.CODE, json.dumps(options).encode() + b"\n" + source.encode())


def received(control: Control, *pieces: bytes) -> Run:
    """Return the run that comes of these bytes."""
    control.say(*pieces)
    run = channel.receive()
    assert run is not None
    return run


def test_a_run_arrives_whole(control: Control) -> None:
    """Limits for the runner; options, code and data for its children, the data in a file."""
    run = received(control, header(4), task("é = 1\nprint(é)", seed=7), encode(Frame.DATA, b"[42]"))
    assert (run.timeout, run.output_bytes, run.check, run.last) == (5.0, 100, False, True)
    assert run.options() == ({"seed": 7}, "é = 1\nprint(é)")
    assert os.pread(run.data_fd, 10, 0) == b"[42]"
    run.close()


def test_nothing_of_a_run_stays(control: Control) -> None:
    """Its memory is gone with it, its descriptor, too."""
    run = received(control, header(4), task("x"), encode(Frame.DATA, b"[42]"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    run.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    with pytest.raises(ValueError, match="closed"):
        run.options()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_run_arrives_in_any_pieces(control: Control, size: int) -> None:
    """However the pipe cuts it, and the end of the channel is not needed to know that all is there."""
    wire = header(4) + task("x = 1") + encode(Frame.DATA, b"[") + encode(Frame.DATA, b"42]")
    run = received(control, *(wire[at : at + size] for at in range(0, len(wire), size)))
    assert (run.options()[1], os.pread(run.data_fd, 10, 0)) == ("x = 1", b"[42]")
    run.close()


def test_a_large_data_file_arrives(control: Control) -> None:
    """Four MiB in 64 KiB frames, through a pipe that holds one of them."""
    data = bytes(itertools.islice(itertools.cycle(range(251)), 4 * 2**20))
    run = received(control, header(len(data)), task("x"), *split(Frame.DATA, data))
    assert os.fstat(run.data_fd).st_size == len(data)
    assert os.pread(run.data_fd, len(data), 0) == data
    run.close()


def test_the_data_file_is_sealed(control: Control) -> None:
    """Read-only for good: not written, grown, cut, nor unsealed."""
    run = received(control, header(4), task("x"), encode(Frame.DATA, b"[42]"))
    with pytest.raises(PermissionError):
        os.pwrite(run.data_fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.pwrite(run.data_fd, b"x", 4)
    with pytest.raises(PermissionError):
        os.ftruncate(run.data_fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(run.data_fd, 100)
    with Path(f"/proc/self/fd/{run.data_fd}").open("r+b", buffering=0) as again, pytest.raises(PermissionError):
        again.write(b"x")
    run.close()


def test_every_open_of_the_data_file_starts_at_its_beginning(control: Control) -> None:
    """The path in the image is a link to the descriptor, and each open has its own offset."""
    run = received(control, header(4), task("x"), encode(Frame.DATA, b"[42]"))
    assert [Path(f"/proc/self/fd/{run.data_fd}").read_bytes() for _ in range(2)] == [b"[42]"] * 2
    run.close()


def test_the_data_file_is_not_inherited(control: Control) -> None:
    """Only the strategy's own process gets it, at its one number."""
    run = received(control, header(0), task("x"))
    assert os.get_inheritable(run.data_fd) is False
    run.close()


@pytest.mark.parametrize(
    "pieces",
    [[], [b"\x01"], [header(4)], [header(4), task("x")], [header(2), task("x"), encode(Frame.DATA, b"{")]],
)
def test_a_hang_up_before_the_run_is_complete_is_none(control: Control, pieces: list[bytes]) -> None:
    """A worker that died half-way: the runner leaves without running anything."""
    control.say(*pieces)
    assert channel.receive() is None


@pytest.mark.parametrize(
    "pieces",
    [
        [task("x")],
        [encode(Frame.DATA, b"x")],
        [header(1), encode(Frame.STDOUT, b"x")],
        [header(1), encode(Frame.REPORT, b"{}")],
        [header(1), task("x"), task("x")],
        [header(1), task("x"), encode(Frame.DATA, b"xy")],
    ],
)
def test_a_frame_out_of_place_ends_the_runner(control: Control, pieces: list[bytes]) -> None:
    """With a line on its stderr, which the worker shows."""
    control.say(*pieces)
    with pytest.raises(SystemExit, match="unexpected frame"):
        channel.receive()


def test_babble_ends_the_runner(control: Control) -> None:
    """Bytes that are no frame."""
    control.say(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(FrameError):
        channel.receive()


def test_a_frame_is_sent_whole(control: Control) -> None:
    """A payload larger than the pipe: every byte arrives, however often the kernel takes a part."""
    payload = b"x" * MAX_PAYLOAD_BYTES
    sender = threading.Thread(target=channel.send, args=(Frame.STDOUT, payload))
    os.set_blocking(control.runner_out, True)
    sender.start()
    got = b""
    while len(got) < len(payload) + 5:
        got += os.read(control._from_runner, 1000)
    sender.join()
    assert got == encode(Frame.STDOUT, payload)


def test_a_report_with_the_worst_explanation_fits_one_frame(control: Control) -> None:
    """Whatever is scribbled where the explanation stands: six bytes for each are the most."""
    for byte in (b"\x01", b"\xff", b'"', b"\\", b"a"):
        raw = byte * EXPLANATION_BYTES
        text = raw.partition(b"\0")[0].decode("ascii", "replace")
        encode(
            Frame.REPORT, json.dumps({"explanation": text, "cpu_seconds": 1e300, "peak_memory_bytes": 2**63}).encode()
        )
    channel.send_json(Frame.REPORT, {"exit_code": None})
    assert control.heard() == [(Frame.REPORT, b'{"exit_code": null}')]


# The one guard that protects this machine.


def test_main_refuses_to_be_anything_but_pid_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere its `kill(-1)` would end every process of the user. Should the guard fail, this test still stops."""

    def stop(*_: object) -> None:
        pytest.fail("the guard let it through")

    for module, name in ((runner, "prepare"), (runner, "serve"), (channel, "send_json"), (channel, "receive")):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    with pytest.raises(SystemExit, match="PID 1 of a sandbox container") as caught:
        runner.main()
    assert isinstance(caught.value.code, str), "a text: it goes to stderr, and the exit code is 1"
