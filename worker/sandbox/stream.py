"""The attached streams of one container: frames out of its stdout, a bounded tail of its stderr."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from worker.sandbox.frames import FrameDecoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.sandbox.frames import Frame

__all__ = ["AttachedStream"]

RECEIVE_BYTES = 256 * 1024
MAX_DIAGNOSTICS_BYTES = 4096
#: The engine's framing: stream number, three zero bytes, length (big-endian).
HEADER_BYTES = 8
STDOUT = 1


class AttachedStream:
    """The worker's end of a sandbox's stdin, stdout and stderr."""

    def __init__(self) -> None:
        self._response: Any = None
        self._socket: socket.socket | None = None
        self._decoder = FrameDecoder()
        self._stderr = bytearray()
        self._pending = bytearray()

    def attach(self, response: Any) -> None:
        """Take over what the engine's attach call returned: a file that cannot be written, around a socket that can."""
        self._response = response
        self._socket = getattr(response, "_sock", response)

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of `data`.

        Raises:
            TimeoutError: the deadline (of `time.monotonic()`) passed.
            OSError: the container hung up.
        """
        if self._socket is None:
            raise BrokenPipeError
        self._socket.settimeout(_remaining(deadline))
        self._socket.sendall(data)

    def frames(self, deadline: float) -> Iterator[tuple[Frame, bytes]]:
        """Yield frames until the container hangs up.

        Raises:
            TimeoutError: the deadline passed.
            FrameError: what comes is not frames.
        """
        while self._socket is not None:
            self._socket.settimeout(_remaining(deadline))
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                return
            for stdout in self._demultiplex(data):
                yield from self._decoder.feed(stdout)

    def _demultiplex(self, data: bytes) -> Iterator[bytes]:
        """Undo the engine's own framing: stream number, three zero bytes, length, payload."""
        self._pending += data
        while len(self._pending) >= HEADER_BYTES:
            end = HEADER_BYTES + int.from_bytes(self._pending[4:8], "big")
            if len(self._pending) < end:
                return
            number, payload = self._pending[0], bytes(self._pending[HEADER_BYTES:end])
            del self._pending[:end]
            if number == STDOUT:
                yield payload
            else:
                self._stderr = (self._stderr + payload)[-MAX_DIAGNOSTICS_BYTES:]

    def diagnostics(self) -> str:
        """Return the last line the runner itself wrote to its stderr."""
        lines = self._stderr.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def quiet(self) -> bool:
        """Whether the peer is there and has said nothing that was not heard."""
        if self._socket is None or self._pending or self._decoder.pending:
            return False
        if self._socket.fileno() < 0:  # closed
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def hang_up(self) -> None:
        """Give the runner its end of input, which ends it, and wake whoever waits in `frames()`."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up and let go of the socket."""
        self.hang_up()
        for opened in (self._response, self._socket):  # closing the file leaves its socket open
            if opened is not None:
                opened.close()


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining
