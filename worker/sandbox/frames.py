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

__all__ = [
    "CHUNK_BYTES",
    "HEADER",
    "MAX_PAYLOAD_BYTES",
    "PROTOCOL",
    "Frame",
    "FrameDecoder",
    "FrameError",
    "encode",
    "read_header",
    "split",
]

#: Version of the conversation; the runner names it when it is ready and a worker refuses any other.
PROTOCOL = 4
#: Largest payload of one frame, bytes: the largest code (256 KiB) goes in one, with its options.
MAX_PAYLOAD_BYTES = 320 * 1024
#: Output and data travel in pieces of this size, bytes: what a pipe holds.
CHUNK_BYTES = 64 * 1024

#: Kind and length.
HEADER = struct.Struct("!BI")


class Frame(IntEnum):
    """What a frame carries."""

    #: Worker to runner: JSON with `timeout`, `output_bytes`, `data_bytes`, `check` (the code, first) and `last` (no
    #: other run follows). CODE and DATA come next.
    RUN = 1
    #: Worker to runner: a line of JSON with `seed`, and `extra_modules`, what names per module the check allows beyond
    #: the image's policy; then the source, UTF-8.
    CODE = 2
    #: Worker to runner: a piece of the data file, until `data_bytes` have come.
    DATA = 3
    #: Runner to worker: JSON with `protocol` and `python`, its version; sent once, when numpy and pandas are imported.
    READY = 16
    #: Runner to worker: a piece of what the strategy wrote.
    STDOUT = 17
    STDERR = 18
    #: Runner to worker: JSON, how the run ended, with the token from STARTED; nothing of this run follows.
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
    return HEADER.pack(kind, len(payload)) + payload


def read_header(data: bytes | bytearray) -> tuple[Frame, int]:
    """Return the kind of the frame that begins with `data`, and the length of its payload, bytes.

    Raises:
        FrameError: an unknown kind, or a length over the bound.
    """
    kind, length = HEADER.unpack_from(data)
    if kind not in _KINDS or length > MAX_PAYLOAD_BYTES:
        msg = f"frame of kind {kind} and length {length}"
        raise FrameError(msg)
    return Frame(kind), length


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

    @property
    def pending(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[tuple[Frame, bytes]]:
        """Yield the frames that `data` completes.

        Raises:
            FrameError: an unknown kind, or a length over the bound.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, length = read_header(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield kind, payload
