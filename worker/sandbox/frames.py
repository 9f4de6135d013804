"""Length-prefixed frames: the wire between a worker and the runner in a container.

A frame is one byte of kind, four bytes of length (big-endian) and the payload. Both sides bound what they accept: a
length over `MAX_PAYLOAD_BYTES` or an unknown kind ends the conversation before a byte of it is buffered. Standard
library only, since the container has the same file.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHUNK_BYTES", "MAX_PAYLOAD_BYTES", "PROTOCOL", "Frame", "FrameDecoder", "FrameError", "encode", "split"]

#: Version of the conversation; the runner names it when it is ready and a worker refuses any other.
PROTOCOL = 3
#: Largest payload of one frame, bytes: the largest code (256 KiB) goes in one.
MAX_PAYLOAD_BYTES = 256 * 1024
#: Output and data travel in pieces of this size, bytes: what a pipe holds.
CHUNK_BYTES = 64 * 1024

_HEADER = struct.Struct("!BI")


class Frame(IntEnum):
    """What a frame carries."""

    #: Worker to runner: JSON with `timeout`, `output_bytes`, `seed`, `data_bytes`, and `check` and `extra_modules`: to
    #: check the code first, with these names per module beyond the image's policy. CODE and DATA follow.
    RUN = 1
    #: Worker to runner: the source, UTF-8.
    CODE = 2
    #: Worker to runner: a piece of the data file, until `data_bytes` have come.
    DATA = 3
    #: Runner to worker: JSON with `protocol` and `python`, its version; sent once, when numpy and pandas are imported.
    READY = 16
    #: Runner to worker: a piece of what the strategy wrote.
    STDOUT = 17
    STDERR = 18
    #: Runner to worker: JSON, how the run ended, with the token from STARTED; nothing follows.
    REPORT = 19
    #: Runner to worker: JSON, what a check refused; nothing of the strategy runs, and only REPORT follows.
    VIOLATIONS = 20
    #: Runner to worker: a token, hexadecimal. From here on the strategy runs, and what comes may be from its own hand
    #: where the kernel lets it at this channel (gVisor does). The token is what it cannot know.
    STARTED = 21


_KINDS = frozenset(Frame)


class FrameError(ValueError):
    """The other side does not speak the protocol."""


def encode(kind: Frame, payload: bytes) -> bytes:
    """Return one frame as bytes.

    Raises:
        FrameError: the payload is over `MAX_PAYLOAD_BYTES`.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        msg = f"a payload of {len(payload)} bytes does not fit one frame of {MAX_PAYLOAD_BYTES}"
        raise FrameError(msg)
    return _HEADER.pack(kind, len(payload)) + payload


def split(kind: Frame, data: bytes) -> Iterator[bytes]:
    """Yield `data` as frames of at most `CHUNK_BYTES` each; none for empty data."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield encode(kind, data[start : start + CHUNK_BYTES])


class FrameDecoder:
    """Turns a byte stream, in whatever pieces it comes, back into frames.

    It holds at most one frame and the piece fed last.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Frame, bytes]]:
        """Yield the frames that `data` completes.

        Raises:
            FrameError: an unknown kind, or a length over the bound.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if kind not in _KINDS or length > MAX_PAYLOAD_BYTES:
                msg = f"frame of kind {kind} and length {length}"
                raise FrameError(msg)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield Frame(kind), payload
