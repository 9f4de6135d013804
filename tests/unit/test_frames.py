"""Frames: what is sent is what arrives, in whatever pieces, and never more than one is held."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.models import MAX_CODE_BYTES
from worker.sandbox.frames import (
    CHUNK_BYTES,
    MAX_PAYLOAD_BYTES,
    PROTOCOL,
    Frame,
    FrameDecoder,
    FrameError,
    encode,
    split,
)

HEADER_BYTES = 5
#: What the options of a run may take, beside its code: an operator may allow many names of many modules.
OPTIONS_BYTES = 64 * 1024
FRAMES = st.lists(st.tuples(st.sampled_from(Frame), st.binary(max_size=300)), max_size=8)
#: Where to cut a stream, as shares of its length.
CUTS = st.lists(st.floats(0, 1), max_size=12)


def pieces(stream: bytes, cuts: list[float]) -> list[bytes]:
    """Cut a stream at some places."""
    places = [0, *sorted(int(cut * len(stream)) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(places)]


@given(frames=FRAMES, cuts=CUTS)
@settings(max_examples=200, deadline=None)
def test_frames_survive_any_chunking(frames: list[tuple[Frame, bytes]], cuts: list[float]) -> None:
    """However a pipe cuts the stream, the same frames come out in the same order."""
    stream = b"".join(encode(kind, payload) for kind, payload in frames)
    decoder = FrameDecoder()
    assert [frame for piece in pieces(stream, cuts) for frame in decoder.feed(piece)] == frames
    assert decoder._buffer == b""


def test_frames_survive_byte_by_byte() -> None:
    """The worst chunking of all."""
    decoder = FrameDecoder()
    stream = encode(Frame.STDOUT, b"abc") + encode(Frame.REPORT, b"")
    got = [frame for byte in stream for frame in decoder.feed(bytes([byte]))]
    assert got == [(Frame.STDOUT, b"abc"), (Frame.REPORT, b"")]


@given(chunks=st.lists(st.binary(max_size=5000), max_size=10), big=st.integers(0, MAX_PAYLOAD_BYTES))
@settings(max_examples=100, deadline=None)
def test_decoder_never_buffers_over_its_bound(chunks: list[bytes], big: int) -> None:
    """Whatever comes, hostile bytes included: less than one frame stays behind, and what was fed last."""
    decoder = FrameDecoder()
    opening = encode(Frame.STDOUT, bytes(big))[: HEADER_BYTES + big // 2]
    for chunk in [opening, *chunks]:
        try:
            for _ in decoder.feed(chunk):
                assert len(decoder._buffer) <= HEADER_BYTES + MAX_PAYLOAD_BYTES + len(chunk)
        except FrameError:
            return
        assert len(decoder._buffer) < HEADER_BYTES + MAX_PAYLOAD_BYTES


def test_a_length_over_the_bound_is_refused_before_its_payload() -> None:
    """The header alone is enough: nobody waits for, or holds, 4 GiB."""
    for length in (MAX_PAYLOAD_BYTES + 1, 2**32 - 1):
        with pytest.raises(FrameError, match=str(length)):
            list(FrameDecoder().feed(bytes([Frame.STDOUT]) + length.to_bytes(4, "big")))


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(Frame)))
def test_an_unknown_kind_is_refused(kind: int) -> None:
    """Every byte that is no frame's."""
    with pytest.raises(FrameError, match=f"kind {kind} "):
        list(FrameDecoder().feed(bytes([kind, 0, 0, 0, 0])))


def test_frames_before_a_bad_one_are_delivered() -> None:
    """Output that came before the babble is kept."""
    got = []
    decoder = FrameDecoder()
    with pytest.raises(FrameError):  # noqa: PT012  # the loop is what raises
        for frame in decoder.feed(encode(Frame.STDOUT, b"kept") + b"\xff" * 5):
            got.append(frame)  # noqa: PERF402
    assert got == [(Frame.STDOUT, b"kept")]


def test_frame_error_is_a_value_error() -> None:
    """As json and pydantic have it, for one `except`."""
    assert issubclass(FrameError, ValueError)


def test_largest_payload_fits_one_frame() -> None:
    """The largest code goes in one, with room for its options, and comes out again."""
    assert MAX_PAYLOAD_BYTES >= MAX_CODE_BYTES + OPTIONS_BYTES
    payload = b"x" * MAX_PAYLOAD_BYTES
    assert list(FrameDecoder().feed(encode(Frame.CODE, payload))) == [(Frame.CODE, payload)]


def test_one_byte_more_is_refused_by_the_sender() -> None:
    """So that a mistake shows where it is made."""
    with pytest.raises(FrameError, match=str(MAX_PAYLOAD_BYTES + 1)):
        encode(Frame.CODE, b"x" * (MAX_PAYLOAD_BYTES + 1))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_split_loses_nothing(size: int) -> None:
    """Pieces of at most 64 KiB, none of them empty."""
    data = bytes(index % 251 for index in range(size))
    decoder = FrameDecoder()
    got = [frame for piece in split(Frame.DATA, data) for frame in decoder.feed(piece)]
    assert b"".join(payload for _, payload in got) == data
    assert {kind for kind, _ in got} <= {Frame.DATA}
    assert all(0 < len(payload) <= CHUNK_BYTES for _, payload in got)
    assert len(got) == -(-size // CHUNK_BYTES)


def test_the_wire_is_as_written_down() -> None:
    """Kinds are part of protocol 4: a worker and an image of different age must agree on them."""
    assert PROTOCOL == 4
    assert encode(Frame.STDOUT, b"ab") == b"\x11\x00\x00\x00\x02ab"
    assert {frame.name: int(frame) for frame in Frame} == {
        "RUN": 1,
        "CODE": 2,
        "DATA": 3,
        "READY": 16,
        "STDOUT": 17,
        "STDERR": 18,
        "REPORT": 19,
        "VIOLATIONS": 20,
        "STARTED": 21,
    }
