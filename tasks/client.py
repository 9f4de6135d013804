"""What a producer calls: submit a strategy, follow it, get its result."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from tasks import message
from tasks.app import create_app
from tasks.connection import open_async, redis_errors
from tasks.datasets import Datasets
from tasks.document import DatasetRef
from tasks.errors import Backpressure, BrokerUnavailable, InvalidRequest, UnknownSubmission
from tasks.models import ExecutionRequest, ExecutionResult
from tasks.results import ResultStore
from tasks.settings import Settings
from tasks.submission import Submission, cancellation, submit_unless_left
from tasks.sweep import Flight, sweep, sweep_async
from tasks.threads import in_any_case
from tasks.tracing import submission_headers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from tasks.ledger import Ledger
    from tasks.sweep import SweepPoint
    from tasks.watch import AsyncWatch, Watch

__all__ = ["StrategyClient"]

LOWEST_PRIORITY = 9
REACH_SECONDS = 5.0
#: A caller's key and user make the id of a submission, the same each time.
KEY_NAMESPACE = uuid.UUID("5a5c3b8e-7d0f-4c52-9a35-0f6f3c1d9b42")
MAX_KEY_CHARS = 256


class StrategyClient:
    """Submits strategies through Redis. Safe to share between threads.

    Args:
        settings: where Redis is; by default what the `STRATBOX_*` variables say.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._app = create_app(self.settings)
        self._results = ResultStore(self._app)

    @property
    def ledger(self) -> Ledger:
        """The ledger of accepted submissions; what it raises are Redis' own exceptions."""
        ledger: Ledger = self._app.backend.ledger
        return ledger

    @cached_property
    def datasets(self) -> Datasets:
        """Data that many submissions share: `put` them once, and submit with what it returns as `data`."""
        return Datasets(self.settings, self._app.backend.client)

    def submit(  # noqa: PLR0913  # the fields of a request, named as such
        self,
        code: str,
        data: JsonValue | DatasetRef = None,
        *,
        params: dict[str, JsonValue] | None = None,
        timeout: float | None = None,
        user_id: str = "",
        priority: int = 0,
        seed: int | None = None,
        key: str | None = None,
    ) -> Submission:
        """Enqueue one strategy and return at once.

        Args:
            code: Python source, at most 256 KiB.
            data: any JSON value, at most 16 MiB as text, or what `datasets.put` has returned; None stands for `{}`.
            params: the strategy finds them under the key `params` of the data, which must be an object then.
            timeout: wall clock of the strategy, seconds, at most 60.
            user_id: whose strategy it is.
            priority: 0 (first) to 9 (last), among the strategies of this user; users take turns.
            seed: for the global random generators; None for a fresh one.
            key: of the caller's choice, at most 256 characters. Submitting again with the same key and `user_id` gives
                the submission that is there already, until its result expires; so what may have failed can be repeated.

        Raises:
            InvalidRequest: an argument breaks the contract, or the key was used for another request.
            UnknownDataset: the data set is not in Redis any more; put it again.
            QueueFull, TenantLimit: no room now; nothing was enqueued, and `retry_after` says when to come again.
            BrokerUnavailable: Redis does not answer; it may have taken the submission. With a `key`, repeat it safely.
        """
        request = ExecutionRequest.build(code, data, params=params, timeout=timeout, user_id=user_id, seed=seed)
        return self.submit_request(request, priority=priority, key=key)

    def submit_request(self, request: ExecutionRequest, *, priority: int = 0, key: str | None = None) -> Submission:
        """Enqueue one request that is already built; see `submit`."""
        submission = self.new_submission(request.user_id, key)
        self.submit_as(submission, request, priority=priority, keyed=key is not None)
        return submission

    def new_submission(self, user_id: str = "", key: str | None = None) -> Submission:
        """Return the handle of a submission that is still to be made, by `submit_as`."""
        return Submission(_new_id(user_id, key), self)

    def submit_as(
        self, submission: Submission, request: ExecutionRequest, *, priority: int = 0, keyed: bool = False
    ) -> None:
        """Enqueue one request under an id that the caller knows before: it can be cancelled if no answer comes."""
        if not 0 <= priority <= LOWEST_PRIORITY:
            msg = f"priority: {priority} is not between 0 (first) and {LOWEST_PRIORITY} (last)"
            raise InvalidRequest(msg)
        with redis_errors(), submission_headers(submission.id) as headers:
            encoded = message.encode(self._app, submission.id, request, headers)
            self.ledger.submit(
                submission.id,
                encoded,
                tenant=request.user_id,
                priority=priority,
                keyed=keyed,
                dataset=request.dataset,
            )

    def _submit_patiently(self, request: ExecutionRequest, priority: int, waiting: deque[Submission]) -> None:
        waiting.append(submission := self.new_submission())  # before it is sent: its answer may be lost
        while True:
            try:
                return self.submit_as(submission, request, priority=priority)
            except Backpressure as full:
                time.sleep(full.retry_after)

    async def _submit_patiently_async(
        self, request: ExecutionRequest, priority: int, waiting: deque[Submission], left: threading.Event
    ) -> None:
        waiting.append(submission := self.new_submission())
        while True:
            try:
                return await asyncio.to_thread(submit_unless_left, self, submission, request, left, priority=priority)
            except Backpressure as full:
                await asyncio.sleep(full.retry_after)

    def submission(self, submission_id: str) -> Submission:
        """Return the handle of an earlier submission; whether it exists shows when it is asked."""
        return Submission(submission_id, self)

    def meta(self, submission_id: str) -> dict[str, Any]:
        """Return what Celery recorded of a submission."""
        with redis_errors():
            return self._results.meta(submission_id)

    def wait(self, submission_id: str, timeout: float | None) -> dict[str, Any]:
        """Return what Celery recorded at the end of a submission, waiting for it."""
        with redis_errors():
            return self._results.wait(submission_id, timeout)

    async def wait_async(self, submission_id: str, timeout: float | None) -> dict[str, Any]:  # noqa: ASYNC109
        """Do what `wait` does without blocking the event loop."""
        with redis_errors():
            return await self._results.wait_async(submission_id, timeout)

    def cancel(self, submission_id: str) -> bool:
        """End a submission wherever it is; False when it had ended already.

        One that waits ends here, and no worker runs it; a running one is ended by its worker and keeps the output it
        had. Should that worker die first, no other runs it.
        """
        with redis_errors():
            verdict = cancellation().model_dump(mode="json")
            revoked = message.event(self._app, "task-revoked", uuid=submission_id, terminated=False, signum=None)
            word = self.ledger.cancel(submission_id, verdict, revoked)
            if word == "running":  # of another's end workers need not know; they would keep it in mind for hours
                self._app.control.revoke(submission_id, terminate=True)
        return word != "ended"

    def map(
        self,
        requests: Iterable[ExecutionRequest],
        *,
        in_flight: int = 64,
        priority: int = 0,
        timeout: float | None = None,
    ) -> Iterator[ExecutionResult]:
        """Run many requests and yield their results in the order of the requests.

        Where there is no room for one, it waits. Stopping early, or an error, cancels what is still in flight.

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
                self._submit_patiently(request, priority, waiting)
            while waiting:
                yield waiting[0].result(timeout)
                waiting.popleft()
        finally:
            self.abandon(waiting)

    def sweep(  # noqa: PLR0913  # the fields of a request, named as such
        self,
        code: str,
        data: JsonValue | DatasetRef = None,
        params: Iterable[Mapping[str, JsonValue]] = (),
        *,
        timeout: float | None = None,
        user_id: str = "",
        seed: int | None = None,
        priority: int = 0,
        in_flight: int = 64,
        patience: float | None = None,
    ) -> Generator[SweepPoint, None, None]:
        """Run one strategy on the same data with many parameters, and yield each run as it ends, in no order.

        Where there is no room for one, it waits. Stopping early, or an error, cancels what is still in flight.

        Args:
            code: as for `submit`.
            data: an object, or what `datasets.put` has returned. Data of the first kind are put, once.
            params: of each run, read lazily; the strategy finds them under the key `params` of the data.
            timeout: wall clock of each run, seconds, at most 60.
            user_id: as for `submit`.
            seed: as for `submit`; the same for each.
            priority: of all of them, 0 (first) to 9 (last).
            in_flight: how many are submitted and have not ended, at most.
            patience: how long to wait for any of them to end, seconds; None waits for ever.

        Raises:
            InvalidRequest, UnknownDataset, DatasetsFull, BrokerUnavailable: as `submit` and `datasets.put`.
            ResultTimeout: none has ended within `patience`.
        """
        data = self._shared(data)
        fields = {"timeout": timeout, "user_id": user_id, "seed": seed}
        requests = (ExecutionRequest.build(code, data, params=one, **fields) for one in params)
        return sweep(self, requests, Flight(self, in_flight, priority), patience)

    def _shared(self, data: JsonValue | DatasetRef) -> DatasetRef | None:
        if data is None or isinstance(data, DatasetRef):
            return data
        if not isinstance(data, dict):
            msg = "params: they become a key of the data, so the data must be an object"
            raise InvalidRequest(msg)
        return self.datasets.put(data)

    async def submit_async(self, code: str, data: JsonValue | DatasetRef = None, **options: Any) -> Submission:
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
        left = threading.Event()
        try:
            for request in requests:
                if len(waiting) >= in_flight:
                    yield await waiting[0].result_async(timeout)
                    waiting.popleft()
                await self._submit_patiently_async(request, priority, waiting, left)
            while waiting:
                yield await waiting[0].result_async(timeout)
                waiting.popleft()
        finally:
            left.set()
            await in_any_case(self.abandon, waiting)

    async def sweep_async(
        self,
        code: str,
        data: JsonValue | DatasetRef = None,
        params: Iterable[Mapping[str, JsonValue]] = (),
        **options: Any,
    ) -> AsyncGenerator[SweepPoint, None]:
        """Do what `sweep` does without blocking the event loop."""
        in_flight, priority = options.pop("in_flight", 64), options.pop("priority", 0)
        patience = options.pop("patience", None)
        data = await asyncio.to_thread(self._shared, data)
        requests = (ExecutionRequest.build(code, data, params=one, **options) for one in params)
        points = sweep_async(self, requests, Flight(self, in_flight, priority), patience)
        async with contextlib.aclosing(points):
            async for point in points:
                yield point

    def watch(self) -> contextlib.AbstractContextManager[Watch]:
        """Give what waits for whichever of many submissions ends next; what it raises are Redis' own exceptions."""
        return self._results.watch()

    def watch_async(self) -> contextlib.AbstractAsyncContextManager[AsyncWatch]:
        """Give one that does not block the event loop."""
        return self._results.watch_async()

    def abandon(self, submissions: Iterable[Submission]) -> None:
        """Cancel them as far as that is possible."""
        # A Redis that is silent to the first is silent to all, and each would wait for its own timeout.
        with contextlib.suppress(BrokerUnavailable):
            for submission in submissions:
                with contextlib.suppress(UnknownSubmission):
                    submission.cancel()

    def workers(self, timeout: float = 1.0) -> list[str]:
        """Return the names of the workers that answer within `timeout` seconds.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        with redis_errors():
            replies = self._app.control.ping(timeout=timeout)
        return sorted(name for reply in replies for name in reply)

    async def reach(self) -> None:
        """See within 5 seconds whether Redis answers.

        Raises:
            BrokerUnavailable: it does not.
        """
        with redis_errors():
            async with asyncio.timeout(REACH_SECONDS), open_async(self._app.conf) as redis:
                await redis.ping()

    def server_info(self) -> dict[str, Any]:
        """Return what Redis says of itself.

        Raises:
            BrokerUnavailable: it does not answer.
        """
        with redis_errors():
            return dict(self._app.backend.client.info())

    def close(self) -> None:
        """Close the connections to Redis."""
        self._app.close()
        # The client itself closes no pool that Celery has given it.
        self._app.backend.client.connection_pool.disconnect()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _new_id(user_id: str, key: str | None) -> str:
    if key is None:
        return str(uuid.uuid4())
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable():
        msg = f"key: give 1 to {MAX_KEY_CHARS} printable characters"
        raise InvalidRequest(msg)
    return str(uuid.uuid5(KEY_NAMESPACE, f"{user_id}\0{key}"))
