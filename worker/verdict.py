"""What became of a strategy that ran: the result of what came out of a sandbox. Pure functions."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tasks.models import ErrorDetail, ExecutionResult, ExecutionStatus
from tasks.refusal import policy_violation
from worker.sandbox.ending import Ending, How

if TYPE_CHECKING:
    from worker.sandbox.config import SandboxConfig

__all__ = ["classify"]


def classify(ending: Ending, timeout_seconds: float, config: SandboxConfig) -> ExecutionResult:
    """Turn what came out of a sandbox into a result."""
    status, error = _verdict(ending, timeout_seconds, config)
    report = ending.report
    return ExecutionResult(
        status=status,
        output=ending.stdout.decode(errors="replace"),
        stderr=ending.stderr.decode(errors="replace"),
        truncated=ending.truncated,
        error=error,
        exit_code=report.exit_code if report else ending.exit_code,
        signal=report.signal if report else None,
        violations=ending.violations if status is ExecutionStatus.REJECTED else (),
    )


def _verdict(  # noqa: PLR0911  # one return for each way to end
    ending: Ending, timeout_seconds: float, config: SandboxConfig
) -> tuple[ExecutionStatus, ErrorDetail | None]:
    report = ending.report
    mebibytes = config.limits.memory_bytes // 2**20
    if ending.how is How.INTERRUPTED:
        return ExecutionStatus.CANCELLED, ErrorDetail(type="Cancelled", message="cancelled while it ran")
    if ending.out_of_memory or (report and report.oom_kills > 0):
        message = f"killed for going over {mebibytes} MiB of memory"
        return ExecutionStatus.OUT_OF_MEMORY, ErrorDetail(type="OutOfMemory", message=message)
    if ending.how is How.OVERDUE or (report and report.timed_out):
        message = f"still running after {timeout_seconds:g} s"
        return ExecutionStatus.TIMED_OUT, ErrorDetail(type="TimedOut", message=message)
    if report is None:
        what = "sent what no runner sends" if ending.how is How.BABBLED else "ended without a report"
        message = f"the sandbox {what} (exit code {ending.exit_code})"
        return ExecutionStatus.CRASHED, ErrorDetail(type="Crashed", message=message)
    if ending.violations:
        return ExecutionStatus.REJECTED, policy_violation(ending.violations)
    if report.signal is not None:
        return ExecutionStatus.CRASHED, ErrorDetail(type="Crashed", message=f"killed by {_signal_name(report.signal)}")
    if report.exit_code == 0:
        return ExecutionStatus.SUCCEEDED, None
    return ExecutionStatus.FAILED, _explained(report.explanation, report.exit_code)


def _explained(explanation: str, exit_code: int | None) -> ErrorDetail:
    """Return the strategy's own account of its exception; without a sound one, its exit code."""
    try:
        fields = json.loads(explanation)
        # Escaped lone surrogates would break every later encoding.
        clean = {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in fields.items()}
        return ErrorDetail.model_validate(clean, strict=True)
    except (ValueError, AttributeError, RecursionError, ValidationError):
        return ErrorDetail(type="NonZeroExit", message=f"left with exit code {exit_code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
