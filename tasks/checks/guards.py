"""Say which functions are refused outright, and which may be called in one way only (R6, R7, R8, R9, R11)."""

import ast
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tasks.checks.context import Context
from tasks.checks.strings import is_plain_template
from tasks.policy import Policy

__all__ = ["Guard", "find_guard", "guard_of", "is_sink"]

_OPTION_NAME = re.compile(r"[a-z_.]+").fullmatch
_OPEN_POSITIONAL = 2
_OPEN_KEYWORDS = frozenset({"encoding", "errors", "newline"})
# Without filename, which writes a file, and handlers, which may hold anything that does.
_LOGGING_KEYWORDS = frozenset({"datefmt", "force", "format", "level", "stream", "style"})
_FORMATTER_KEYWORDS = frozenset({"datefmt", "fmt", "style"})
_FORMATTER_POSITIONAL = 2


class Guard(NamedTuple):
    """A function that may be called in one way and never be a value."""

    rule: str
    message: str
    is_honest: Callable[[Policy, ast.Call], bool]


def find_guard(context: Context, node: ast.expr) -> Guard | None:
    """Return what restricts the function that ``node`` names, if anything does."""
    if isinstance(node, ast.Attribute):
        return guard_of(context.policy, node.attr)
    if not isinstance(node, ast.Name):
        return None
    if node.id == "open":
        return _OPEN
    if node.id == "type":
        return _TYPE
    return guard_of(context.policy, context.guarded[node.id]) if node.id in context.guarded else None


def guard_of(policy: Policy, function: str) -> Guard | None:
    """Return what restricts the library function or method of that name."""
    if function in policy.text_exporters:
        return _EXPORT
    if function in policy.option_calls:
        return _OPTION
    if function in policy.string_dispatch:
        return _DISPATCH
    return _BY_NAME.get(function)


def is_sink(policy: Policy, name: str, sinks: frozenset[str]) -> bool:
    """Return whether a function of that name reads, writes or evaluates."""
    if name in sinks or not name.startswith(policy.sink_prefixes):
        return name in sinks
    return name not in policy.honest_conversions | policy.text_exporters


def _is_data_path(policy: Policy, path: object) -> bool:
    return (
        isinstance(path, str)
        and path.startswith(policy.data_directory)
        and posixpath.normpath(path) == path
        and path.isprintable()
    )


def _opens_data(policy: Policy, call: ast.Call) -> bool:
    values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    options = {option.arg: option.value for option in call.keywords}
    if len(values) != len(call.args) or not values or len(values) > _OPEN_POSITIONAL:
        return False
    mode = options.pop("mode", None) if len(values) == 1 else ast.Constant(values[1])
    literal = mode is None or (isinstance(mode, ast.Constant) and mode.value in policy.open_modes)
    return _is_data_path(policy, values[0]) and literal and options.keys() <= _OPEN_KEYWORDS


def _takes_one_argument(_: Policy, call: ast.Call) -> bool:
    return len(call.args) == 1 and not isinstance(call.args[0], ast.Starred) and not call.keywords


def _logs_to_stream(_: Policy, call: ast.Call) -> bool:
    options = {option.arg: option.value for option in call.keywords}
    return not call.args and options.keys() <= _LOGGING_KEYWORDS and _is_plain_style(options, options.get("format"))


def _formats_plainly(_: Policy, call: ast.Call) -> bool:
    options = {option.arg: option.value for option in call.keywords}
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    known = len(call.args) <= _FORMATTER_POSITIONAL and not starred and options.keys() <= _FORMATTER_KEYWORDS
    return known and _is_plain_style(options, call.args[0] if call.args else options.get("fmt"))


def _is_plain_style(options: Mapping[str | None, ast.expr], template: ast.expr | None) -> bool:
    """Return whether no attribute of a logged value can be named: style ``{`` is that of ``str.format``."""
    style = options.get("style")
    if not isinstance(style, ast.Constant):
        return style is None
    return style.value in {"%", "$"} or (isinstance(template, ast.Constant) and is_plain_template(template.value))


def _is_called(_: Policy, __: ast.Call) -> bool:
    return True


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _returns_text(_: Policy, call: ast.Call) -> bool:
    options = {option.arg: option.value for option in call.keywords}
    paths = [options[name] for name in ("path_or_buf", "buf", None) if name in options]
    return len(call.args) <= 1 and all(map(_is_none, [*call.args, *paths]))


def _sets_display(policy: Policy, call: ast.Call) -> bool:
    names = [arg.value if isinstance(arg, ast.Constant) else None for arg in call.args[::2]]
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    return (
        not call.keywords
        and not starred
        and all(
            # pandas reads the name as a pattern: no other letter may turn it into another option
            isinstance(name, str) and name.startswith(policy.option_prefixes) and _OPTION_NAME(name)
            for name in names
        )
    )


_OPEN = Guard("R11", "open takes a literal path under /workspace/, mode r or rb", _opens_data)
_TYPE = Guard("R6", "type may only be called, with one argument", _takes_one_argument)
_WRAPS = Guard("R7", "wraps may only be called, with one argument", _takes_one_argument)
_EXPORT = Guard("R8", "without a path, in a direct call, it returns text", _returns_text)
_OPTION = Guard("R8", "only display and mode options, by literal name", _sets_display)
_DISPATCH = Guard("R9", "a method that looks functions up by name may only be called", _is_called)
_LOGGING = Guard("R8", "basicConfig takes level, format, datefmt, style, force and stream only", _logs_to_stream)
_FORMATTER = Guard("R8", "Formatter takes a format and datefmt only; style { needs a plain literal", _formats_plainly)

_BY_NAME = {"wraps": _WRAPS, "basicConfig": _LOGGING, "Formatter": _FORMATTER}
