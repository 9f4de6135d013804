"""A sweep: one strategy on the same data with many parameters, its results as they end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.connection import redis_errors
from tasks.errors import Backpressure, ExecutionLost, InvalidRequest, ResultTimeout
from tasks.submission import Submission, result_of
from tasks.threads import in_any_case

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable, Iterator

    from pydantic import JsonValue

    from tasks.client import StrategyClient
    from tasks.models import ExecutionRequest, ExecutionResult
    from tasks.results import Meta

__all__ = ["Flight", "SweepPoint", "sweep", "sweep_async"]


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep, ended: `params, result = point`."""

    params: dict[str, JsonValue]
    submission: Submission
    #: Its result, or why there is none.
    outcome: ExecutionResult | ExecutionLost

    @property
    def result(self) -> ExecutionResult:
        """Its result.

        Raises:
            ExecutionLost: the infrastructure failed for good.
        """
        if isinstance(self.outcome, ExecutionLost):
            raise self.outcome
        return self.outcome

    def __iter__(self) -> Iterator[Any]:
        """Give parameters and result."""
        yield self.params
        yield self.result


class Flight:
    """What a sweep has submitted and not yet given back.

    Args:
        client: that submits.
        in_flight: how many there may be.
        priority: of all of them.
    """

    def __init__(self, client: StrategyClient, in_flight: int, priority: int) -> None:
        if in_flight < 1:
            msg = f"in_flight: {in_flight} is not 1 or more"
            raise InvalidRequest(msg)
        self._client = client
        self._in_flight = in_flight
        self._priority = priority
        self.submissions: dict[str, Submission] = {}
        self._params: dict[str, dict[str, JsonValue]] = {}
        self._abandoned = False

    @property
    def is_full(self) -> bool:
        """Whether another has to wait for one to end."""
        return len(self.submissions) >= self._in_flight

    def launch(self, request: ExecutionRequest) -> Submission | Backpressure:
        """Submit one, or return why there is no room for it now."""
        submission = self._client.new_submission()
        # Noted before it is sent: when the answer is lost, or nobody waits for it, it may run and is to be cancelled.
        self.submissions[submission.id] = submission
        self._params[submission.id] = request.params or {}
        try:
            self._client.submit_as(submission, request, priority=self._priority)
        except Backpressure as full:
            del self.submissions[submission.id], self._params[submission.id]
            return full
        finally:
            if self._abandoned:  # while it was on its way, in a thread
                self._client.abandon([submission])
        return submission

    def land(self, ended: tuple[str, Meta | None] | None) -> SweepPoint:
        """Return the point of one that has ended, by its id and record.

        Raises:
            ResultTimeout: none has, in the time there was.
        """
        if ended is None:
            msg = f"none of {len(self.submissions)} submissions has ended in this time: give them more, or sweep less"
            raise ResultTimeout(msg)
        submission_id, meta = ended
        outcome: ExecutionResult | ExecutionLost
        try:
            outcome = _result_of(submission_id, meta)
        except ExecutionLost as exc:
            outcome = exc
        return SweepPoint(self._params.pop(submission_id), self.submissions.pop(submission_id), outcome)

    def abandon(self) -> None:
        """Cancel what has not ended."""
        self._abandoned = True
        self._client.abandon(list(self.submissions.values()))


def _result_of(submission_id: str, meta: Meta | None) -> ExecutionResult:
    if meta is None:
        msg = f"submission {submission_id} is not in Redis any more, nor is its result: submit it again"
        raise ExecutionLost(msg)
    return result_of(submission_id, meta)


def sweep(
    client: StrategyClient, requests: Iterable[ExecutionRequest], flight: Flight, patience: float | None
) -> Generator[SweepPoint, None, None]:
    """Submit requests, and yield each as it ends; see `StrategyClient.sweep`."""
    with client.watch() as watch:

        def next_within(seconds: float | None) -> tuple[str, Meta | None] | None:
            with redis_errors():
                return watch.next(seconds)

        try:
            for request in requests:
                while flight.is_full:
                    yield flight.land(next_within(patience))
                while isinstance(full := flight.launch(request), Backpressure):
                    if not flight.submissions:
                        time.sleep(full.retry_after)
                    elif ended := next_within(full.retry_after):
                        yield flight.land(ended)
                with redis_errors():
                    watch.add(full.id)
                while ended := next_within(0):
                    yield flight.land(ended)
            while flight.submissions:
                yield flight.land(next_within(patience))
        finally:
            flight.abandon()


async def sweep_async(
    client: StrategyClient, requests: Iterable[ExecutionRequest], flight: Flight, patience: float | None
) -> AsyncGenerator[SweepPoint, None]:
    """Do what `sweep` does without blocking the event loop."""
    async with client.watch_async() as watch:

        async def next_within(seconds: float | None) -> tuple[str, Meta | None] | None:
            with redis_errors():
                return await watch.next(seconds)

        try:
            for request in requests:
                while flight.is_full:
                    yield flight.land(await next_within(patience))
                while isinstance(full := await asyncio.to_thread(flight.launch, request), Backpressure):
                    if not flight.submissions:
                        await asyncio.sleep(full.retry_after)
                    elif ended := await next_within(full.retry_after):
                        yield flight.land(ended)
                with redis_errors():
                    await watch.add(full.id)
                while ended := await next_within(0):
                    yield flight.land(ended)
            while flight.submissions:
                yield flight.land(await next_within(patience))
        finally:
            await in_any_case(flight.abandon)
