"""One strategy on its way: where it stands, and its result."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from celery import states
from pydantic import ValidationError

from tasks.errors import ExecutionLost, ResultTimeout, StratboxError, UnreadableResult
from tasks.ledger import QUEUED
from tasks.models import ErrorDetail, ExecutionResult, ExecutionStatus, one_line
from tasks.threads import LEAVING_SECONDS, in_any_case, in_own_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from tasks.client import StrategyClient
    from tasks.models import ExecutionRequest

__all__ = ["Submission", "SubmissionState", "cancellation", "result_of", "submit_unless_left", "submitted"]


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
            UnreadableResult: a newer worker's, of a kind that this version does not know.
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


@contextlib.asynccontextmanager
async def submitted(client: StrategyClient, request: ExecutionRequest) -> AsyncIterator[Submission]:
    """Submit a request without blocking the event loop; who leaves before its end, for whatever reason, cancels it.

    Raises:
        StratboxError: as `StrategyClient.submit`. Only where Redis is away it may run on.
    """
    submission = client.new_submission(request.user_id)
    left, sent = threading.Event(), threading.Event()

    def submit() -> None:
        try:
            submit_unless_left(client, submission, request, left)
        finally:
            sent.set()

    def leave() -> None:
        sent.wait(LEAVING_SECONDS)  # what is on its way cannot be cancelled yet
        client.abandon([submission])

    try:
        await in_own_thread(submit)
        yield submission
    except BaseException as exc:
        left.set()
        # Of what Redis or the workers say there is nothing to cancel, but for one that has not ended yet.
        if isinstance(exc, ResultTimeout) or not isinstance(exc, StratboxError):
            await in_any_case(leave)
        raise


def submit_unless_left(
    client: StrategyClient, submission: Submission, request: ExecutionRequest, left: threading.Event, **options: Any
) -> None:
    """Enqueue a request, in a thread; where whoever wanted it has left meanwhile, cancel it.

    Args:
        client: submits.
        submission: its handle, from `StrategyClient.new_submission`.
        request: what to enqueue.
        left: set by who leaves, before he cancels what he knows of.
        options: of `StrategyClient.submit_as`.
    """
    client.submit_as(submission, request, **options)
    if left.is_set():
        client.abandon([submission])


def cancellation() -> ExecutionResult:
    """Return the result of what was cancelled before it ran."""
    detail = ErrorDetail(type="Cancelled", message="cancelled before it ran")
    return ExecutionResult(status=ExecutionStatus.CANCELLED, error=detail)


def result_of(submission_id: str, meta: dict[str, Any]) -> ExecutionResult:
    """Return the result in Celery's record of a submission that has ended.

    Raises:
        ExecutionLost: the workers gave it up.
        UnreadableResult: a newer worker's, of a kind that this version does not know.
    """
    if meta["status"] == states.SUCCESS:
        try:
            # Requests are taken strictly, results are not: workers may be newer, and know more of what happened.
            return ExecutionResult.model_validate(meta["result"], extra="ignore")
        except ValidationError as exc:
            advice = "update stratbox here, or read it as JSON"
            msg = f"the result of submission {submission_id} is not of this version ({one_line(exc)}): {advice}"
            raise UnreadableResult(msg) from None
    if meta["status"] == states.REVOKED:
        return cancellation()
    msg = f"submission {submission_id} was given up by the workers: {meta['result']}"
    raise ExecutionLost(msg)
