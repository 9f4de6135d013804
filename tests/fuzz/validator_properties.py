"""What holds for every source whatsoever that the validator is given, with one function that checks all of it."""

from __future__ import annotations

import ast
import contextlib
import sys
import threading
import time
import unicodedata  # noqa: F401  # the parser imports it for "\N{...}": before anybody watches what is imported
import warnings
from typing import TYPE_CHECKING, Any

from tasks.policy import DEFAULT_POLICY, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.validator import ASTValidator, ValidationReport, Violation

__all__ = ["RULES", "Broken", "check"]

RULES = frozenset(f"R{number}" for number in range(12))
MAX_CPU_SECONDS = 2.0
MAX_LINE_CHARS = 400


class Broken(AssertionError):
    """A property does not hold; the text says which."""


def check(validator: ASTValidator, code: str, policy: Policy = DEFAULT_POLICY) -> ValidationReport:
    """Validate `code` twice and return the report.

    Raises:
        Broken: it raised, was slow, did something, was not deterministic, or its report is not sound.
    """
    started = time.thread_time()
    with _watched() as events:
        try:
            first, second = validator.validate(code), validator.validate(code)
        except Exception as exc:
            msg = f"validate raised {exc!r}"
            raise Broken(msg) from exc
    seconds = (time.thread_time() - started) / 2
    _demand(not events, f"validate caused {events[:3]}")
    _demand(seconds < MAX_CPU_SECONDS, f"validate took {seconds:.1f} s")
    _demand(first == second, "validate is not deterministic")
    _demand(len(first.violations) <= policy.max_violations, "more violations than the limit")
    lines = code.replace("\r\n", "\n").split("\n")
    for violation in first.violations:
        _check_violation(violation, lines)
    if first:
        _check_accepted(code, policy)
    return first


def _demand(holds: bool, message: str) -> None:  # noqa: FBT001  # as in an assert statement
    if not holds:
        raise Broken(message)


def _check_violation(violation: Violation, lines: list[str]) -> None:
    _demand(violation.rule in RULES, f"{violation} has no known rule")
    inside = 1 <= violation.line <= len(lines) and 1 <= violation.column <= len(lines[violation.line - 1]) + 1
    _demand(inside, f"{violation} points outside of the source")
    for text in (violation.text, violation.message, violation.hint):
        _demand(text.isprintable() and len(text) <= MAX_LINE_CHARS, f"{violation} is not one printable line")
    _demand(bool(violation.message and violation.hint), f"{violation} does not say what is wrong and what to do")


def _check_accepted(code: str, policy: Policy) -> None:
    """Look at accepted code in another way than the validator does: no scopes, no exceptions, only names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = list(ast.walk(ast.parse(code)))
    refused = policy.refused_builtins | {"__builtins__", "__loader__", "__spec__"}
    inner = policy.introspection | policy.system_modules | {"__class__", "__dict__", "__globals__", "__subclasses__"}
    for node in nodes:
        if isinstance(node, ast.Name):
            _demand(node.id not in refused, f"accepted although it names {node.id}")
        elif isinstance(node, ast.Attribute):
            _demand(node.attr not in inner, f"accepted although it reads .{node.attr}")
        elif isinstance(node, ast.Import):
            _demand(all(alias.name in policy.modules for alias in node.names), "accepted although it imports")
        elif isinstance(node, ast.ImportFrom):
            _demand(node.level == 0 and node.module in policy.modules, "accepted although it imports")


_watching: tuple[int, list[str]] | None = None
_hooked = False


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Collect what the interpreter reports of this thread: all but reading source is something that was done."""
    global _watching, _hooked  # noqa: PLW0603  # an audit hook is for the process, and for good
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    events: list[str] = []
    _watching = (threading.get_ident(), events)
    try:
        yield events
    finally:
        _watching = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is None or _watching[0] != threading.get_ident() or _is_reading(event, arguments):
        return
    _watching[1].append(f"{event} {arguments!r:.80}")


def _is_reading(event: str, arguments: tuple[Any, ...]) -> bool:
    # id(): how the validator remembers nodes. compile(): parsing is an event of it, and running the outcome another.
    if event in {"builtins.id", "compile"}:
        return True
    # For the text of a syntax error, CPython looks for a file of the name the source was given.
    return event == "open" and arguments[0] in {"<unknown>", "<strategy>"}
