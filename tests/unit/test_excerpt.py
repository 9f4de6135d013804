"""Text of untrusted origin: it cannot steer who looks at it, and there is only so much of it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.excerpt import excerpt, printable


@given(st.text())
def test_printable_leaves_no_control_characters(text: str) -> None:
    """Nor format characters or surrogates: newline and tab alone remain, and the rest is untouched."""
    shown = printable(text)
    assert [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"] == []
    shown.encode()
    harmless = [c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")]
    if len(harmless) == len(text):
        assert shown == text


@pytest.mark.parametrize("code", range(256))
def test_printable_judges_every_byte_sized_character(code: int) -> None:
    """C0, DEL and C1 become escapes; all else is itself."""
    kept = chr(code) in "\n\t" or not (code < 32 or 127 <= code < 160 or code == 0xAD)
    assert printable(chr(code)) == (chr(code) if kept else ascii(chr(code))[1:-1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("50 %\rdone", "50 %\\rdone"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb", "a\\u200bb"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\x9b31m", "\\x9b31m"),
        ("naïve 日本 😀\n\tx", "naïve 日本 😀\n\tx"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """Clearing the screen, setting the title, turning the reading direction: none works."""
    assert printable(text) == shown


def test_an_excerpt_of_a_short_text_is_the_text() -> None:
    """Up to the limit nothing is left out."""
    assert excerpt("a" * 90, 90) == "a" * 90


def test_an_excerpt_is_beginning_and_end() -> None:
    """The end matters more; what is missing is counted."""
    shown = excerpt("a" * 1000 + "b" * 1000, 90)
    assert shown == "a" * 30 + "\n[… 1,910 characters left out …]\n" + "b" * 60


@given(st.text(max_size=400), st.integers(3, 60))
def test_an_excerpt_is_bounded_and_printable(text: str, characters: int) -> None:
    """Whatever the text is: escapes make one character ten at most, and the note is a line."""
    shown = excerpt(text, characters)
    assert len(shown) <= characters * 10 + 60
    assert [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"] == []
