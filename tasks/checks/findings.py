"""Collect what the checks find, and where it stands in the source."""

import ast
from typing import NamedTuple

__all__ = ["Finding", "Findings", "Problem", "printable"]

_TEXT_LENGTH = 80

Problem = tuple[str, str] | None  # rule and message


class Finding(NamedTuple):
    """A violation before its text is cut: most of them may be over the limit."""

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
        self._found: list[Finding] = []

    def report(self, problem: Problem, node: ast.AST, thing: str) -> None:
        """Add ``problem``, if it is one."""
        if problem is not None:
            self.add(problem[0], node, problem[1], thing)

    def add(self, rule: str, node: ast.AST, message: str, *things: str) -> None:
        """Add a finding at ``node``; for an attribute, at its name."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        last, end = getattr(node, "end_lineno", None), getattr(node, "end_col_offset", None)
        raw = self._line(last or line).encode()
        if isinstance(node, ast.Attribute) and end is not None:
            start = end - len(node.attr.encode())
            if raw[max(start, 0) : end] == node.attr.encode():
                line, offset = last, start
        stop = _characters(raw, end) if last == line and end is not None else None
        column = _characters(self._line(line).encode(), offset)
        self.add_at(rule, line, column, message, *things, stop=stop)

    def add_at(  # the arguments are one finding
        self, rule: str, line: int, column: int, message: str, *things: str, stop: int | None = None
    ) -> None:
        """Add a finding at a 1-based place, moved into the source where it lies outside."""
        line = min(max(line, 1), max(len(self.lines), 1))
        column = min(max(column, 1), len(self._line(line)) + 1)
        self._found.append(Finding(line, column, rule, stop, message, things))

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
        return found

    def text(self, item: Finding) -> str:
        """Return what stands at ``item``."""
        stop = None if item.stop is None else item.stop - 1
        return printable(self._line(item.line)[item.column - 1 : stop].rstrip())

    def _line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""
