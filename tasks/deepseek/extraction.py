"""The program in a model's reply, whatever stands around it."""

from __future__ import annotations

import itertools
import re
import textwrap
from dataclasses import dataclass, replace

from tasks.errors import NoCode

__all__ = ["Extracted", "extract"]

#: Byte order marks and spaces without width, which some put before everything; no Python takes them.
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060"
_TAG = "(?:think|thinking|thought|reasoning)"
#: The end of what a model thought aloud, alone at one end of its line. Some servers send it without its beginning.
_THOUGHT = re.compile(rf"^[ \t]*+</{_TAG}>|</{_TAG}>[ \t]*+$", re.MULTILINE | re.IGNORECASE)
_THINKING = re.compile(rf"\s*+<{_TAG}>", re.IGNORECASE)
_THOUGHT_ANYWHERE = re.compile(rf"</{_TAG}>", re.IGNORECASE)
#: A line that opens a block. No part of it can match in two ways: a reply is as hostile as a program.
_FENCE = re.compile(rf"[\s{_UNSEEN}]*+(?P<marks>`{{3,}}+|~{{3,}}+)(?P<info>[^`]*+)")
#: One within a line of prose, where it says that it is Python.
_LATE_FENCE = re.compile(r"[^`]++(?P<marks>`{3,}+)(?P<info>(?:python3?|py)[ \t]*+)")
_WORD = re.compile(r"[ \t]*+\{?\.?[\w+-]++\}?[ \t]*+")
_LANGUAGE = re.compile(r"[ \t]*+\{?\.?([\w+-]*)")
_PYTHON = {"python", "python3", "py", "py3", "ipython", "ipython3", "tool_code"}
#: Some models wrap all of a reply in one, with the program in another block within.
_MARKDOWN = {"markdown", "md"}
#: How a program begins that stands there without a fence.
_NAMES = r"[\w.]++(?: as \w++)?(?:, ?[\w.]++(?: as \w++)?)*+"
_BEGINNING = re.compile(
    rf"(?:import {_NAMES}|from [\w.]++ import (?:\(.*+|\*|{_NAMES}))[ \t,]*+(?:[#;\\].*+)?$"
    r"|def \w++\(|class \w++ ?[(:]|@[\w.]++(?:\(.*+)?$|#!|\"\"\"|'''(?!py)"
    r"|[A-Z][A-Z0-9_]*+(?:: ?[\w\[\], ]*?)? = (?:-?[\d._e]++[ \t]*+(?:#.*+)?$|[\"'\[({])"
)


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
    found = _blocks(answer)
    blocks = [block for block in found if block.language in {*_PYTHON, ""}]
    if not blocks and (bare := _bare(answer)):
        found = blocks = [_Block("", bare, closed=False)]
    if not blocks:
        msg = "the reply holds no block of Python code"
        raise NoCode(msg if whole else f"{msg}: it broke off before one")
    # What broke off was the program, whatever snippets stand before it.
    if not whole and blocks[-1] is found[-1] and not found[-1].closed:
        msg = "the reply broke off within the code"
        raise NoCode(msg)
    return Extracted(max(blocks, key=_Block.fitness).text, len(blocks))


def _answer(reply: str) -> str:
    """Return what comes after the last thought; nothing where the thinking never ended."""
    aloud = _THINKING.match(reply)
    thoughts = [*_THOUGHT.finditer(reply)] or [*_THOUGHT_ANYWHERE.finditer(reply)][: bool(aloud)]
    length = len(reply.rstrip())
    # A tag at the very end closes nothing that an answer could follow.
    last = next((thought.end() for thought in reversed(thoughts) if thought.end() < length), None)
    if last is not None:
        return reply[last:].lstrip("\n")
    return "" if aloud else reply


def _blocks(text: str, *, unwrap: bool = True) -> list[_Block]:
    """Return what stands between fences, as CommonMark has them and as models write them; empty ones are none.

    At any indentation. A fence may begin in a line of prose, where it says that it is Python. It may close with prose
    behind it, or at the end of the last line of code, where nothing else closes it.
    """
    found: list[_Block] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    glued: list[str] | None = None
    wrapped = False
    for line in _lines(text):
        fence = _FENCE.fullmatch(line)
        if opening is None:
            if wrapped and fence and not fence["info"].strip():
                wrapped = False  # of the wrapper, whose program had its own
                continue
            opening, lines, glued = fence or _LATE_FENCE.fullmatch(line), [], None
        elif opening.re is _LATE_FENCE and fence and _language(fence) in _PYTHON:
            opening, lines, glued = fence, [], None  # the other was only spoken of
        elif _closes(line, opening["marks"]):
            wrapper = unwrap and _language(opening) in _MARKDOWN
            inner = _blocks("\n".join(lines), unwrap=False) if wrapper else []
            wrapped = bool(inner) and not inner[-1].closed
            found += [replace(one, closed=True) for one in inner] or [_block(opening, lines, closed=True)]
            opening = None
        else:
            before, marks, after = line.partition(opening["marks"])
            if glued is None and marks and opening["marks"][0] not in before and not after.strip(" \t`~"):
                glued = [*lines, before]
            lines.append(line)
    if opening is not None:
        found.append(_block(opening, glued or lines, closed=glued is not None))
    return [block for block in found if block.text]


def _closes(line: str, marks: str) -> bool:
    before, found, after = line.partition(marks)
    rest = after.lstrip(marks[0])
    # One word is the language of another block.
    return bool(found) and not before.strip() and (not rest.strip() or not (rest[0].isalnum() or _WORD.fullmatch(rest)))


def _block(opening: re.Match[str], lines: list[str], *, closed: bool) -> _Block:
    code = "\n".join(lines).rstrip().lstrip("\n").lstrip(_UNSEEN)
    if code.startswith((" ", "\t")):  # of a list; else it would empty blank lines of a string
        code = textwrap.dedent(code)
    return _Block(_language(opening), f"{code}\n" if code.strip() else "", closed)


def _language(opening: re.Match[str]) -> str:
    found = _LANGUAGE.match(opening["info"])
    return found[1].lower() if found else ""


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
