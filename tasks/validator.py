"""Check a strategy's source against the code policy, without ever running any of it.

Reads the source, flattens its syntax tree once, then looks at each node once. Every violation is
reported, so that an agent repairs its code in one round. Standard library only: the sandbox image
uses this module too.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.checks import attributes, bindings, calls, classes, dispatch, fields, legality, names, source, strings
from tasks.checks.context import Context
from tasks.checks.findings import Findings, printable
from tasks.policy import DEFAULT_POLICY, Policy

__all__ = ["ASTValidator", "ValidationReport", "Violation"]

_MESSAGE_LENGTH = 400


@dataclass(frozen=True, slots=True)
class Violation:
    """Tell what the policy refuses, where, and how to write it instead.

    ``line`` and ``column`` are 1-based and count characters; for an attribute they point at its
    name. ``text`` is what stands there: printable, at most 80 characters.
    """

    rule: str
    line: int
    column: int
    text: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Hold all violations, ordered by position; true when there are none."""

    violations: tuple[Violation, ...] = ()

    def __bool__(self) -> bool:
        """Return whether the code is clean."""
        return not self.violations


class ASTValidator:
    """Apply one policy to any number of sources; safe to share between threads."""

    def __init__(self, policy: Policy = DEFAULT_POLICY) -> None:
        """Keep ``policy``, which is immutable."""
        self.policy = policy

    def validate(self, code: str) -> ValidationReport:
        """Return every violation in ``code``; never raises and never executes anything."""
        context = Context(self.policy, Findings())
        context.adopt(source.read_nodes(code, self.policy, context.findings))
        bindings.collect(context)
        classes.clear_harmless(context)
        fields.judge_names(context)
        names.judge_class_imports(context)
        _walk(context)
        dispatch.finish(context)
        legality.check_legality(context)
        return ValidationReport(_violations(context))


def _walk(context: Context) -> None:
    plan = {type(nodes[0]): _handler(context.policy, kind) for kind, nodes in context.kinds.items()}
    for node in context.nodes:
        handler = plan[type(node)]
        if handler is not None:
            handler(context, node)


def _violations(context: Context) -> tuple[Violation, ...]:
    policy, findings = context.policy, context.findings
    return tuple(
        Violation(
            rule=item.rule,
            line=item.line,
            column=item.column,
            text=findings.text(item),
            message=printable(item.message, _MESSAGE_LENGTH),
            hint=policy.hint(item.rule, *item.things),
        )
        for item in findings.ordered(policy.max_violations)
    )


_Handler = Callable[[Context, Any], None]


def _handler(policy: Policy, kind: str) -> _Handler | None:
    return _HANDLERS.get(kind) if kind in policy.nodes else _refuse_node


def _refuse_node(context: Context, node: ast.AST) -> None:
    kind = type(node).__name__
    thing = "async" if kind.startswith(("Async", "Await")) else kind
    context.findings.add("R1", node, f"{kind} is not allowed", thing)


def _visit_comprehension(context: Context, node: ast.comprehension) -> None:
    if node.is_async:
        context.findings.add("R1", node.target, "an async comprehension is not allowed", "async")


# Node types without an entry hold nothing but other nodes: the policy's list of nodes decides alone.
_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys(bindings.BINDERS, names.visit_binding),
    "Attribute": attributes.visit_attribute,
    "BinOp": strings.visit_joined,
    "Call": calls.visit_call,
    "Constant": strings.visit_constant,
    "Expr": strings.visit_expression,
    "Import": names.visit_import,
    "ImportFrom": names.visit_import_from,
    "JoinedStr": strings.visit_joined,
    "MatchClass": attributes.visit_match_class,
    "Name": names.visit_name,
    "comprehension": _visit_comprehension,
    "keyword": names.visit_keyword,
}
