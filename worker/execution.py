"""The `STRATEGY_EXECUTION` task: a thin layer between Celery and the executor."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
import uuid
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import structlog
from celery import Task, states
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.worker.request import Request
from kombu.asynchronous import get_event_loop

from tasks.app import STRATEGY_EXECUTION
from tasks.backend import FENCE, PAUSE
from tasks.datasets import Datasets
from tasks.errors import InvalidRequest, UnknownDataset
from tasks.message import SUBMITTED_AT
from tasks.models import ExecutionRequest
from tasks.refusal import rejection
from tasks.submission import cancellation as cancelled_result
from tasks.summary import describe, is_summary
from worker import events
from worker.datasets import shared_cache
from worker.errors import SandboxError, SandboxLost, WorkerDied
from worker.executor import Cancellation, CodeExecutor
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from tasks.ledger import Beginning, Ledger
    from tasks.models import ExecutionResult
    from worker.datasets import DatasetCache

__all__ = ["ExecutionMessage", "ExecutionTask", "close_executor", "open_executor", "register"]

#: Ends the run in progress in a pool process; with none in progress it is ignored.
CANCEL_SIGNAL = signal.SIGUSR2
CANCEL_REPEAT_SECONDS = 0.5
#: The longest pause between two tries.
LONGEST_PAUSE_SECONDS = 60.0
#: How often to ask for an engine, or a Redis, that is away.
ENGINE_RETRY_SECONDS = REDIS_RETRY_SECONDS = 0.5
REFUSED_RETRY_SECONDS = 5.0

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)

_executor: CodeExecutor | None = None
_running: Cancellation | None = None


class ExecutionMessage(Request):
    """What the worker's main process knows of one task.

    Differs from Celery's in how it ends a task that runs, in what it shows of one, never its code or data, and in that
    it survives the loss of the connection.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        description = self._request_dict.get("kwargsrepr")
        if not is_summary(description):  # sent without our client
            description = describe(self._request_dict["kwargs"])
        self._argsrepr, self._kwargsrepr = "()", description
        # What the pool process logs. The arguments it has from the body: a second copy, too deep perhaps to be pickled.
        self._request_dict.update(argsrepr="()", kwargsrepr=description, args=(), kwargs={})

    def info(self, safe: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002  # Celery's signature
        """Describe the task to whoever inspects the worker; Celery shows what waits in it with all arguments."""
        described: dict[str, Any] = super().info(safe=True)
        return described

    def acknowledge(self) -> None:
        """Acknowledge, unless the connection it came by is lost: it is put back then, and who gets it finds the result.

        Celery would try all the same, and the AttributeError that comes of it ends the worker.
        """
        if not self.message.channel.closed:
            super().acknowledge()

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  # Celery's signature
        """Reject, under the same condition; what goes back has lost its pool process."""
        if self.message.channel.closed:
            return
        if requeue:
            try:
                self.task.backend.ledger.died(self.id)
            except redis.RedisError as exc:  # it is missed in time
                log.debug("a death is not noted", task_id=self.id, error=str(exc))
        super().reject(requeue)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the strategy, not the process: the task then returns what was printed, as `cancelled`.

        Flower's Terminate and `revoke(terminate=True)` come here; with SIGKILL they mean the process.
        """
        if not self.time_start or signal in (9, "KILL", "SIGKILL"):
            super().terminate(pool, signal)
            return
        self._interrupt()

    def _interrupt(self) -> None:
        # The task may not have come to its sandbox yet: repeat until its result is in. With the connection lost Celery
        # ends the process, and another may have its number.
        if self.acknowledged or self.message.channel.closed:
            return
        try:
            os.kill(self.worker_pid, CANCEL_SIGNAL)
        except ProcessLookupError:
            return
        if hub := get_event_loop():
            hub.call_later(CANCEL_REPEAT_SECONDS, self._interrupt)

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> None:
        # On a lost connection Celery sets this last; where storing the state raises first (Redis gone, too), the task
        # would end as REVOKED and be acknowledged: lost.
        self._already_cancelled = True
        super()._announce_cancelled(*args, **kwargs)


class ExecutionTask(Task):
    """Retries what the infrastructure did, never what the strategy did."""

    name = STRATEGY_EXECUTION
    Request = ExecutionMessage
    #: Logged as one line: the error says what to do, where it was raised says nothing.
    throws = (SandboxError,)
    #: Of a result, logs and events show the status, which comes first, and nothing a strategy printed.
    resultrepr_maxsize = len("{'status': 'out_of_memory'")

    def run(self, *args: Any, **fields: Any) -> dict[str, Any]:
        """Run one strategy.

        Args:
            args: nothing; whatever comes here is refused.
            fields: those of `ExecutionRequest`.

        Returns:
            An `ExecutionResult` as JSON values.
        """
        begun = self._begin()
        setattr(self.request, FENCE, begun.fence)
        match begun.word:
            case "ended":  # cancelled in the queue, or delivered twice
                return _verdict(begun.verdict)
            case "busy":  # delivered twice, and the other one is at it
                raise Ignore
            case "cancelled":  # while it ran, on a worker that died before it could say so
                return cancelled_result().model_dump(mode="json")
            case "dead":
                msg = "its worker died each of the three times it ran: see `stratbox dead` and the workers' logs"
                raise WorkerDied(msg)
        if args:
            return _uncounted(rejection(f"{STRATEGY_EXECUTION} takes keyword arguments only")).model_dump(mode="json")
        try:
            request = ExecutionRequest.parse(fields)
        except InvalidRequest as exc:
            return _uncounted(rejection(str(exc))).model_dump(mode="json")
        return self._execute(request, begun.tries)

    def _begin(self) -> Beginning:
        ledger: Ledger = self.backend.ledger
        attempt, details = uuid.uuid4().hex, {"pid": os.getpid(), "hostname": self.request.hostname}
        try:
            return _ask(lambda: ledger.begin(self.request.id, attempt, details))
        except SoftTimeLimitExceeded:
            raise Reject(requeue=True) from None  # it was not the strategy that took so long

    def _execute(self, request: ExecutionRequest, tries: int) -> dict[str, Any]:
        global _running  # noqa: PLW0603  # the signal handler has no other way to it
        _running = Cancellation()
        try:
            result = self._run_when_possible(request, _running)
        except (SandboxError, SoftTimeLimitExceeded) as exc:
            raise self._again(_plain(exc), tries + 1) from exc
        finally:
            _running = None
        self._log(request, result)
        return result.model_dump(mode="json")

    def _again(self, exc: Exception, tries: int) -> Exception:
        """Return what to raise after so many tries in vain; the ledger hands a retry over when its pause has passed."""
        settings = WorkerSettings()
        if tries >= settings.tries:
            return exc
        longest = min(LONGEST_PAUSE_SECONDS, settings.retry_seconds * 2 ** (tries - 1))
        pause = random.uniform(longest / 2, longest)  # noqa: S311  # so that not all come back at once
        setattr(self.request, PAUSE, pause)
        retry: Exception = Retry(exc=exc, when=pause)
        return retry

    def _run_when_possible(self, request: ExecutionRequest, cancellation: Cancellation) -> ExecutionResult:
        # An engine that is away is waited for here, so that the queue stays in Redis.
        queue_seconds = self._queue_seconds()
        try:
            request = self._with_dataset(request)
        except (InvalidRequest, UnknownDataset) as exc:
            return _uncounted(rejection(str(exc)), request.user_id)
        started = time.monotonic()
        while True:
            try:
                return open_executor().execute(request, queue_seconds=queue_seconds, cancellation=cancellation)
            except SandboxLost:
                raise  # it ran, at least in part
            except SandboxError:
                if cancellation.requested:
                    return _uncounted(cancelled_result(), request.user_id)
                if time.monotonic() - started > WorkerSettings().engine_patience_seconds:
                    raise
            time.sleep(ENGINE_RETRY_SECONDS)

    def _with_dataset(self, request: ExecutionRequest) -> ExecutionRequest:
        if request.dataset is None:
            return request
        read = partial(Datasets(self.app.settings, self.backend.client).read, request.dataset)
        return request.with_dataset(_dataset_cache().text(request.dataset, lambda: _ask(read)))

    def _log(self, request: ExecutionRequest, result: ExecutionResult) -> None:
        measured = result.metrics.model_dump(exclude_none=True)
        log.info(
            "execution ended",
            task_id=self.request.id,
            user_id=request.user_id,
            status=result.status.value,
            **{name: round(value, 3) for name, value in measured.items() if name.endswith("_seconds")},
        )

    def _queue_seconds(self) -> float | None:
        submitted = (self.request.headers or {}).get(SUBMITTED_AT)
        if not isinstance(submitted, float) or not math.isfinite(submitted):
            return None
        return max(0.0, time.time() - submitted)  # two machines' clocks: the difference may come out negative


@cache
def _dataset_cache() -> DatasetCache:
    return shared_cache(WorkerSettings().dataset_cache_bytes)


def _ask(question: Callable[[], Answer]) -> Answer:
    """Return what Redis answers, however long it is away."""
    while True:
        try:
            return question()
        except (redis.ConnectionError, redis.TimeoutError) as exc:
            # The main process has lost it, too, and ends this one when it has noticed.
            log.debug("Redis is asked again", error=str(exc))
            time.sleep(REDIS_RETRY_SECONDS)
        except redis.RedisError as exc:  # from a replica that is not the master yet, or one with too few of its own
            log.warning("Redis refuses, asking again", error=str(exc))
            time.sleep(REFUSED_RETRY_SECONDS)


def _uncounted(result: ExecutionResult, user_id: str = "") -> ExecutionResult:
    """Count a result the executor had no part in."""
    events.executed.send(sender=ExecutionTask, user_id=user_id, result=result)
    return result


def _verdict(meta: bytes) -> dict[str, Any]:
    known = json.loads(meta)
    if known["status"] != states.SUCCESS:
        raise Ignore
    result: dict[str, Any] = known["result"]
    return result


def _plain(exc: Exception) -> Exception:
    """Return an exception whose text reads well after its way through JSON."""
    if isinstance(exc, SoftTimeLimitExceeded):
        return SandboxError("it did not end within the soft time limit: did its data set or its sandbox come too late?")
    return exc


def _cancel_running(_number: int, _frame: object) -> None:
    if _running is not None:
        _running.cancel()


def open_executor() -> CodeExecutor:
    """Return this process's executor, made and warmed when first asked for."""
    global _executor  # noqa: PLW0603  # one for each pool process, made after the fork
    if _executor is None:
        _executor = CodeExecutor()
        signal.signal(CANCEL_SIGNAL, _cancel_running)
        _executor.warm()
    return _executor


def close_executor() -> None:
    """Destroy this process's sandboxes."""
    global _executor  # noqa: PLW0603
    if _executor is not None:
        _executor.close()
        _executor = None


def register(app: Celery) -> None:
    """Add the task to an app."""
    app.register_task(ExecutionTask())
