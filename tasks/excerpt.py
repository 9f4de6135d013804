"""Text of untrusted origin, for a terminal, a page or a model: nothing in it acts, and there is only so much of it."""

from __future__ import annotations

import unicodedata

__all__ = ["excerpt", "printable"]

_KEPT = "\n\t"


def printable(text: str) -> str:
    """Return `text` with control and format characters, all but newline and tab, written as escapes."""
    return "".join(
        char if char in _KEPT or unicodedata.category(char) not in ("Cc", "Cf", "Cs") else ascii(char)[1:-1]
        for char in text
    )


def excerpt(text: str, characters: int) -> str:
    """Return beginning and end of `text`, printable; between them how much is left out.

    What went wrong stands at the end of an output more often than at its beginning: a third is for the beginning.

    Args:
        text: of any length; no more of it is looked at than is returned.
        characters: of `text` to return at most; the note and escapes come on top.
    """
    if len(text) <= characters:
        return printable(text)
    head = characters // 3
    tail = characters - head
    left_out = len(text) - characters
    return f"{printable(text[:head])}\n[… {left_out:,} characters left out …]\n{printable(text[-tail:])}"
