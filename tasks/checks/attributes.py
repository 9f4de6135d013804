"""Judge attributes of modules and of values (R3, R4, R5, R7, R8, R9, and R10 for ``format``)."""

import ast

from tasks.checks.assignments import values_of
from tasks.checks.context import SELF, Context, is_dunder
from tasks.checks.findings import Problem
from tasks.checks.guards import find_guard, guard_of, is_sink
from tasks.checks.strings import is_plain_template

__all__ = ["visit_attribute", "visit_match_class"]

_FORMAT = frozenset({"format", "format_map"})
_MODULE_DEPTH = 4  # longer chains of attributes are never modules


def visit_attribute(context: Context, node: ast.Attribute) -> None:
    """Judge ``x.name``, whatever x is."""
    module = _module_of(context, node.value)
    if module is None and node.attr in context.plain_attributes:
        return
    stored = not isinstance(node.ctx, ast.Load)
    if module is not None:
        context.cleared.add(id(node.value))
    problem = _identifier(context, node.attr, node.value, stored=stored)
    if problem is None and module is not None:
        problem = _member(context, module, node, stored=stored)
    elif problem is None:
        problem = _method(context, node.attr)
    if problem is None and id(node) not in context.cleared:
        problem = _uncalled(context, node)
    context.findings.report(problem, node, node.attr)
    if problem is None and module is None and not _depends(context, node.attr):
        context.plain_attributes.add(node.attr)


def visit_match_class(context: Context, node: ast.MatchClass) -> None:
    """Judge the attributes that ``case C(name=...)`` reads."""
    for name in node.kwd_attrs:
        read = ast.Attribute(value=node.cls, attr=name, ctx=ast.Load())
        problem = _identifier(context, name, None, stored=False) or _method(context, name)
        context.findings.report(problem or _uncalled(context, read), node, name)


def _depends(context: Context, name: str) -> bool:
    """Return whether the next use of this attribute name may be judged otherwise."""
    guarded = name in context.guarded or guard_of(context.policy, name) is not None
    return guarded or name.startswith("_") or name in _FORMAT


def _module_of(context: Context, node: ast.expr) -> str | None:
    """Return the module that ``node`` is, if it is one: ``np.random`` is numpy.random."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute) and len(attributes) < _MODULE_DEPTH:
        attributes.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in context.modules:
        return None
    path = ".".join([context.modules[node.id], *reversed(attributes)])
    return path if path in context.policy.modules else None


def _identifier(context: Context, name: str, base: ast.expr | None, *, stored: bool) -> Problem:
    """Judge an attribute name that is wrong on any object (R3, R4, R5, R7)."""
    policy = context.policy
    if is_dunder(name):
        allowed = policy.writable_dunders if stored else policy.readable_dunders
        if name in allowed or (name in policy.definable_dunders and _is_super(base)):
            return None
        return "R3", f"the attribute {name} is reserved"
    if name.startswith("_") and name not in policy.public_privates:
        return None if _is_own_private(context, name, base) else ("R4", f"{name} is private to its object")
    if name in policy.introspection:
        return "R5", f"{name} leads to the interpreter's internals"
    return ("R7", f"{name} is a system module") if name in policy.system_modules else None


def _is_own_private(context: Context, name: str, base: ast.expr | None) -> bool:
    """Return whether it is an attribute of ``self`` that the code itself makes: ``C.method(df)`` makes df the self."""
    if name not in context.own_attributes and name not in context.bound:
        return False
    return _is_super(base) or (isinstance(base, ast.Name) and base.id in SELF)


def _is_super(node: ast.expr | None) -> bool:
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(function, ast.Name) and function.id == "super"


def _member(context: Context, module: str, node: ast.Attribute, *, stored: bool) -> Problem:
    policy, path = context.policy, f"{module}.{node.attr}"
    if path in policy.modules:
        used = id(node) in context.cleared
        return None if used else ("R7", f"the module {path} is used as a value")
    if node.attr in policy.modules[module] or node.attr in policy.readable_dunders:
        return ("R7", f"{path} may not be changed") if stored else None
    if is_sink(policy, node.attr, policy.library_sinks):
        return "R8", f"{path} reads, writes or evaluates"
    return "R7", f"{path} is not on the list of allowed names"


def _method(context: Context, name: str) -> Problem:
    if not is_sink(context.policy, name, context.policy.sinks):
        return None
    own = name in context.own_attributes or name in context.bound
    harmless = own and name not in context.policy.sinks
    return None if harmless else ("R8", f".{name} reads, writes or evaluates")


def _uncalled(context: Context, node: ast.Attribute) -> Problem:
    """Judge a function that is not called in its one honest way."""
    if node.attr in _FORMAT:
        message = f".{node.attr} needs a literal template without attributes or indexes"
        return None if _is_plain(context, node.value) else ("R10", message)
    guard = find_guard(context, node)
    if guard is None or (guard.rule == "R9" and _is_own_method(context, node)):
        return None
    return guard.rule, guard.message


def _is_own_method(context: Context, node: ast.Attribute) -> bool:
    return node.attr in context.bound and isinstance(node.value, ast.Name) and node.value.id in SELF


def _is_plain(context: Context, template: ast.expr) -> bool:
    """Return whether ``template`` is a harmless literal, or a variable that is never anything else."""
    if isinstance(template, ast.Name):
        name, known = template.id, context.plain_templates
        if name not in known:
            values = values_of(context, name)
            known[name] = bool(values) and all(_is_plain_literal(value) for value in values)
        return known[name]
    return _is_plain_literal(template)


def _is_plain_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and is_plain_template(node.value)
