"""Turn a text into syntax nodes, or say what is wrong with the text itself (R0)."""

import ast
import gc
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tasks.checks.findings import Findings
from tasks.policy import Policy

__all__ = ["read_nodes", "undisturbed"]

_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_HARMLESS_CODINGS = frozenset({"utf-8", "utf8"})  # what the source is read as anyhow
_UNREADABLE = re.compile("[\0\r\ud800-\udfff]")
# The rest of a logical line that may be a dotted import name, whatever its letters are.
_IMPORT_RUN = re.compile(r"\b(?:import|from)\b(?:\\\n|[^\n\\\"'()\[\]{}=:;#])*")

# The parser sorts the marks after a letter in quadratic time: 130,000 accents on one keep it busy for five minutes.
# Unicode itself lets no text that is to be sorted have more than 30 (UAX 15, stream-safe format).
_MOST_MARKS = 100

# Before Python 3.12 the parser looks for each brace of an f-string in all of it: 80,000 keep it busy for five seconds.
# Each makes at least two nodes, so a text with more is refused in any case.
_NODES_PER_BRACE = 2

# Fields that hold a string, a number or a context, in every node type that has them.
_LEAF_FIELDS = frozenset({"id", "ctx", "attr", "arg", "asname", "kind", "level", "type_comment"})

# Warnings and the collector are the whole process's, and two threads must not swap them at once.
_LOCK = threading.Lock()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Parse or compile without a warning, and without collecting garbage: a tree has none, and thousands of nodes.

    Neither lets another thread run before it is done, so no other thread goes without its collector.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


def read_nodes(code: str, policy: Policy, findings: Findings) -> list[ast.AST]:
    """Return all nodes of ``code``, parents first; none when it cannot be read or is too large."""
    tree = _parse(code, findings) if _is_readable(code, policy, findings) else None
    return _flatten(tree, policy, findings) if tree else []


def _is_readable(code: str, policy: Policy, findings: Findings) -> bool:
    size, limit = len(code.encode(errors="surrogatepass")), policy.max_code_bytes
    if size > limit:
        findings.add_at("R0", 1, 1, f"the source has {size} bytes, the limit is {limit}")
        return False
    braces, limit = code.count("{"), policy.max_nodes // _NODES_PER_BRACE
    if braces > limit:
        findings.add_at("R0", 1, 1, f"the source has {braces} opening braces, the limit is {limit}")
        return False
    text = code.replace("\r\n", "\n")
    findings.lines = text.split("\n")
    for number, line in enumerate(findings.lines[:2], 1):
        cookie = _COOKIE.match(line)
        if cookie and cookie[1].lower() not in _HARMLESS_CODINGS:
            findings.add_at("R0", number, 1, "a coding comment other than UTF-8 is refused", "coding comment")
    match, message = _UNREADABLE.search(text), "NUL, a lone CR or half a surrogate pair"
    if match is None:
        match, message = _long_import(text, policy.max_import_dots), "an import with too many dots"
    if match is None:
        match, message = _many_marks(text), f"a letter with more than {_MOST_MARKS} combining marks"
    if match:
        before = text[: match.start()]
        column = match.start() - before.rfind("\n")
        findings.add_at("R0", before.count("\n") + 1, column, f"{message} is refused")
    return match is None


def _long_import(text: str, most: int) -> re.Match[str] | None:
    logical = text.replace("\\\n", "").split("\n")
    if max(line.count(".") for line in logical) <= most:
        return None
    runs = (run for run in _IMPORT_RUN.finditer(text) if run.group().count(".") > most)
    return next(runs, None)


def _many_marks(text: str) -> re.Match[str] | None:
    marks = "" if text.isascii() else "".join(filter(_is_mark, set(text)))
    return re.search(f"[{marks}]{{{_MOST_MARKS + 1}}}", text) if marks else None


def _is_mark(character: str) -> bool:
    """Return whether it is sorted among the marks after a letter, or stands for something that is."""
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0


def _parse(code: str, findings: Findings) -> ast.Module | None:
    try:
        with undisturbed():
            return ast.parse(code)
    except SyntaxError as error:
        findings.add_syntax_error(error)
    except (ValueError, OverflowError, RecursionError, MemoryError):
        findings.add_at("R0", 1, 1, "the source is too deeply nested or too large to parse")
    return None


def _flatten(tree: ast.Module, policy: Policy, findings: Findings) -> list[ast.AST]:
    """Return all nodes, parents first, level by level; nothing when a cap is hit."""
    nodes: list[ast.AST] = []
    level: list[ast.AST] = [tree]
    for _ in range(policy.max_depth):
        nodes += level
        if not level or len(nodes) > policy.max_nodes:
            break
        level = _children(level)
    if not level:
        return nodes
    limits = f"{policy.max_depth} levels or {policy.max_nodes} nodes"
    where = next((node for node in level if hasattr(node, "lineno")), tree)
    findings.add("R0", where, f"the syntax tree has more than {limits}")
    return []


class _ChildFields(dict[type[ast.AST], tuple[str, ...]]):
    """Remember which fields of a node type may hold nodes."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        self[kind] = tuple(name for name in kind._fields if name not in _LEAF_FIELDS)
        return self[kind]


_CHILD_FIELDS = _ChildFields()


def _children(level: Iterable[ast.AST]) -> list[ast.AST]:
    below: list[ast.AST] = []
    for node in level:
        for name in _CHILD_FIELDS[type(node)]:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                below.append(value)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, ast.AST):
                        below.append(item)  # noqa: PERF401  # most of the lists are empty: a comprehension costs more
    return below
