"""How a sweep goes about it, without Redis: what it submits when, what it yields, and what it cancels."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from celery import states

from tasks import DatasetRef, ExecutionRequest, ExecutionResult, ExecutionStatus, Settings, StrategyClient, Submission
from tasks.errors import BrokerUnavailable, ExecutionLost, InvalidRequest, QueueFull, ResultTimeout
from tasks.sweep import Flight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pydantic import JsonValue

REF = DatasetRef("0" * 64, 7)


class FakeWatch:
    """Tells that the latest has ended, or in the order it is told to."""

    def __init__(self, client: FakeClient) -> None:
        self.client = client
        self.watched: list[str] = []

    def add(self, task_id: str) -> None:
        """Note it."""
        self.watched.append(task_id)

    def next(self, timeout_seconds: float | None) -> tuple[str, dict[str, Any] | None] | None:
        """Give the latest; with a timeout of 0 nothing, unless it is eager."""
        if (timeout_seconds == 0 and not self.client.eager) or not self.watched or self.client.silent:
            return None
        task_id = self.watched.pop()
        number = self.client.numbers[task_id]
        if number in self.client.missing:
            return task_id, None
        if number in self.client.failing:
            return task_id, {"status": states.FAILURE, "result": RuntimeError("no engine")}
        result = ExecutionResult(status=ExecutionStatus.SUCCEEDED, output=number)
        return task_id, {"status": states.SUCCESS, "result": result.model_dump(mode="json")}


class FakeAsyncWatch(FakeWatch):
    """Does the same."""

    async def add(self, task_id: str) -> None:  # type: ignore[override]
        """Note it."""
        super().add(task_id)

    async def next(self, timeout_seconds: float | None) -> Any:  # type: ignore[override]
        """Give the latest."""
        return super().next(timeout_seconds)


class FakeClient(StrategyClient):
    """A client whose workers are a `FakeWatch`."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.requests: list[ExecutionRequest] = []
        self.numbers: dict[str, str] = {}  # by id
        self.cancelled: list[str] = []
        self.failing: set[str] = set()
        self.missing: set[str] = set()
        self.unanswered: dict[str, BaseException] = {}
        self.room = deque[bool]()
        self.eager = self.silent = False

    def submit_as(
        self, submission: Submission, request: ExecutionRequest, *, priority: int = 0, keyed: bool = False
    ) -> None:
        """Number it, unless there is to be no room; what is said of it may be lost."""
        del priority, keyed
        if self.room and not self.room.popleft():
            msg = "submit again in 0.01 s"
            raise QueueFull(msg, 0.01)
        self.numbers[submission.id] = number = str(len(self.requests))
        self.requests.append(request)
        if number in self.unanswered:
            raise self.unanswered[number]

    @contextlib.contextmanager
    def watch(self) -> Iterator[Any]:
        """Give a fake one."""
        yield FakeWatch(self)

    @contextlib.asynccontextmanager
    async def watch_async(self) -> AsyncIterator[Any]:
        """Give a fake one."""
        yield FakeAsyncWatch(self)

    def cancel(self, submission_id: str) -> bool:
        """Note it."""
        self.cancelled.append(self.numbers[submission_id])
        return True


@pytest.fixture
def fake() -> Iterator[FakeClient]:
    """A client without Redis."""
    with FakeClient() as opened:
        yield opened


def numbers(count: int) -> Iterator[dict[str, JsonValue]]:
    """Yield so many points."""
    return ({"n": number} for number in range(count))


def swept(points: Any) -> list[int]:
    """Return the points in the order they came, each with its own result."""
    found = []
    for params, result in points:
        assert result.output == str(params["n"])
        found.append(params["n"])
    return found


def test_points_come_as_they_end(fake: FakeClient) -> None:
    """The latest first, here; no more than three are in flight, all of them come, and none is cancelled."""
    assert swept(fake.sweep("x = 1", REF, numbers(7), in_flight=3)) == [2, 3, 4, 5, 6, 1, 0]
    assert [request.params for request in fake.requests] == list(numbers(7))
    assert {request.dataset for request in fake.requests} == {REF.digest}
    assert fake.cancelled == []


def test_what_has_ended_is_told_before_the_next_is_read(fake: FakeClient) -> None:
    """Parameters may be chosen by the results so far."""
    fake.eager = True
    seen: list[int] = []

    def chosen() -> Iterator[dict[str, JsonValue]]:
        for number in range(4):
            assert seen == list(range(number))
            yield {"n": number}

    for params, _ in fake.sweep("x = 1", REF, chosen(), in_flight=64):
        seen.append(params["n"])
    assert seen == [0, 1, 2, 3]


def test_stopping_early_cancels_what_is_in_flight(fake: FakeClient) -> None:
    """Neither what was told nor what was never submitted."""
    points = fake.sweep("x = 1", REF, numbers(10**9), in_flight=3)
    assert next(points).params == {"n": 2}
    points.close()
    assert (len(fake.requests), fake.cancelled) == (3, ["0", "1"])


