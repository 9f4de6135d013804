"""Collect what the checks find, and where it stands in the source."""

import ast
from typing import NamedTuple

__all__ = ["Finding", "Findings", "Problem", "printable"]

_TEXT_LENGTH = 80
_ANY = "replace"  # half a surrogate pair, which is refused anyhow

Problem = tuple[str, str] | None  # rule and message


class Finding(NamedTuple):
    """A violation before its text is cut: most of them may be over the limit.

    Columns are offsets in UTF-8 bytes while it is kept, and 1-based characters once it is returned: to count the
    characters of a long line takes long, and only those under the limit need it.
    """

    line: int
    column: int
    rule: str
    stop: int | None
    message: str
    things: tuple[str, ...]  # what to look a hint up by, best first


def _characters(line: bytes, offset: int) -> int:
    """Turn an offset in UTF-8 bytes into a 1-based column in characters."""
    return len(line[:offset].decode(errors="ignore")) + 1


def printable(text: str, limit: int = _TEXT_LENGTH) -> str:
    """Return ``text`` on one line, escaped where a terminal would not show it, and cut to ``limit``."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
    return shown if len(shown) <= limit and len(text) <= limit else shown[: limit - 1] + "…"


class Findings:
    """The findings of one validation, and the lines they point into."""

    def __init__(self) -> None:
        """Start without lines: ``source`` sets them once it has read the text."""
        self.lines: list[str] = []
        self._encoded: dict[int, bytes] = {}
        self._found: list[Finding] = []

    def report(self, problem: Problem, node: ast.AST, thing: str) -> None:
        """Add ``problem``, if it is one."""
        if problem is not None:
            self.add(problem[0], node, problem[1], thing)

    def add(self, rule: str, node: ast.AST, message: str, *things: str) -> None:
        """Add a finding at ``node``; for an attribute, at its name."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        last, end = getattr(node, "end_lineno", None), getattr(node, "end_col_offset", None)
        if isinstance(node, ast.Attribute) and end is not None:
            start = end - len(node.attr.encode())
            if self._bytes(last or line)[max(start, 0) : end] == node.attr.encode():
                line, offset = last, start
        self._add(Finding(line, offset, rule, end if last == line else None, message, things))

    def add_at(self, rule: str, line: int, column: int, message: str, *things: str) -> None:
        """Add a finding at a 1-based place, moved into the source where it lies outside."""
        before = self._line(line)[: max(column - 1, 0)]
        self._add(Finding(line, len(before.encode(errors=_ANY)), rule, None, message, things))

    def _add(self, item: Finding) -> None:
        line = min(max(item.line, 1), max(len(self.lines), 1))
        column = min(max(item.column, 0), len(self._bytes(line)))
        self._found.append(item._replace(line=line, column=column))

    def add_syntax_error(self, error: SyntaxError) -> None:
        """Add what the parser or the compiler says."""
        self.add_at("R0", error.lineno or 1, error.offset or 1, f"syntax error: {error.msg[:200]}", "syntax error")

    def ordered(self, limit: int) -> list[Finding]:
        """Return the findings by position, cut to ``limit``; the last one then says so."""
        found = sorted(self._found, key=lambda item: (item.line, item.column, int(item.rule[1:])))
        if len(found) > limit:
            first = found[limit - 1]
            message = f"{len(found) - limit + 1} more violations are left out, the limit is {limit}"
            found[limit - 1 :] = [first._replace(rule="R0", message=message, things=("limit",))]
        return [self._in_characters(item) for item in found]

    def _in_characters(self, item: Finding) -> Finding:
        raw = self._bytes(item.line)
        stop = None if item.stop is None else _characters(raw, item.stop)
        return item._replace(column=_characters(raw, item.column), stop=stop)

    def text(self, item: Finding) -> str:
        """Return what stands at ``item``."""
        stop = None if item.stop is None else item.stop - 1
        return printable(self._line(item.line)[item.column - 1 : stop].rstrip())

    def _bytes(self, number: int) -> bytes:
        if number not in self._encoded:
            self._encoded[number] = self._line(number).encode(errors=_ANY)
        return self._encoded[number]

    def _line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""
