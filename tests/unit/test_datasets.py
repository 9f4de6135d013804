"""What a worker makes of a data set that somebody else may have written; what needs Redis is tested with a real one."""

from __future__ import annotations

import bz2
import os
import tracemalloc
import zlib

import pytest

from tasks.datasets import MAX_COMPRESSED_BYTES, _decompress, unknown_dataset
from tasks.models import MAX_DATA_BYTES, MIB


def test_the_longest_text_comes_out_whole() -> None:
    """And one byte more does not."""
    text = b"x" * MAX_DATA_BYTES
    assert _decompress(bz2.compress(text)) == text
    assert _decompress(bz2.compress(text + b"x")) is None


def test_what_cannot_be_shrunk_is_within_the_bound() -> None:
    """Noise of 16 MiB grows a little."""
    assert MAX_DATA_BYTES < len(bz2.compress(os.urandom(MAX_DATA_BYTES))) <= MAX_COMPRESSED_BYTES


def test_a_bomb_takes_no_more_memory_than_the_longest_text() -> None:
    """Half a gigabyte of zeros in 402 bytes."""
    bomb = bz2.compress(bytes(512 * MIB))
    tracemalloc.start()
    try:
        assert _decompress(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_DATA_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "compressed",
    [b"x", b"BZh9", zlib.compress(b"{}"), bz2.compress(b"{}")[:-1], bz2.compress(b"{}") * 2],
)
def test_what_is_not_ours_is_no_text(compressed: bytes) -> None:
    """Another format, cut short, or with something behind it."""
    assert _decompress(compressed) is None


def test_the_error_shows_no_whole_hash() -> None:
    """Whoever knows it can read the data, and the line may end in a log."""
    text = str(unknown_dataset("0123456789abcdef" * 4))
    assert text == "dataset: 0123456789ab… is not in Redis, or not any more: put it again, then try again"