@pytest.mark.parametrize("wrong", [{"n": float("nan")}, 7])
def test_an_error_cancels_what_is_in_flight(fake: FakeClient, wrong: Any) -> None:
    """A point that is none, in the middle of them."""
    with pytest.raises(InvalidRequest, match="params"):
        list(fake.sweep("x = 1", REF, [{"n": 0}, {"n": 1}, wrong]))
    assert fake.cancelled == ["0", "1"]


def test_where_there_is_no_room_it_takes_what_ends_meanwhile(fake: FakeClient) -> None:
    """It waits with nothing in flight, too, and submits nothing twice."""
    fake.room.extend([False, True, False, False, True, False, True])
    assert sorted(swept(fake.sweep("x = 1", REF, numbers(3)))) == [0, 1, 2]
    assert [request.params for request in fake.requests] == list(numbers(3))


def test_one_that_is_lost_does_not_end_the_sweep(fake: FakeClient) -> None:
    """Its point says so; who asks for its result gets the error."""
    fake.failing = {"1"}
    points = {point.params["n"]: point for point in fake.sweep("x = 1", REF, numbers(3))}
    assert isinstance(points[1].outcome, ExecutionLost)
    assert points[2].result.output == "2"
    with pytest.raises(ExecutionLost, match="no engine"):
        _ = points[1].result
    with pytest.raises(ExecutionLost):
        _, _ = points[1]


def test_one_whose_record_is_gone_does_not_end_the_sweep(fake: FakeClient) -> None:
    """A failover has lost it: its point says so, and nothing else is cancelled."""
    fake.missing = {"1"}
    points = {point.params["n"]: point for point in fake.sweep("x = 1", REF, numbers(3))}
    assert [points[n].result.output for n in (0, 2)] == ["0", "2"]
    assert fake.cancelled == []
    with pytest.raises(ExecutionLost, match=r"^submission \S+ is not in Redis any more"):
        _ = points[1].result


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokerUnavailable("no answer")])
def test_one_whose_answer_is_lost_is_cancelled(fake: FakeClient, error: BaseException) -> None:
    """It may have been accepted; so it goes with the others."""
    fake.unanswered = {"1": error}
    with pytest.raises(type(error)):
        list(fake.sweep("x = 1", REF, numbers(3)))
    assert fake.cancelled == ["0", "1"]


async def test_what_a_thread_gets_no_answer_for_after_the_end_is_cancelled(fake: FakeClient) -> None:
    """Its sweep was cancelled while it was on its way."""
    fake.unanswered = {"0": BrokerUnavailable("no answer")}
    flight = Flight(fake, 3, 0)
    flight.abandon()
    with pytest.raises(BrokerUnavailable):
        await asyncio.to_thread(flight.launch, ExecutionRequest(code="x = 1"))
    assert fake.cancelled == ["0"]


def test_patience_ends(fake: FakeClient) -> None:
    """Nobody answers: one line, and what is in flight is cancelled."""
    fake.silent = True
    with pytest.raises(ResultTimeout, match="none of 2 submissions has ended in this time"):
        list(fake.sweep("x = 1", REF, numbers(2), patience=0.01))
    assert fake.cancelled == ["0", "1"]


@pytest.mark.parametrize("data", [[1], "x", 7])
def test_data_have_a_place_for_params(fake: FakeClient, data: Any) -> None:
    """Told before anything is put or submitted."""
    with pytest.raises(InvalidRequest, match="the data must be an object"):
        fake.sweep("x = 1", data, numbers(1))


def test_at_least_one_is_in_flight(fake: FakeClient) -> None:
    """With none it would wait for ever."""
    with pytest.raises(InvalidRequest, match="in_flight: 0 is not 1 or more"):
        fake.sweep("x = 1", REF, numbers(1), in_flight=0)


def test_a_sweep_over_nothing_is_nothing(fake: FakeClient) -> None:
    """And asks nobody."""
    assert list(fake.sweep("x = 1", REF)) == []


async def test_sweep_async_does_the_same(fake: FakeClient) -> None:
    """Order, bound, waiting for room, and cancelling the rest."""
    fake.room.extend([False, True, False, True])
    found = [point.params["n"] async for point in fake.sweep_async("x = 1", REF, numbers(7), in_flight=3, timeout=5)]
    assert {*map(str, found)} == {str(number) for number in range(7)}
    assert found != list(range(7))
    assert {request.timeout for request in fake.requests} == {5}
    fake.cancelled, fake.requests = [], []
    async with contextlib.aclosing(fake.sweep_async("x = 1", REF, numbers(10**9), in_flight=3)) as points:
        async for _ in points:
            break
    assert fake.cancelled == ["0", "1"]


async def test_what_a_thread_submits_after_the_end_is_cancelled(fake: FakeClient) -> None:
    """Its sweep was cancelled while it was on its way."""
    flight = Flight(fake, 3, 0)
    flight.abandon()
    await asyncio.to_thread(flight.launch, ExecutionRequest(code="x = 1"))
    assert fake.cancelled == ["0"]
