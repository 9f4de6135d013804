"""Judge imports (R2) and plain names, where they are bound and where they are read (R3, R4, R6, R7)."""

import ast

from tasks.checks.bindings import bound_names, imported
from tasks.checks.context import SELF, Context, is_dunder
from tasks.checks.guards import find_guard, is_sink
from tasks.checks.scopes import own_loads

__all__ = ["judge_class_imports", "visit_binding", "visit_import", "visit_import_from", "visit_keyword", "visit_name"]

_NONE: frozenset[str] = frozenset()
_SUITES = (
    ast.If | ast.For | ast.While | ast.With | ast.Try | ast.TryStar | ast.ExceptHandler | ast.Match | ast.match_case
)


def judge_class_imports(context: Context) -> None:
    """Refuse a module or a guarded function that a class imports: as an attribute, ``A.np``, no check would know it."""
    stack = [part for node in context.of_kinds(["ClassDef"]) for part in node.body]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {imported(node, alias)[0] for alias in node.names}
            if not names.isdisjoint(context.modules) or not names.isdisjoint(context.guarded):
                context.findings.add("R7", node, "an import within a class makes an attribute: import above the class")
        elif isinstance(node, _SUITES):
            stack += ast.iter_child_nodes(node)


def visit_import(context: Context, node: ast.Import) -> None:
    """Judge each module of ``import a, b.c as d``."""
    for alias in node.names:
        if alias.name not in context.policy.modules or alias.name == "__future__":
            _refuse_import(context, alias, alias.name)
        _bind_alias(context, node, alias)


def visit_import_from(context: Context, node: ast.ImportFrom) -> None:
    """Judge the module and each name of ``from a import b, c as d``."""
    known = None if node.level else context.policy.modules.get(node.module or "")
    if known is None:
        _refuse_import(context, node, "." * node.level + (node.module or ""))
    for alias in node.names:
        if known is not None and f"{node.module}.{alias.name}" not in context.policy.modules:
            _judge_imported_name(context, alias, node.module or "", known)
        _bind_alias(context, node, alias)


def _refuse_import(context: Context, node: ast.AST, name: str) -> None:
    things = (f"import {name}", f"import {name.partition('.')[0]}")
    context.findings.add("R2", node, f"the module {name} is not allowed", *things)


def _judge_imported_name(context: Context, alias: ast.alias, module: str, known: frozenset[str]) -> None:
    name, add = alias.name, context.findings.add
    if is_dunder(name):
        add("R3", alias, f"the name {name} is reserved", name)
    elif is_sink(context.policy, name, context.policy.library_sinks) and name not in known:
        add("R8", alias, f"{module}.{name} reads, writes or evaluates", name)
    elif name not in known:
        add("R2", alias, f"{module} has no allowed name {name}", name)


def _bind_alias(context: Context, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
    local, target = imported(node, alias)
    # Inside a class __x becomes _Class__x: the module would escape under that name.
    if local.startswith("__") and target != "__future__":
        context.findings.add("R3", alias, f"the name {local} is reserved", local)
    elif context.modules.get(local) != target or local in SELF:
        _bind(context, alias, local)


def visit_binding(context: Context, node: ast.AST) -> None:
    """Judge the names that a definition, an argument or a pattern binds."""
    dunders = context.policy.definable_dunders if isinstance(node, ast.FunctionDef) else _NONE
    for name in bound_names(node):
        _bind(context, node, name, dunders)


def _bind(context: Context, node: ast.AST, name: str, dunders: frozenset[str] = _NONE) -> None:
    add = context.findings.add
    if name in context.policy.refused_builtins:
        add("R6", node, f"the builtin {name} may not be rebound", name)
    elif is_dunder(name) and name not in dunders:
        add("R3", node, f"the name {name} is reserved", name)
    elif name in context.modules:
        add("R7", node, f"{name} is an imported module: use another name", "rebound")
    elif name in SELF and not isinstance(node, ast.arg):
        add("R4", node, f"{name} is only the first argument of a method", "rebound self")


def visit_name(context: Context, node: ast.Name) -> None:
    """Judge a name that is read, assigned or deleted."""
    name = node.id
    if not isinstance(node.ctx, ast.Load):
        _bind(context, node, name, context.name_dunders)
    elif name not in context.plain_names and id(node) not in context.cleared:
        _refuse_name(context, node, name)


def _refuse_name(context: Context, node: ast.Name, name: str) -> None:
    add = context.findings.add
    if name in context.policy.refused_builtins:
        add("R6", node, f"the builtin {name} is not allowed", name)
    elif name in context.modules:
        add("R7", node, f"the module {name} is used as a value", "module value")
    elif guard := find_guard(context, node):
        if name not in context.bound or id(node) not in own_loads(context, name):
            thing = "open variable" if name == "open" and name in context.bound else name
            add(guard.rule, node, guard.message, thing, context.guarded.get(name, thing))
    elif is_dunder(name) and name not in context.name_dunders:
        add("R3", node, f"the name {name} is reserved", name)
    elif name not in context.bound and name not in context.policy.builtins:
        add("R6", node, f"{name} is neither defined here nor an allowed builtin", name)


def visit_keyword(context: Context, node: ast.keyword) -> None:
    """Judge the name of a keyword argument."""
    if node.arg and is_dunder(node.arg):
        context.findings.add("R3", node, f"the name {node.arg} is reserved", node.arg)
