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
_ENUM_ARGUMENTS = 2


class Guard(NamedTuple):
    """A function that may be called in one way and never be a value."""

    rule: str
    message: str
    is_honest: Callable[[Policy, ast.Call], bool]


def find_guard(context: Context, node: ast.expr) -> Guard | None:
    """Return what restricts the function that ``node`` names, if anything does."""
    if isinstance(node, ast.Attribute):
        return _guard_of_attribute(context, node)
    if not isinstance(node, ast.Name):
        return None
    if node.id == "open":
        return _OPEN
    if node.id == "type":
        return _TYPE
    return guard_of(context.policy, context.guarded[node.id]) if node.id in context.guarded else None


def _guard_of_attribute(context: Context, node: ast.Attribute) -> Guard | None:
    if context.guarded.get(node.attr) == "Enum":  # also one of the code's own, within a class
        return _ENUM
    guard = guard_of(context.policy, node.attr)
    of_module = isinstance(node.value, ast.Name) and node.value.id in context.modules
    return None if guard in _CLASSES and not of_module else guard  # df.Flag is a column


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


def _is_never_called(_: Policy, __: ast.Call) -> bool:
    return False


def _spells_options(_: Policy, call: ast.Call) -> bool:
    return all(option.arg is not None for option in call.keywords)


def _keeps_memory(_: Policy, call: ast.Call) -> bool:
    return all(option.arg not in {"refcheck", None} for option in call.keywords)


def _names_literally(_: Policy, call: ast.Call) -> bool:
    """Return whether ``call`` is like ``Enum('Side', 'BUY SELL')``: a name, and at least one member."""
    if len(call.args) != _ENUM_ARGUMENTS or any(option.arg != "start" for option in call.keywords):
        return False
    names = [name for part in _member_names(call.args[1]) for name in part.replace(",", " ").split()]
    title = call.args[0]
    literal = isinstance(title, ast.Constant) and isinstance(title.value, str)
    return literal and bool(names) and all(name.isidentifier() and not name.startswith("_") for name in names)


def _member_names(node: ast.expr) -> list[str]:
    """Return the names that a literal gives to members; one that is no name stands for what is not literal."""
    if isinstance(node, ast.Constant):
        return [node.value if isinstance(node.value, str) else "?"]
    rows: list[list[ast.expr | None]] = [[None]]
    if isinstance(node, ast.Dict):
        rows = [[key, value] for key, value in zip(node.keys, node.values, strict=True)]
    elif isinstance(node, ast.Tuple | ast.List):
        rows = [[*item.elts] if isinstance(item, ast.Tuple) else [item] for item in node.elts]
    texts = [[part.value if isinstance(part, ast.Constant) else "?" for part in row] for row in rows]
    return [str(row[0]) if row and "?" not in row else "?" for row in texts]


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
_TYPE = Guard(
    "R6", "type(x) may be compared, printed or asked for an attribute, not kept or called", _takes_one_argument
)
_WRAPS = Guard("R7", "wraps may only be called, with one argument", _takes_one_argument)
_EXPORT = Guard("R8", "without a path, in a direct call, it returns text", _returns_text)
_OPTION = Guard("R8", "only display and mode options, by literal name", _sets_display)
_DISPATCH = Guard("R9", "a method that looks functions up by name may only be called", _is_called)
_LOGGING = Guard("R8", "basicConfig takes level, format, datefmt, style, force and stream only", _logs_to_stream)
_FORMATTER = Guard("R8", "Formatter takes a format and datefmt only; style { needs a plain literal", _formats_plainly)

_RESIZE = Guard("R8", "resize may only be called, and never with refcheck", _keeps_memory)
_ARRAY = Guard("R8", "np.ndarray stands in annotations and isinstance; it is neither called nor kept", _is_never_called)
_ENUM = Guard("R6", "an enumeration is a class statement, or gets a literal name and literal members", _names_literally)
_METACLASS = Guard("R6", "ABCMeta is only a metaclass, as in class A(metaclass=ABCMeta)", _is_never_called)
_TYPED_DICT = Guard("R6", "TypedDict is only the base of a class", _is_never_called)
# Its options become attributes: one named when the code runs could be any, such as what copy or numpy look up.
_INDEXER = Guard("R7", "an indexer is only called, and its options are spelled out", _spells_options)

_CLASSES = (_ARRAY, _ENUM, _METACLASS, _TYPED_DICT)
_BY_NAME = {
    **dict.fromkeys(("Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"), _ENUM),
    **dict.fromkeys(("FixedForwardWindowIndexer", "VariableOffsetWindowIndexer"), _INDEXER),
    "ABCMeta": _METACLASS,
    "Formatter": _FORMATTER,
    "TypedDict": _TYPED_DICT,
    "basicConfig": _LOGGING,
    "ndarray": _ARRAY,
    "resize": _RESIZE,
    "wraps": _WRAPS,
}
