"""Judge calls: the one honest way of guarded functions (R6), and functions named by a string (R9)."""

import ast
from collections.abc import Iterator

from tasks.checks.context import Context
from tasks.checks.guards import TYPE, find_guard, makes_class
from tasks.checks.strings import fold

__all__ = ["visit_call"]

_NAMED_AGGREGATION = frozenset({"agg", "aggregate"})
_FLAT_DISPATCH = frozenset({"map", "pipe"})  # a list or dict there is data


def visit_call(context: Context, node: ast.Call) -> None:
    """Clear the function of an honest call, and judge the strings that name functions."""
    guard = find_guard(context, node.func)
    if guard is None:
        if makes_class(node):
            context.findings.add(TYPE.rule, node.func, TYPE.message, "type")
    elif guard.is_honest(context.policy, node):
        context.cleared.add(id(node.func))
    for value in _dispatched(node, context.policy.string_dispatch):
        text = "".join(fold(context, value))
        if text not in context.policy.reductions:
            context.findings.add("R9", value, "a function named by a string must be a listed reduction")


def _dispatched(call: ast.Call, methods: frozenset[str]) -> Iterator[ast.expr]:
    """Yield the string expressions that name the function which ``call`` applies."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    stack = [option.value for option in call.keywords if option.arg == "aggfunc"]
    if name == "NamedAgg":
        stack += call.args[1:2]
    elif name in methods and isinstance(call.func, ast.Attribute):
        stack += call.args[:1]
        for option in call.keywords:
            stack += _named_functions(option, every=name in _NAMED_AGGREGATION)
    while stack:
        node = stack.pop()
        if _is_textual(node):
            yield node
        elif name not in _FLAT_DISPATCH:
            stack += _inner(node)


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


def _is_textual(node: ast.expr) -> bool:
    """Return whether ``node`` computes a string out of at least one literal."""
    while isinstance(node, ast.BinOp):
        if _is_textual_leaf(node.right):
            return True
        node = node.left
    return _is_textual_leaf(node)


def _is_textual_leaf(node: ast.expr) -> bool:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return literal or isinstance(node, ast.JoinedStr)


def _inner(node: ast.expr) -> list[ast.expr]:
    """Return the expressions whose values pandas could take from this one."""
    match node:
        case ast.List(elts=values) | ast.Set(elts=values) | ast.Tuple(elts=values):
            return values
        case ast.Dict(values=values) | ast.BoolOp(values=values):
            return values
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case ast.Starred(value=value) | ast.NamedExpr(value=value):
            return [value]
    return []
