"""The attached stream over real sockets: the engine's framing is undone, and every wait and every buffer ends."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.sandbox import stream
from worker.sandbox.frames import Frame, FrameError, encode
from worker.sandbox.stream import MAX_DIAGNOSTICS_BYTES, AttachedStream

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN, STDOUT, STDERR = 0, 1, 2


def engine(number: int, payload: bytes) -> bytes:
    """Wrap bytes as the engine does: stream number, three zeros, length."""
    return bytes([number, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return time.monotonic() + seconds


@contextmanager
def attached() -> Iterator[tuple[AttachedStream, socket.socket]]:
    """Give a stream and the container's end of it."""
    ours, theirs = socket.socketpair()
    attached_stream = AttachedStream()
    attached_stream.attach(ours)
    try:
        yield attached_stream, theirs
    finally:
        attached_stream.close()
        theirs.close()


@pytest.fixture
def pair() -> Iterator[tuple[AttachedStream, socket.socket]]:
    """A stream and the container's end of it."""
    with attached() as ends:
        yield ends


Pair = tuple[AttachedStream, socket.socket]


@given(
    frames=st.lists(
        st.tuples(st.sampled_from([Frame.STDOUT, Frame.STDERR, Frame.REPORT]), st.binary(max_size=200)), max_size=6
    ),
    message_bytes=st.integers(1, 100),
    receive_bytes=st.integers(1, 300),
    noise=st.binary(max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_frames_survive_both_framings(
    frames: list[tuple[Frame, bytes]], message_bytes: int, receive_bytes: int, noise: bytes
) -> None:
    """The engine cuts the runner's frames anywhere, the socket cuts the engine's, stderr comes between."""
    wire = b"".join(encode(kind, payload) for kind, payload in frames)
    starts = range(0, len(wire), message_bytes)
    messages = [engine(STDERR, noise) + engine(STDOUT, wire[at : at + message_bytes]) for at in starts]
    with attached() as (ours, theirs), pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "RECEIVE_BYTES", receive_bytes)
        theirs.sendall(b"".join(messages))
        theirs.shutdown(socket.SHUT_WR)
        assert list(ours.frames(soon())) == frames


def test_frames_end_when_the_container_hangs_up(pair: Pair) -> None:
    """The end of the stream is the end of the iteration, no error."""
    ours, theirs = pair
    theirs.sendall(engine(STDOUT, encode(Frame.STDOUT, b"last words")))
    theirs.close()
    assert list(ours.frames(soon())) == [(Frame.STDOUT, b"last words")]


def test_a_cut_frame_is_not_delivered(pair: Pair) -> None:
    """Half a frame before the hang-up is none."""
    ours, theirs = pair
    theirs.sendall(engine(STDOUT, encode(Frame.REPORT, b"{}")[:-1]))
    theirs.close()
    assert list(ours.frames(soon())) == []


def test_frames_may_be_read_on_later(pair: Pair) -> None:
    """The first frame is read alone when the sandbox starts; what came with it is not lost."""
    ours, theirs = pair
    theirs.sendall(engine(STDOUT, encode(Frame.READY, b"{}") + encode(Frame.STDOUT, b"a")[:3]))
    assert next(ours.frames(soon())) == (Frame.READY, b"{}")
    theirs.sendall(engine(STDOUT, encode(Frame.STDOUT, b"a")[3:]))
    assert next(ours.frames(soon())) == (Frame.STDOUT, b"a")


def test_silence_ends_at_the_deadline(pair: Pair) -> None:
    """A container that says nothing does not hold the worker."""
    ours, _ = pair
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        next(ours.frames(soon(0.05)))
    assert 0.04 < time.monotonic() - started < 1


def test_chatter_ends_at_the_deadline(pair: Pair) -> None:
    """Nor does one that never stops: the deadline is of the whole, not of each read."""
    ours, theirs = pair
    stop = threading.Event()

    def chat() -> None:
        while not stop.wait(0.01):
            theirs.sendall(engine(STDERR, b"."))

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            list(ours.frames(soon(0.15)))
    finally:
        stop.set()
        thread.join()


def test_a_passed_deadline_reads_nothing(pair: Pair) -> None:
    """Even when there is something to read."""
    ours, theirs = pair
    theirs.sendall(engine(STDOUT, encode(Frame.STDOUT, b"a")))
    with pytest.raises(TimeoutError):
        next(ours.frames(time.monotonic()))


def test_babble_is_a_frame_error(pair: Pair) -> None:
    """What no runner sends ends the conversation."""
    ours, theirs = pair
    theirs.sendall(engine(STDOUT, b"Hello, I am a shell\n"))
    with pytest.raises(FrameError):
        list(ours.frames(soon()))


def test_stderr_is_never_taken_for_frames(pair: Pair) -> None:
    """A report written to the runner's stderr is talk."""
    ours, theirs = pair
    theirs.sendall(engine(STDERR, encode(Frame.REPORT, b"{}")) + engine(STDIN, encode(Frame.REPORT, b"{}")))
    theirs.close()
    assert list(ours.frames(soon())) == []


def test_diagnostics_is_the_last_line(pair: Pair) -> None:
    """Of a traceback, the line that names the error; bytes that are no text do no harm."""
    ours, theirs = pair
    assert ours.diagnostics() == ""
    theirs.sendall(engine(STDERR, b"Traceback\n") + engine(STDERR, b"ImportError: \xff\n\n"))
    theirs.close()
    assert list(ours.frames(soon())) == []
    assert ours.diagnostics() == "ImportError: \ufffd"


def test_diagnostics_are_bounded(pair: Pair) -> None:
    """A flood of stderr leaves its tail."""
    ours, theirs = pair
    theirs.sendall(b"".join(engine(STDERR, bytes([65 + number]) * 1000) for number in range(20)))
    theirs.close()
    assert list(ours.frames(soon())) == []
    assert len(ours.diagnostics()) == len(ours._stderr) == MAX_DIAGNOSTICS_BYTES
    assert ours.diagnostics().endswith("S" * 1000 + "T" * 1000)


def test_send_reaches_the_container(pair: Pair) -> None:
    """Whole and unframed: what the runner reads is what was sent."""
    ours, theirs = pair
    ours.send(b"abc", soon())
    assert theirs.recv(10) == b"abc"


def test_send_to_one_that_does_not_read_ends_at_the_deadline(pair: Pair) -> None:
    """A full socket does not hold the worker."""
    ours, _ = pair
    with pytest.raises(TimeoutError):
        ours.send(b"x" * 16 * 2**20, soon(0.05))


def test_send_after_the_hang_up_is_an_os_error(pair: Pair) -> None:
    """As the sandbox expects it."""
    ours, theirs = pair
    theirs.close()
    with pytest.raises(OSError, match="pipe"):
        ours.send(b"x", soon())


def test_before_it_is_attached_there_is_nothing() -> None:
    """A sandbox that failed before its attach can still be asked, hung up and closed."""
    unattached = AttachedStream()
    assert list(unattached.frames(soon())) == []
    assert unattached.quiet() is False
    with pytest.raises(BrokenPipeError):
        unattached.send(b"x", soon())
    unattached.hang_up()
    unattached.close()


def test_a_silent_peer_is_quiet(pair: Pair) -> None:
    """A warm sandbox: there, and waiting. Asking twice changes nothing."""
    ours, _ = pair
    assert ours.quiet() is True
    assert ours.quiet() is True


def test_a_peer_that_hung_up_is_not_quiet(pair: Pair) -> None:
    """A warm sandbox that has died."""
    ours, theirs = pair
    theirs.close()
    assert ours.quiet() is False


def test_a_peer_that_speaks_is_not_quiet(pair: Pair) -> None:
    """What speaks before it is spoken to is no sound runner; and nothing of it is swallowed."""
    ours, theirs = pair
    theirs.sendall(engine(STDOUT, encode(Frame.STDOUT, b"a")))
    assert ours.quiet() is False
    assert next(ours.frames(soon())) == (Frame.STDOUT, b"a")


@pytest.mark.parametrize("messages", [1, 2], ids=["in one message of the engine", "in two"])
def test_a_peer_that_said_more_than_was_heard_is_not_quiet(pair: Pair, messages: int) -> None:
    """Read from the socket already, and not asked for: of a runner that was taken over, for the next run to find."""
    ours, theirs = pair
    wire = encode(Frame.REPORT, b"{}") + encode(Frame.STDOUT, b"more")
    at = len(wire) if messages == 1 else len(encode(Frame.REPORT, b"{}"))
    theirs.sendall(b"".join(engine(STDOUT, part) for part in (wire[:at], wire[at:]) if part))
    assert next(ours.frames(soon())) == (Frame.REPORT, b"{}")
    assert ours.quiet() is False


def test_closing_twice_does_nothing(pair: Pair) -> None:
    """Nor does a hang-up after it, as a late cancel does."""
    ours, theirs = pair
    ours.close()
    ours.close()
    ours.hang_up()
    assert theirs.recv(1) == b""


def test_after_close_nothing_is_quiet(pair: Pair) -> None:
    """A destroyed sandbox is not alive; asking is no error."""
    ours, _ = pair
    ours.close()
    assert ours.quiet() is False


def test_hang_up_wakes_the_reader_and_ends_the_runner(pair: Pair) -> None:
    """This is how another thread ends a run: both sides see the end of their input."""
    ours, theirs = pair
    timer = threading.Timer(0.05, ours.hang_up)
    timer.start()
    started = time.monotonic()
    assert list(ours.frames(soon())) == []
    assert time.monotonic() - started < 1
    assert theirs.recv(1) == b""
    timer.join()


def test_close_closes_what_the_engine_s_client_returned() -> None:
    """The socket inside and the file around it: else a descriptor leaks with each run."""
    ours, theirs = socket.socketpair()
    response = ours.makefile("rb", buffering=0)
    attached_stream = AttachedStream()
    response._sock = ours  # type: ignore[attr-defined]
    attached_stream.attach(response)
    attached_stream.send(b"x", soon())
    attached_stream.close()
    assert response.closed
    assert theirs.recv(10) == b"x"
    assert theirs.recv(10) == b""
    ours.close()
    theirs.close()
