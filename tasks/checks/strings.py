"""Judge what strings spell, put together as far as that is known before the code runs (R10)."""

import ast
import re
import string

from tasks.checks.context import Context, is_dunder

__all__ = ["fold", "is_plain_template", "visit_constant", "visit_expression", "visit_joined"]

_WORD = re.compile(r"\w+")
_UNKNOWN = "\0"  # stands for a part of a string that only exists when the code runs


def visit_expression(context: Context, node: ast.Expr) -> None:
    """Let a string that is a statement be: a docstring goes nowhere."""
    if isinstance(node.value, ast.Constant):
        context.cleared.add(id(node.value))


def visit_constant(context: Context, node: ast.Constant) -> None:
    """Judge a literal string."""
    if isinstance(node.value, str | bytes) and id(node) not in context.cleared:
        _judge_text(context, node, _dunders(_text(node.value)))
        if node.value in context.policy.writing_methods:
            context.method_texts.append(node)


def visit_joined(context: Context, node: ast.BinOp | ast.JoinedStr) -> None:
    """Judge the whole of a sum or an f-string."""
    if id(node) in context.cleared or (isinstance(node, ast.BinOp) and not _is_sum(node)):
        return
    parts = fold(context, node)
    text = "".join(parts)
    if text in context.policy.writing_methods:
        context.method_texts.append(node)
    whole = _dunders(text)
    if whole:  # what one part spells out alone is reported at that part
        _judge_text(context, node, whole.difference(*map(_dunders, parts)))


def fold(context: Context, node: ast.AST) -> list[str]:
    """Return the pieces of a string expression, without running any of it."""
    parts: list[str] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, ast.Constant):
            parts.append(_text(item.value))
        elif isinstance(item, ast.BinOp) and _is_sum(item):
            context.cleared.add(id(item))
            stack += [item.right, item.left]
        elif isinstance(item, ast.JoinedStr):
            context.cleared.add(id(item))
            stack += reversed(item.values)
        elif isinstance(item, ast.FormattedValue) and item.format_spec is None:
            stack.append(item.value)
        else:
            parts.append(_UNKNOWN)
    return parts


def is_plain_template(template: object) -> bool:
    """Return whether ``template`` is a format string without attributes or indexes."""
    pending = [template]
    try:
        while pending:
            for _, field, spec, _ in string.Formatter().parse(_text(pending.pop())):
                if field and not field.isidentifier() and not field.isdecimal():
                    return False
                pending += [spec] if spec else []
    except ValueError:
        return False
    return isinstance(template, str)


def _judge_text(context: Context, node: ast.AST, dunders: set[str]) -> None:
    refused = sorted(dunders - context.policy.text_dunders)
    if refused:
        context.findings.add("R10", node, f"the text spells {refused[0]}", refused[0])


def _dunders(text: str) -> set[str]:
    words = _WORD.findall(text) if "__" in text else []
    return {word for word in words if is_dunder(word)}


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else _UNKNOWN


def _is_sum(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.Add)
