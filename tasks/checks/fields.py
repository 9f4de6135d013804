"""Judge assignments to ``.name`` in code that could hold a dataclass's field (R5).

Python reads attributes by the names of fields, and writes them into the source of generated methods. So where code uses
``field`` or ``fields`` at all, ``.name`` may be assigned where the object cannot be one of them, or a harmless text.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from tasks.checks.context import Context

__all__ = ["judge_names"]

_FIELDS = frozenset({"field", "fields"})
_INITIALISERS = frozenset({"__init__", "__post_init__"})  # super() calls them too, but only on objects of their class
_HARMLESS_NAME = re.compile(r"[A-Za-z][\w .%-]*").fullmatch


def judge_names(context: Context) -> None:
    """Refuse each assignment to ``.name`` that could rename a field."""
    if "name" not in context.own_attributes or not _mentions_fields(context):
        return
    harmless = {id(target) for target in _harmless_targets(context)}
    for node in context.of_kinds(["Attribute"]):
        if node.attr == "name" and isinstance(node.ctx, ast.Store) and id(node) not in harmless:
            context.findings.add("R5", node, "this could rename a field of a dataclass", "field name")


def _mentions_fields(context: Context) -> bool:
    imported = any(alias.name in _FIELDS for alias in context.of_kinds(["alias"]))
    return imported or any(node.attr in _FIELDS for node in context.of_kinds(["Attribute"]))


def _harmless_targets(context: Context) -> Iterator[ast.expr]:
    for node in context.of_kinds(["Assign"]):
        if _is_harmless_name(node.value):
            yield from node.targets
    if any(node.id in _INITIALISERS and isinstance(node.ctx, ast.Load) for node in context.of_kinds(["Name"])):
        return
    for function in context.of_kinds(["FunctionDef"]):
        parameters = [*function.args.posonlyargs, *function.args.args]
        called_by_python = function.name in _INITIALISERS and not function.decorator_list
        if called_by_python and parameters and parameters[0].arg == "self":
            yield from (target for target in _targets(function.body) if _is_of_self(target))


def _is_harmless_name(value: ast.expr) -> bool:
    if not isinstance(value, ast.Constant):
        return False
    return value.value is None or (isinstance(value.value, str) and _HARMLESS_NAME(value.value) is not None)


def _targets(body: Iterable[ast.AST]) -> Iterator[ast.expr]:
    """Yield what the statements of one function assign to."""
    stack = list(body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from target.elts if isinstance(target, ast.Tuple) else [target]
        elif isinstance(node, ast.AnnAssign):
            yield node.target
        elif isinstance(node, ast.stmt | ast.ExceptHandler) and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            stack += (part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt | ast.ExceptHandler))


def _is_of_self(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
