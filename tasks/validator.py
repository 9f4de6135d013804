"""Check a strategy's source against the code policy, without ever running any of it.

Reads the source, flattens its syntax tree once, then looks at each node once. Every violation is
reported, so that an agent repairs its code in one round. Standard library only: the sandbox image
uses this module too.
"""

import ast
import posixpath
import re
import string
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tasks.policy import DEFAULT_POLICY, Policy

__all__ = ["ASTValidator", "ValidationReport", "Violation"]

_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*[-\w.]+")
_IMPORT_RUN = re.compile(r"\b(?:import|from)\b(?:[^\S\n]|\\\n|[\w.,])*")
_WORD = re.compile(r"\w+")
_TEXT_LENGTH = 80
_UNKNOWN = "\0"  # stands for a part of a string that only exists when the code runs

# Per node type the fields that hold identifiers the node binds. Name and alias are special.
_BINDERS: dict[str, tuple[str, ...]] = {
    "FunctionDef": ("name",),
    "ClassDef": ("name",),
    "arg": ("arg",),
    "ExceptHandler": ("name",),
    "MatchAs": ("name",),
    "MatchStar": ("name",),
    "MatchMapping": ("rest",),
    "Global": ("names",),
    "Nonlocal": ("names",),
    "TypeVar": ("name",),
    "ParamSpec": ("name",),
    "TypeVarTuple": ("name",),
}

# catch_warnings swaps process-wide state, which two threads must not do at once.
_PARSE_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Violation:
    """Tell what the policy refuses, where, and how to write it instead.

    ``line`` and ``column`` are 1-based and count characters; for an attribute they point at its
    name. ``text`` is what stands there: printable, at most 80 characters.
    """

    rule: str
    line: int
    column: int
    text: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Hold all violations, ordered by position; true when there are none."""

    violations: tuple[Violation, ...] = ()

    def __bool__(self) -> bool:
        """Return whether the code is clean."""
        return not self.violations


@dataclass(frozen=True, slots=True)
class _Finding:
    """A violation before its text is cut: most of them may be over the limit."""

    line: int
    column: int
    rule: str
    end: int | None
    message: str
    things: tuple[str, ...]


class ASTValidator:
    """Apply one policy to any number of sources; safe to share between threads."""

    def __init__(self, policy: Policy = DEFAULT_POLICY) -> None:
        """Keep ``policy``, which is immutable."""
        self._policy = policy

    def validate(self, code: str) -> ValidationReport:
        """Return every violation in ``code``; never raises and never executes anything."""
        check = _Check(self._policy, code)
        check.run()
        return check.report()


class _Check:
    """One validation: the source, what it binds, and what was found."""

    def __init__(self, policy: Policy, code: str) -> None:
        self.policy = policy
        self.code = code
        self.lines: list[str] = []
        self.found: list[_Finding] = []
        self.bound: set[str] = set()
        self.own_attributes: set[str] = set()
        self.modules: dict[str, str] = {}  # local name -> the module it stands for
        self.guarded: dict[str, str] = {}  # local name -> the function only its call may use
        self.cleared: set[int] = set()  # id() of nodes that their parent already judged

    def run(self) -> None:
        if not self._readable():
            return
        tree = self._parse()
        nodes = None if tree is None else self._flatten(tree)
        if nodes is None:
            return
        for node in nodes:
            self._collect(node)
        plan = {kind: self._handler(kind) for kind in {type(node) for node in nodes}}
        for node in nodes:
            handler = plan[type(node)]
            if handler is not None:
                handler(self, node)

    def report(self) -> ValidationReport:
        self.found.sort(key=lambda item: (item.line, item.column, len(item.rule), item.rule))
        limit = self.policy.max_violations
        if len(self.found) > limit:
            first = self.found[limit - 1]
            more = len(self.found) - limit + 1
            message = f"{more} more violations are not listed: there is a limit of {limit}"
            notice = _Finding(first.line, first.column, "R0", None, message, ("repair first",))
            self.found[limit - 1 :] = [notice]
        return ValidationReport(tuple(map(self._violation, self.found)))
