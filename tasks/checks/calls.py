"""Judge calls: the one honest way of guarded functions (R6, R7, R8, R11), and functions named by a string (R9)."""

import ast

from tasks.checks.classes import is_type_call
from tasks.checks.context import Context
from tasks.checks.dispatch import judge_dispatch
from tasks.checks.guards import find_guard

__all__ = ["visit_call"]


def visit_call(context: Context, node: ast.Call) -> None:
    """Clear the function of an honest call, and judge the strings that name functions."""
    guard = find_guard(context, node.func)
    kept = is_type_call(node) and id(node) not in context.cleared
    if guard is not None and guard.is_honest(context.policy, node) and not kept:
        context.cleared.add(id(node.func))
    judge_dispatch(context, node)
