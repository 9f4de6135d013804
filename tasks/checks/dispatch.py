"""Judge functions that are named by a string (R9): ``df.agg('to_csv')`` calls ``df.to_csv``.

A string that is visible where it is passed must be a listed reduction. One that a variable of that name gets, in
whatever scope, may be any text but the name of a method that writes, or of a private attribute. Where something else is
passed, such as an argument or an element of a dict, no string in the code may name a method that writes.
"""

import ast
from collections.abc import Iterable, Iterator

from tasks.checks.assignments import UNKNOWN, values_of
from tasks.checks.context import Context
from tasks.checks.strings import fold

__all__ = ["finish", "judge_dispatch"]

_NAMED_AGGREGATION = frozenset({"agg", "aggregate"})
_CONTAINERS = frozenset({"dict", "list", "set", "sorted", "tuple"})
_TEXT_MAKERS = frozenset({"ascii", "chr", "format", "repr", "str"})
_MESSAGE = "a function named by a string must be a listed reduction"


def judge_dispatch(context: Context, call: ast.Call) -> None:
    """Judge the strings that name the function which ``call`` applies."""
    policy = context.policy
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    is_flat = name in policy.flat_dispatch
    dispatches = isinstance(call.func, ast.Attribute) and (is_flat or name in policy.string_dispatch)
    functions = [option.value for option in call.keywords if option.arg == "aggfunc"]
    if name in policy.positional_dispatch:
        index = policy.positional_dispatch[name] - (not _is_library_function(context, call.func))
        functions += [*call.args[index : index + 1], *(item for item in call.args if isinstance(item, ast.Starred))]
    elif dispatches:
        functions += call.args[:1]
        for option in call.keywords:
            functions += _named_functions(option, every=name in _NAMED_AGGREGATION)
    if is_flat:
        _judge_literals(context, functions)
    else:
        _judge_values(context, functions)
    if dispatches:  # pd.Series.agg(series, 'to_csv') is a method too
        _judge_further_arguments(context, call.args[1:])


def finish(context: Context) -> None:
    """Judge the strings that may have reached a call which could not be seen through."""
    if context.has_opaque_dispatch:
        for node in context.method_texts:
            if id(node) not in context.dispatched:
                context.findings.add("R9", node, "this text names a method and could reach a call such as .agg(name)")


def _is_library_function(context: Context, function: ast.expr) -> bool:
    """Return whether the table is the first argument, as in ``pd.pivot_table(df, ...)``."""
    base = function.value if isinstance(function, ast.Attribute) else None
    return base is None or (isinstance(base, ast.Name) and base.id in context.modules)


def _named_functions(option: ast.keyword, *, every: bool) -> list[ast.expr]:
    """Return what a keyword of an aggregation names as functions."""
    if option.arg in {"func", "arg"}:
        return [option.value]
    if not every and option.arg is not None:
        return []
    spread = option.value if option.arg is None else None
    values = spread.values if isinstance(spread, ast.Dict) else [option.value]
    return [_second(value) for value in values]


def _second(value: ast.expr) -> ast.expr:
    """Return the function of a named aggregation, which is a tuple (column, function)."""
    return value.elts[-1] if isinstance(value, ast.Tuple) and value.elts else value


def _judge_literals(context: Context, values: Iterable[ast.expr]) -> None:
    for value in filter(_is_textual, values):
        _judge_text(context, value)


def _judge_values(context: Context, values: Iterable[ast.expr]) -> None:
    """Judge all that the ``values`` may be, each expression once in a validation."""
    stack = [(value, False) for value in values]
    while stack:
        node, by_name = stack.pop()
        if id(node) in context.dispatched:
            continue
        context.dispatched.add(id(node))
        if _is_textual(node):
            if not by_name or not _is_harmless(context, node):
                _judge_text(context, node)
        elif isinstance(node, ast.Name):
            stack += ((value, True) for value in _new_values(context, node.id))
        else:
            inner_by_name = by_name or isinstance(node, ast.Attribute)
            stack += ((value, inner_by_name) for value in _inner(context, node))


def _judge_text(context: Context, node: ast.expr) -> None:
    context.dispatched.add(id(node))
    if "".join(fold(context, node)) not in context.policy.reductions:
        context.findings.add("R9", node, _MESSAGE)


def _judge_further_arguments(context: Context, values: Iterable[ast.expr]) -> None:
    for value in values:
        if isinstance(value, ast.Constant) and not _is_harmless(context, value):
            context.dispatched.add(id(value))
            context.findings.add("R9", value, _MESSAGE)


def _is_harmless(context: Context, node: ast.expr) -> bool:
    """Return whether ``node`` is a string that calls nothing on a table, such as the name of a column."""
    text = node.value if isinstance(node, ast.Constant) else "_"
    return not isinstance(text, str) or not (text in context.policy.writing_methods or text.startswith("_"))


def _new_values(context: Context, name: str) -> list[ast.expr]:
    """Return the expressions a variable may hold, the first time; none for a function."""
    if name in context.seen_variables:
        return []
    context.seen_variables.add(name)
    values = values_of(context, name)
    if any(_may_change(value) for value in values):
        context.has_opaque_dispatch = True
    return values


def _texts_of(context: Context, name: str) -> Iterator[ast.expr]:
    """Yield the strings a variable may hold, the first time: a method of them makes other strings."""
    key = f"{name}()"
    if key not in context.seen_variables:
        context.seen_variables.add(key)
        yield from filter(_is_textual, values_of(context, name))


def _may_change(value: ast.expr) -> bool:
    """Return whether code may put something into this value that no assignment shows."""
    return value is UNKNOWN or isinstance(value, ast.List | ast.Dict | ast.Set)


def _is_textual(node: ast.expr) -> bool:
    """Return whether ``node`` computes a string out of at least one literal."""
    while isinstance(node, ast.BinOp):
        if _is_textual_leaf(node.right):
            return True
        node = node.left
    return _is_textual_leaf(node)


def _is_textual_leaf(node: ast.expr) -> bool:
    """Return whether ``node`` is text, a method of text or a part of text, such as ``'TO_CSV'.lower()``."""
    made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TEXT_MAKERS
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return made or literal or isinstance(node, ast.JoinedStr)


def _inner(context: Context, node: ast.expr) -> Iterator[ast.expr]:
    """Yield the expressions whose values pandas could take from this one."""
    match node:
        case ast.List(elts=values) | ast.Set(elts=values) | ast.Tuple(elts=values):
            yield from values
        case ast.Dict(values=values) | ast.BoolOp(values=values):
            yield from values
        case ast.BinOp(left=left, right=right):
            yield from (left, right)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Starred(value=value) | ast.NamedExpr(value=value) | ast.DictComp(value=value):
            yield value
        case ast.ListComp(elt=value) | ast.SetComp(elt=value) | ast.GeneratorExp(elt=value):
            yield value
        case ast.Call(func=ast.Name(id=name)) if name in _CONTAINERS:
            yield from [*node.args, *(option.value for option in node.keywords)]
        case ast.Lambda() | ast.Constant():
            pass
        case _:
            yield from _behind(context, node)


def _behind(context: Context, node: ast.expr) -> Iterator[ast.expr]:
    """Yield what an attribute may hold, or the text a method was called on; note that there may be more."""
    base = node
    while isinstance(base, ast.Attribute):
        base = base.value
    if isinstance(base, ast.Name) and base.id in context.modules and base is not node:
        return
    context.has_opaque_dispatch = True
    if isinstance(node, ast.Attribute):
        yield from _new_values(context, f".{node.attr}")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        yield from _texts_of(context, node.func.value.id)
