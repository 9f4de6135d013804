"""The results of what never ran: refused by the code policy, or as a request that breaks the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.models import ErrorDetail, ExecutionResult, ExecutionStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.validator import Violation

__all__ = ["policy_refusal", "policy_violation", "rejection"]


def rejection(message: str) -> ExecutionResult:
    """Return the result for a request that breaks the contract."""
    detail = ErrorDetail(type="InvalidRequest", message=message)
    return ExecutionResult(status=ExecutionStatus.REJECTED, error=detail)


def policy_refusal(violations: Sequence[Violation]) -> ExecutionResult:
    """Return the result for a source that the code policy refuses."""
    return ExecutionResult(
        status=ExecutionStatus.REJECTED, error=policy_violation(violations), violations=tuple(violations)
    )


def policy_violation(violations: Sequence[Violation]) -> ErrorDetail:
    """Return the first of them, and how many more there are."""
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return ErrorDetail(type="PolicyViolation", message=f"{first.rule} {first.message}{more}", line=first.line)
