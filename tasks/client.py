"""What a producer calls: submit a strategy, follow it, get its result."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import redis.exceptions
from celery import states
from kombu.exceptions import OperationalError

from tasks.app import STRATEGY_EXECUTION, create_app
from tasks.errors import BrokerUnavailable, InvalidRequest, StratboxError
from tasks.models import ExecutionRequest, ExecutionResult
from tasks.results import QUEUED, ResultStore
from tasks.settings import Settings
from tasks.submission import Submission, cancellation
from tasks.summary import summarize
from tasks.tracing import submission_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from pydantic import JsonValue

__all__ = ["StrategyClient"]

#: Message header with the producer's clock (seconds since the epoch), from which workers tell the wait in the queue.
SUBMITTED_AT = "stratbox_submitted_at"
#: One quick second try; then the caller is told.
PUBLISH_RETRY = {"max_retries": 1, "interval_start": 0.2, "interval_step": 0.2, "interval_max": 0.2}
LOWEST_PRIORITY = 9


@contextlib.contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except StratboxError:
        raise  # a ResultTimeout is an OSError, too
    except (redis.exceptions.RedisError, OperationalError, OSError, RuntimeError) as exc:
        # kombu says RuntimeError("Retry limit exceeded …") for a broker that is away.
        if isinstance(exc, RuntimeError) and "etry limit" not in str(exc):
            raise
        cause = exc.__cause__ or exc
        reason = " ".join(str(cause).split()) or type(cause).__name__
        msg = f"Redis does not answer as it should ({reason}): start it, or set STRATBOX_REDIS_URL"
        raise BrokerUnavailable(msg) from exc


class StrategyClient:
    """Submits strategies through Redis. Safe to share between threads.

    Args:
        settings: where Redis is; by default what the `STRATBOX_*` variables say.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._app = create_app(self.settings)
        self._results = ResultStore(self._app)

    def submit(  # noqa: PLR0913  # the fields of a request, named as such
        self,
        code: str,
        data: JsonValue = None,
        *,
        timeout: float | None = None,
        user_id: str = "",
        priority: int = 0,
        seed: int | None = None,
    ) -> Submission:
        """Enqueue one strategy and return at once.

        Args:
            code: Python source, at most 256 KiB.
            data: any JSON value, at most 16 MiB as text; None stands for `{}`.
            timeout: wall clock of the strategy, seconds, at most 60.
            user_id: whose strategy it is.
            priority: 0 (first) to 9 (last).
            seed: for the global random generators; None for a fresh one.

        Raises:
            InvalidRequest: an argument breaks the contract; nothing was sent.
            BrokerUnavailable: Redis does not answer; nothing was enqueued.
        """
        request = ExecutionRequest.build(code, data, timeout=timeout, user_id=user_id, seed=seed)
        return self.submit_request(request, priority=priority)

    def submit_request(self, request: ExecutionRequest, *, priority: int = 0) -> Submission:
        """Enqueue one request that is already built; see `submit`."""
        if not 0 <= priority <= LOWEST_PRIORITY:
            msg = f"priority: {priority} is not between 0 (first) and {LOWEST_PRIORITY} (last)"
            raise InvalidRequest(msg)
        submission = Submission(str(uuid.uuid4()), self)
        with _redis_errors():
            self._results.mark_queued(submission.id)
            try:
                self._publish(submission.id, request, priority)
            except BaseException:
                with contextlib.suppress(redis.exceptions.RedisError):
                    self._results.forget(submission.id)
                raise
        return submission

    def _publish(self, task_id: str, request: ExecutionRequest, priority: int) -> None:
        # Not send_task(): it would open a subscription for every result, wanted or not.
        amqp = self._app.amqp
        message = amqp.as_task_v2(
            task_id,
            STRATEGY_EXECUTION,
            kwargs=request.model_dump(mode="json", exclude_defaults=True),
            argsrepr="()",
            kwargsrepr=summarize(request),
            create_sent_event=self._app.conf.task_send_sent_event,
        )
        with submission_headers(task_id) as headers, self._app.producer_or_acquire() as producer:
            amqp.send_task_message(
                producer,
                STRATEGY_EXECUTION,
                message,
                priority=priority,
                headers={SUBMITTED_AT: time.time(), **headers},
                retry=True,
                retry_policy=PUBLISH_RETRY,
            )

    def submission(self, submission_id: str) -> Submission:
        """Return the handle of an earlier submission; whether it exists shows when it is asked."""
        return Submission(submission_id, self)

    def meta(self, submission_id: str) -> dict[str, Any]:
        """Return what Celery recorded of a submission."""
        with _redis_errors():
            return self._results.meta(submission_id)

    def wait(self, submission_id: str, timeout: float | None) -> dict[str, Any]:
        """Return what Celery recorded at the end of a submission, waiting for it."""
        with _redis_errors():
            return self._results.wait(submission_id, timeout)

    async def wait_async(self, submission_id: str, timeout: float | None) -> dict[str, Any]:  # noqa: ASYNC109
        """Do what `wait` does without blocking the event loop."""
        with _redis_errors():
            return await self._results.wait_async(submission_id, timeout)

    def cancel(self, submission_id: str) -> bool:
        """End a submission wherever it is; False when it had ended already.

        One that waits ends with the verdict stored here, which the worker that gets the message honours; a running one
        is ended by its worker and keeps the output it had. Should that worker die first, no other runs it.
        """
        with _redis_errors():
            meta = self._results.meta(submission_id)
            if meta["status"] in states.READY_STATES:
                return False
            self._results.mark_cancelled(submission_id)
            if meta["status"] in (QUEUED, states.RETRY):
                self._results.store_verdict(submission_id, cancellation().model_dump(mode="json"))
            self._app.control.revoke(submission_id, terminate=True)
        return True

    def map(
        self,
        requests: Iterable[ExecutionRequest],
        *,
        in_flight: int = 64,
        priority: int = 0,
        timeout: float | None = None,
    ) -> Iterator[ExecutionResult]:
        """Run many requests and yield their results in the order of the requests.

        Stopping early, or an error, cancels what is still in flight.

        Args:
            requests: read lazily.
            in_flight: how many are submitted and not yet yielded, at most.
            priority: of all of them, 0 (first) to 9 (last).
            timeout: how long to wait for each result in turn, seconds.

        Raises:
            ResultTimeout, ExecutionLost, BrokerUnavailable: as `Submission.result`.
        """
        waiting: deque[Submission] = deque()
        try:
            for request in requests:
                if len(waiting) >= in_flight:
                    yield waiting[0].result(timeout)
                    waiting.popleft()
                waiting.append(self.submit_request(request, priority=priority))
            while waiting:
                yield waiting[0].result(timeout)
                waiting.popleft()
        finally:
            self._abandon(waiting)

    async def submit_async(self, code: str, data: JsonValue = None, **options: Any) -> Submission:
        """Do what `submit` does without blocking the event loop."""
        return await asyncio.to_thread(self.submit, code, data, **options)

    async def map_async(
        self,
        requests: Iterable[ExecutionRequest],
        *,
        in_flight: int = 64,
        priority: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109  # for each result in turn, as in map()
    ) -> AsyncIterator[ExecutionResult]:
        """Do what `map` does without blocking the event loop."""
        waiting: deque[Submission] = deque()
        try:
            for request in requests:
                if len(waiting) >= in_flight:
                    yield await waiting[0].result_async(timeout)
                    waiting.popleft()
                waiting.append(await asyncio.to_thread(self.submit_request, request, priority=priority))
            while waiting:
                yield await waiting[0].result_async(timeout)
                waiting.popleft()
        finally:
            await asyncio.to_thread(self._abandon, waiting)

    def _abandon(self, waiting: Iterable[Submission]) -> None:
        for submission in waiting:
            with contextlib.suppress(BrokerUnavailable):
                submission.cancel()

    def workers(self, timeout: float = 1.0) -> list[str]:
        """Return the names of the workers that answer within `timeout` seconds.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        with _redis_errors():
            replies = self._app.control.ping(timeout=timeout)
        return sorted(name for reply in replies for name in reply)

    def server_info(self) -> dict[str, Any]:
        """Return what Redis says of itself.

        Raises:
            BrokerUnavailable: it does not answer.
        """
        with _redis_errors():
            return dict(self._app.backend.client.info())

    def close(self) -> None:
        """Close the connections to Redis."""
        self._app.close()
        self._app.backend.client.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()
