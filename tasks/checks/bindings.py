"""Find what the code binds: needed before the first node can be judged."""

import ast
from collections.abc import Iterator

from tasks.checks.context import Context, is_dunder
from tasks.checks.guards import guard_of

__all__ = ["BINDERS", "BINDING_KINDS", "bound_names", "collect", "imported"]

_LONGEST_MODULE = 500  # longer than that of any module

#: Per node type the fields that hold identifiers the node binds. Name and alias are special.
BINDERS: dict[str, tuple[str, ...]] = {
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

#: All node types that may bind something; of names and attributes only some do.
BINDING_KINDS = (*BINDERS, "Name", "Attribute", "Import", "ImportFrom")


def collect(context: Context) -> None:
    """Note in ``context`` all that its nodes bind, and which names need no closer look."""
    context.bound.update(node.id for node in context.of_kinds(["Name"]) if isinstance(node.ctx, ast.Store))
    stored = (node for node in context.of_kinds(["Attribute"]) if isinstance(node.ctx, ast.Store))
    context.own_attributes.update(node.attr for node in stored)
    for node in context.of_kinds(["Import", "ImportFrom"]):
        for alias in node.names:
            _collect_alias(context, node, alias)
    for node in context.of_kinds(BINDERS):
        context.bound.update(bound_names(node))
    known = {name for name in context.bound if not is_dunder(name)} | context.policy.builtins
    special = {"open", "type", *context.modules, *context.guarded}
    context.plain_names = known - special - context.policy.refused_builtins


def _collect_alias(context: Context, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
    local, target = imported(node, alias)
    context.bound.add(local)
    if target in context.policy.modules:
        context.modules.setdefault(local, target)
    elif isinstance(node, ast.ImportFrom) and guard_of(context.policy, alias.name):
        context.guarded[local] = alias.name


def bound_names(node: ast.AST) -> Iterator[str]:
    """Yield the identifiers that ``node`` itself binds."""
    for field in BINDERS.get(type(node).__name__, ()):
        value = getattr(node, field)
        yield from value if isinstance(value, list) else [value] if value else []


def imported(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str, str]:
    """Return the local name an alias binds, and the dotted name of what it stands for."""
    if isinstance(node, ast.ImportFrom):
        module = (node.module or "")[:_LONGEST_MODULE]  # to copy a name of 100,000 letters 50,000 times takes long
        return alias.asname or alias.name, f"{module}.{alias.name}"
    first = alias.name.partition(".")[0]
    return (alias.asname, alias.name) if alias.asname else (first, first)
