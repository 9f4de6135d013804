"""The program in a model's reply, whatever stands around it."""

from __future__ import annotations

import itertools
import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.errors import NoCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Extracted", "extract"]

#: Byte order marks and spaces without width, which some put before everything; no Python takes them.
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060"
#: The end of what a model thought aloud. Some servers send it without its beginning.
_THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>[ \t]*$", re.MULTILINE | re.IGNORECASE)
_THINKING = re.compile(r"\s*<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(rf"[\s{_UNSEEN}]*(?P<marks>`{{3,}}|~{{3,}})[ \t]*\{{?\.?(?P<language>[\w+-]*)[^`]*")
_PYTHON = {"python", "python3", "py", "py3", "ipython", "ipython3", "tool_code"}
_MARKDOWN = {"markdown", "md"}
#: How a program begins that stands there without a fence.
_BEGINNING = re.compile(r"(?:import \w|from [\w.]+ import |def \w+\(|class \w|#!|\"\"\")")


@dataclass(frozen=True)
class Extracted:
    """The program in a reply."""

    code: str
    #: How many blocks that may be programs the reply holds; more than one means that it was a choice.
    blocks: int = 1


@dataclass(frozen=True)
class _Block:
    language: str
    text: str
    closed: bool

    def fitness(self) -> tuple[bool, bool, int]:
        """Compare by this: named Python, prints something, is long."""
        return self.language in _PYTHON, "print(" in self.text, len(self.text)


def extract(reply: str, *, whole: bool = True) -> Extracted:
    """Return the program in a reply.

    Of several blocks it is the one that says it is Python, prints something and is the longest: usage examples and
    shell commands are neither.

    Args:
        reply: Markdown, as models write it, with or without what they thought aloud.
        whole: whether the reply is all that the model wanted to say; False where it ran out of tokens.

    Raises:
        NoCode: there is none, or the reply broke off within it.
    """
    answer = _answer(reply)
    blocks = [block for block in _unwrapped(_blocks(answer)) if block.language in {*_PYTHON, ""}]
    if not blocks and (bare := _bare(answer)):
        blocks = [_Block("", bare, closed=False)]
    if not blocks:
        msg = "the reply holds no block of Python code"
        raise NoCode(msg if whole else f"{msg}: it broke off before one")
    best = max(blocks, key=_Block.fitness)
    if not (whole or best.closed):
        msg = "the reply broke off within the code"
        raise NoCode(msg)
    return Extracted(best.text, len(blocks))


def _answer(reply: str) -> str:
    """Return what comes after the last thought; nothing where the thinking never ended."""
    if thoughts := list(_THOUGHT.finditer(reply)):
        return reply[thoughts[-1].end() :]
    return "" if _THINKING.match(reply) else reply


def _blocks(text: str) -> list[_Block]:
    """Return what stands between fences, as CommonMark has them, at any indentation; empty ones are none."""
    found: list[_Block] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in _lines(text):
        if opening is None:
            opening, lines = _FENCE.fullmatch(line), []
        elif _closes(line, opening["marks"]):
            found.append(_block(opening, lines, closed=True))
            opening = None
        else:
            lines.append(line)
    if opening is not None:
        found.append(_block(opening, lines, closed=False))
    return [block for block in found if block.text]


def _unwrapped(blocks: Iterable[_Block]) -> Iterator[_Block]:
    """Give what stands in blocks of Markdown in their place: some models wrap all of a reply in one."""
    for block in blocks:
        if block.language in _MARKDOWN:
            # The fence that closes the inner one has been taken for the outer's.
            yield from (replace(inner, closed=inner.closed or block.closed) for inner in _blocks(block.text))
        else:
            yield block


def _closes(line: str, marks: str) -> bool:
    stripped = line.strip()
    return stripped.startswith(marks) and not stripped.strip(marks[0])


def _block(opening: re.Match[str], lines: list[str], *, closed: bool) -> _Block:
    code = "\n".join(lines).strip("\n").lstrip(_UNSEEN)
    if code.startswith((" ", "\t")):  # of a list; else it would empty blank lines of a string
        code = textwrap.dedent(code).strip("\n")
    return _Block(opening["language"].lower(), f"{code}\n" if code.strip() else "", closed)


def _bare(text: str) -> str:
    """Return the program of a reply without fences: from the first line that begins one."""
    lines = _lines(text)
    for number, line in enumerate(lines):
        if _BEGINNING.match(line.lstrip(_UNSEEN)):
            program = itertools.takewhile(lambda line: not _FENCE.fullmatch(line), lines[number:])
            return "\n".join(program).strip("\n").lstrip(_UNSEEN) + "\n"
    return ""


def _lines(text: str) -> list[str]:
    # Not splitlines(), which ends a line at characters that a string of the program may hold.
    return text.replace("\r\n", "\n").split("\n")
