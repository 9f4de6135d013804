"""One strategy on its way: where it stands, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from celery import states

from tasks.errors import ExecutionLost, ResultTimeout
from tasks.ledger import QUEUED
from tasks.models import ErrorDetail, ExecutionResult, ExecutionStatus

if TYPE_CHECKING:
    from collections.abc import Generator

    from tasks.client import StrategyClient

__all__ = ["Submission", "SubmissionState", "cancellation", "result_of"]


class SubmissionState(StrEnum):
    """Where a submission stands that has no result yet."""

    #: In Redis, no worker has started it.
    QUEUED = "queued"
    RUNNING = "running"
    #: The infrastructure failed; it will be tried again.
    RETRYING = "retrying"
    #: The infrastructure failed for good; `result()` says how.
    LOST = "lost"


_STATES = {
    QUEUED: SubmissionState.QUEUED,
    states.PENDING: SubmissionState.QUEUED,
    states.RECEIVED: SubmissionState.QUEUED,
    states.STARTED: SubmissionState.RUNNING,
    states.RETRY: SubmissionState.RETRYING,
    states.FAILURE: SubmissionState.LOST,
}


@dataclass(frozen=True)
class Submission:
    """One strategy on its way. Awaiting it gives its result."""

    id: str
    _client: StrategyClient = field(repr=False)

    def status(self) -> SubmissionState | ExecutionStatus:
        """Return where it stands: a state on the way, or how it ended.

        Raises:
            UnknownSubmission: no such id.
            BrokerUnavailable: Redis does not answer.
        """
        meta = self._client.meta(self.id)
        if meta["status"] in _STATES:
            return _STATES[meta["status"]]
        return result_of(self.id, meta).status

    def result(self, timeout: float | None = None) -> ExecutionResult:
        """Return the result, waiting for it up to `timeout` seconds; None waits for ever.

        Raises:
            ResultTimeout: it had not ended by then.
            ExecutionLost: the infrastructure failed for good.
            UnknownSubmission: no such id.
            BrokerUnavailable: Redis does not answer.
        """
        return result_of(self.id, self._client.wait(self.id, timeout))

    async def result_async(self, timeout: float | None = None) -> ExecutionResult:  # noqa: ASYNC109  # as in result()
        """Do what `result` does without blocking the event loop."""
        return result_of(self.id, await self._client.wait_async(self.id, timeout))

    def ended_within(self, seconds: float) -> bool:
        """Wait up to `seconds` for it to end; return whether it has."""
        try:
            self._client.wait(self.id, seconds)
        except ResultTimeout:
            return False
        return True

    def __await__(self) -> Generator[Any, None, ExecutionResult]:
        """Wait for the result."""
        return self.result_async().__await__()

    def cancel(self) -> bool:
        """End it wherever it is; False when it had ended already.

        Raises:
            UnknownSubmission: no such id.
            BrokerUnavailable: Redis does not answer.
        """
        return self._client.cancel(self.id)


def cancellation() -> ExecutionResult:
    """Return the result of what was cancelled before it ran."""
    detail = ErrorDetail(type="Cancelled", message="cancelled before it ran")
    return ExecutionResult(status=ExecutionStatus.CANCELLED, error=detail)


def result_of(submission_id: str, meta: dict[str, Any]) -> ExecutionResult:
    """Return the result in Celery's record of a submission that has ended.

    Raises:
        ExecutionLost: the workers gave it up.
    """
    if meta["status"] == states.SUCCESS:
        return ExecutionResult.model_validate(meta["result"])
    if meta["status"] == states.REVOKED:
        return cancellation()
    msg = f"submission {submission_id} was given up by the workers: {meta['result']}"
    raise ExecutionLost(msg)
