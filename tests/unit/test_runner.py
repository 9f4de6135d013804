"""The runner's pure pieces, over real pipes. What kills every process it can see is tested in real containers only."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import json
import mmap
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker.sandbox import channel, runner
from worker.sandbox.frames import (
    CHUNK_BYTES,
    HEADER,
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameDecoder,
    FrameError,
    encode,
    split,
)
from worker.sandbox.runner import Outlet
from worker.sandbox.standby import Standby
from worker.sandbox.strategy import EXPLANATION_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.sandbox.channel import Run


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
    assert len(channel.passage()) == HEADER.size + CHUNK_BYTES


def test_no_fork_has_the_memory_that_output_passes_through() -> None:
    """The kernel does not copy it: "dc" among the flags of proc(5), smaps."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(channel.passage()))
    flags: list[list[str]] = []
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(found[1], 16) <= address < int(found[2], 16)
        elif here and line.startswith("VmFlags:"):
            flags.append(line.split())
    assert len(flags) == 1
    assert "dc" in flags[0]


# The wire.


def header(data_bytes: int, **fields: Any) -> bytes:
    """Return a RUN frame."""
    message = {"timeout": 5.0, "output_bytes": 100, "data_bytes": data_bytes, "check": False, "last": True, **fields}
    return encode(Frame.RUN, json.dumps(message).encode())


def task(source: str, **options: Any) -> bytes:
    """Return a CODE frame."""
    return encode(Frame.CODE, json.dumps(options).encode() + b"\n" + source.encode())


@dataclass
class Received:
    """A run as it came in, with the memory and the file that its process shares with the runner."""

    run: Run
    task: mmap.mmap
    data_fd: int

    def options(self) -> tuple[dict[str, Any], str]:
        """Return options and source, as the strategy's process reads them."""
        line, _, source = self.task[: self.run.task_bytes].decode().partition("\n")
        return json.loads(line), source


@pytest.fixture
def task_memory() -> Iterator[mmap.mmap]:
    """Where options and source go."""
    with mmap.mmap(-1, MAX_PAYLOAD_BYTES) as memory:
        yield memory


@pytest.fixture
def data_fd() -> Iterator[int]:
    """Where the data goes: a file as a process that stands by has it."""
    fd = os.memfd_create("data.json", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def receive(control: Control, task_memory: mmap.mmap, data_fd: int) -> Callable[..., Received]:
    """Return the run that comes of some bytes."""

    def receive(*pieces: bytes) -> Received:
        control.say(*pieces)
        run = channel.receive(task_memory, data_fd)
        assert run is not None
        return Received(run, task_memory, data_fd)

    return receive


Receive = Callable[..., Received]


def test_a_run_arrives_whole(receive: Receive) -> None:
    """Limits for the runner; options, code and data for its children, the data in a file."""
    got = receive(header(4), task("é = 1\nprint(é)", seed=7), encode(Frame.DATA, b"[42]"))
    assert (got.run.timeout, got.run.output_bytes, got.run.check, got.run.last) == (5.0, 100, False, True)
    assert got.options() == ({"seed": 7}, "é = 1\nprint(é)")
    assert os.pread(got.data_fd, 10, 0) == b"[42]"


def test_nothing_of_a_longer_run_is_read_with_a_shorter_one(
    control: Control, task_memory: mmap.mmap, data_fd: int
) -> None:
    """What stands behind the source is not part of it, whatever was there."""
    task_memory[:] = b"#" * len(task_memory)
    control.say(header(0), task("x = 1", seed=7))
    run = channel.receive(task_memory, data_fd)
    assert run is not None
    assert Received(run, task_memory, data_fd).options() == ({"seed": 7}, "x = 1")


def test_the_largest_code_arrives(receive: Receive) -> None:
    """It fills the memory for it to the last byte."""
    source = "#" * (MAX_PAYLOAD_BYTES - len(b"{}\n"))
    got = receive(header(0), task(source))
    assert got.run.task_bytes == len(got.task)
    assert got.options() == ({}, source)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_run_arrives_in_any_pieces(receive: Receive, size: int) -> None:
    """However the pipe cuts it, and the end of the channel is not needed to know that all is there."""
    wire = header(4) + task("x = 1") + encode(Frame.DATA, b"[") + encode(Frame.DATA, b"42]")
    got = receive(*(wire[at : at + size] for at in range(0, len(wire), size)))
    assert (got.options()[1], os.pread(got.data_fd, 10, 0)) == ("x = 1", b"[42]")


def test_a_large_data_file_arrives(receive: Receive) -> None:
    """Four MiB in 64 KiB frames, through a pipe that holds one of them."""
    data = bytes(itertools.islice(itertools.cycle(range(251)), 4 * 2**20))
    got = receive(header(len(data)), task("x"), *split(Frame.DATA, data))
    assert os.fstat(got.data_fd).st_size == len(data)
    assert os.pread(got.data_fd, len(data), 0) == data


@pytest.mark.parametrize("data", [b"", b"[42]"], ids=["empty", "some"])
def test_the_data_file_is_sealed(receive: Receive, data: bytes) -> None:
    """Read-only for good: not written, grown, cut, nor unsealed."""
    fd = receive(header(len(data)), task("x"), *split(Frame.DATA, data)).data_fd
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 4)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 100)
    if data:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with Path(f"/proc/self/fd/{fd}").open("r+b", buffering=0) as again, pytest.raises(PermissionError):
        again.write(b"x")


def test_every_open_of_the_data_file_starts_at_its_beginning(receive: Receive) -> None:
    """The path in the image is a link to the descriptor, and each open has its own offset."""
    got = receive(header(4), task("x"), encode(Frame.DATA, b"[42]"))
    assert [Path(f"/proc/self/fd/{got.data_fd}").read_bytes() for _ in range(2)] == [b"[42]"] * 2


@pytest.mark.parametrize(
    "pieces",
    [[], [b"\x01"], [header(4)], [header(4), task("x")], [header(2), task("x"), encode(Frame.DATA, b"{")]],
)
def test_a_hang_up_before_the_run_is_complete_is_none(
    control: Control, task_memory: mmap.mmap, data_fd: int, pieces: list[bytes]
) -> None:
    """A worker that died half-way: the runner leaves without running anything."""
    control.say(*pieces)
    assert channel.receive(task_memory, data_fd) is None


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
def test_a_frame_out_of_place_ends_the_runner(
    control: Control, task_memory: mmap.mmap, data_fd: int, pieces: list[bytes]
) -> None:
    """With a line on its stderr, which the worker shows."""
    control.say(*pieces)
    with pytest.raises(SystemExit, match="unexpected frame"):
        channel.receive(task_memory, data_fd)


def test_babble_ends_the_runner(control: Control, task_memory: mmap.mmap, data_fd: int) -> None:
    """Bytes that are no frame."""
    control.say(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(FrameError):
        channel.receive(task_memory, data_fd)


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

    for module, name in (
        (runner, "prepare"),
        (runner, "receive"),
        (runner, "serve"),
        (channel, "send_json"),
        (channel, "receive"),
        (Standby, "ready"),
    ):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    with pytest.raises(SystemExit, match="PID 1 of a sandbox container") as caught:
        runner.main()
    assert isinstance(caught.value.code, str), "a text: it goes to stderr, and the exit code is 1"
