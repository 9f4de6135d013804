"""The producer's side without Redis: what it refuses, what it tells of a request, and how `map` goes about it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
import redis.exceptions
from celery import states
from kombu.exceptions import OperationalError

from tasks.client import StrategyClient
from tasks.connection import open_async, redis_errors
from tasks.errors import BrokerUnavailable, ExecutionLost, InvalidRequest, ResultTimeout, UnknownSubmission
from tasks.ledger import QUEUED
from tasks.models import ExecutionRequest, ExecutionResult, ExecutionStatus
from tasks.settings import Settings
from tasks.submission import Submission, SubmissionState

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE = ExecutionResult(status=ExecutionStatus.SUCCEEDED, output="1\n")


def ended(output: str = "1\n") -> dict[str, Any]:
    """Return Celery's record of a strategy that printed `output`."""
    result = ExecutionResult(status=ExecutionStatus.SUCCEEDED, output=output)
    return {"status": states.SUCCESS, "result": result.model_dump(mode="json")}


class FakeClient(StrategyClient):
    """A client whose workers answer at once, without Redis: each result is the request's own code."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.codes: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.record: dict[str, Any] | None = None
        self.failing: set[str] = set()
        self.unanswered: set[str] = set()

    def new_submission(self, user_id: str = "", key: str | None = None) -> Submission:
        """Number it."""
        del user_id, key
        return Submission(str(len(self.codes)), self)

    def submit_as(
        self, submission: Submission, request: ExecutionRequest, *, priority: int = 0, keyed: bool = False
    ) -> None:
        """Note it; what is said of it may be lost."""
        del priority, keyed
        self.codes[submission.id] = request.code
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if submission.id in self.unanswered:
            msg = "no answer"
            raise BrokerUnavailable(msg)

    def meta(self, submission_id: str) -> dict[str, Any]:
        """Give the record."""
        return self.record or ended(self.codes[submission_id])

    def wait(self, submission_id: str, timeout: float | None) -> dict[str, Any]:
        """Give the record, unless it is to fail."""
        del timeout
        if submission_id in self.failing:
            msg = f"submission {submission_id} has not ended yet"
            raise ResultTimeout(msg)
        self.in_flight -= 1
        return self.meta(submission_id)

    async def wait_async(self, submission_id: str, timeout: float | None) -> dict[str, Any]:  # noqa: ASYNC109
        """Do the same."""
        return self.wait(submission_id, timeout)

    def cancel(self, submission_id: str) -> bool:
        """Note it."""
        self.cancelled.append(submission_id)
        return True


@pytest.fixture
def fake() -> Iterator[FakeClient]:
    """A client without Redis."""
    with FakeClient() as opened:
        yield opened


@pytest.fixture
def deserted() -> Iterator[StrategyClient]:
    """A client whose Redis is down: a port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with StrategyClient(Settings(redis_url=f"redis://127.0.0.1:{held.getsockname()[1]}/0")) as opened:
            yield opened


async def test_an_event_loop_is_as_patient_as_a_thread(deserted: StrategyClient) -> None:
    """With a Redis that is silent: not for ever, which is redis-py's own patience before version 8."""
    names = ("socket_timeout", "socket_connect_timeout", "socket_keepalive")
    ours = deserted._app.backend.client.connection_pool.connection_kwargs
    async with open_async(deserted._app.conf) as opened:
        theirs = opened.connection_pool.connection_kwargs
        assert [theirs.get(name) for name in names] == [ours[name] for name in names] == [30, 5, True]


# What is refused, and what is told of a request.


@pytest.mark.parametrize("priority", [-1, 10, 255])
def test_a_priority_out_of_bounds_is_refused_before_anything_is_sent(deserted: StrategyClient, priority: int) -> None:
    """The bounds, and which end is first, are in the text."""
    with pytest.raises(InvalidRequest, match=rf"^priority: {priority} is not between 0 \(first\) and 9 \(last\)$"):
        deserted.submit("x = 1", priority=priority)


@pytest.mark.parametrize("fields", [{"timeout": 0}, {"seed": -1}, {"user_id": "a\n"}, {"data": float("nan")}])
def test_a_wrong_argument_is_refused_before_anything_is_sent(deserted: StrategyClient, fields: dict[str, Any]) -> None:
    """With Redis down: it was never asked."""
    with pytest.raises(InvalidRequest, match=f"^{next(iter(fields))}"):
        deserted.submit("x = 1", **fields)


def test_a_submission_does_not_show_its_client() -> None:
    """Its URL holds the password."""
    with StrategyClient(Settings(redis_url="redis://:hunter2@127.0.0.1:6379/0")) as client:
        assert repr(client.submission("x-1")) == "Submission(id='x-1')"


# Redis down.


def test_redis_down_is_told_at_once(deserted: StrategyClient) -> None:
    """With the reason and what to do; nothing hangs."""
    with pytest.raises(BrokerUnavailable, match=r"refused.*: start it, or set STRATBOX_REDIS_URL$"):
        deserted.submit("x = 1")


@pytest.mark.parametrize("ask", ["status", "cancel", "result"])
def test_redis_down_is_told_by_every_question(deserted: StrategyClient, ask: str) -> None:
    """One error class."""
    with pytest.raises(BrokerUnavailable):
        getattr(deserted.submission("x"), ask)()


async def test_redis_down_is_told_to_those_who_await(deserted: StrategyClient) -> None:
    """The asynchronous form has a connection of its own."""
    with pytest.raises(BrokerUnavailable):
        await deserted.submission("x")
    with pytest.raises(BrokerUnavailable):
        await deserted.submit_async("x = 1")


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("refused\nsecond line"),
        redis.exceptions.TimeoutError("slow"),
        redis.exceptions.AuthenticationError("WRONGPASS"),
        OperationalError("refused"),
        ConnectionResetError(104, "reset"),
        RuntimeError("Retry limit exceeded while trying to reconnect"),
    ],
)
def test_errors_of_redis_become_one(error: Exception) -> None:
    """In one line, with the first as its cause."""
    with pytest.raises(BrokerUnavailable, match="STRATBOX_REDIS_URL") as caught, redis_errors():
        raise error
    assert str(caught.value).count("\n") == 0
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ResultTimeout("late"), UnknownSubmission("x"), RuntimeError("a bug"), ValueError()])
def test_other_errors_are_left_alone(error: Exception) -> None:
    """A timeout of ours is an OSError to Python, and still none of Redis."""
    with pytest.raises(type(error)) as caught, redis_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [TimeoutError(), redis.exceptions.ConnectionError(), OperationalError()])
def test_errors_of_redis_without_a_text_become_one_too(error: Exception) -> None:
    """A socket's timeout has none."""
    with pytest.raises(BrokerUnavailable), redis_errors():
        raise error


# What a record means.


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (QUEUED, SubmissionState.QUEUED),
        (states.PENDING, SubmissionState.QUEUED),
        (states.RECEIVED, SubmissionState.QUEUED),
        (states.STARTED, SubmissionState.RUNNING),
        (states.RETRY, SubmissionState.RETRYING),
        (states.FAILURE, SubmissionState.LOST),
        (states.REVOKED, ExecutionStatus.CANCELLED),
    ],
)
def test_status(fake: FakeClient, status: str, expected: SubmissionState | ExecutionStatus) -> None:
    """On the way: a state; at the end: how it ended."""
    fake.record = {"status": status, "result": None}
    assert fake.submission("x").status() is expected


def test_status_of_one_that_ended(fake: FakeClient) -> None:
    """Its own status."""
    fake.record = ended()
    assert fake.submission("x").status() is ExecutionStatus.SUCCEEDED


def test_states_and_statuses_are_told_apart() -> None:
    """By their text, as the command line prints them."""
    assert not {str(state) for state in SubmissionState} & {str(status) for status in ExecutionStatus}


def test_a_result_is_read_from_the_record(fake: FakeClient) -> None:
    """As the worker stored it."""
    fake.record = ended()
    assert fake.submission("x").result() == DONE
    assert fake.submission("x").ended_within(1) is True


def test_a_revoked_task_is_cancelled(fake: FakeClient) -> None:
    """Flower's Revoke stores no result of ours."""
    fake.record = {"status": states.REVOKED, "result": None}
    result = fake.submission("x").result()
    assert (result.status, str(result.error)) == (ExecutionStatus.CANCELLED, "Cancelled: cancelled before it ran")


def test_a_task_the_workers_gave_up_is_an_exception(fake: FakeClient) -> None:
    """The infrastructure failed: that is no result."""
    fake.record = {"status": states.FAILURE, "result": RuntimeError("no engine")}
    with pytest.raises(ExecutionLost, match=r"^submission x was given up by the workers: no engine$"):
        fake.submission("x").result()


def test_one_that_has_not_ended_is_told(fake: FakeClient) -> None:
    """As an exception, or as False."""
    fake.failing = {"x"}
    assert fake.submission("x").ended_within(0) is False
    with pytest.raises(ResultTimeout):
        fake.submission("x").result(timeout=0)


async def test_a_submission_can_be_awaited(fake: FakeClient) -> None:
    """It gives its result."""
    fake.record = ended()
    assert await fake.submission("x") == DONE


# map.


def requests(count: int) -> Iterator[ExecutionRequest]:
    """Yield requests whose code is their number."""
    for number in range(count):
        yield ExecutionRequest(code=str(number))


def test_map_keeps_the_order(fake: FakeClient) -> None:
    """Of the requests, whatever ends first; all of them, and none is cancelled."""
    assert [result.output for result in fake.map(requests(10), in_flight=3)] == [str(n) for n in range(10)]
    assert fake.cancelled == []


@pytest.mark.parametrize("in_flight", [1, 2, 7])
def test_map_never_has_more_in_flight(fake: FakeClient, in_flight: int) -> None:
    """And reads no further ahead."""
    assert len(list(fake.map(requests(20), in_flight=in_flight))) == 20
    assert fake.most_in_flight == in_flight


def test_map_reads_lazily(fake: FakeClient) -> None:
    """An endless source is fine; leaving early cancels what is under way."""
    results = fake.map(requests(10**9), in_flight=3)
    assert [next(results).output for _ in range(2)] == ["0", "1"]
    results.close()  # type: ignore[attr-defined]
    assert list(fake.codes) == ["0", "1", "2", "3"]
    assert set(fake.cancelled) >= {"2", "3"}, "1 was just handed over: cancelling it does nothing"
    assert "0" not in fake.cancelled


def test_map_cancels_the_rest_on_an_error(fake: FakeClient) -> None:
    """The one that was late, too: nobody waits for it any more."""
    fake.failing = {"1"}
    with pytest.raises(ResultTimeout):
        list(fake.map(requests(5), in_flight=3))
    assert fake.cancelled == ["1", "2", "3"]


def test_map_cancels_the_rest_when_the_source_fails(fake: FakeClient) -> None:
    """An error in the caller's own generator leaves nothing running."""

    def source() -> Iterator[ExecutionRequest]:
        yield from requests(2)
        msg = "the caller's"
        raise KeyError(msg)

    with pytest.raises(KeyError):
        list(fake.map(source()))
    assert fake.cancelled == ["0", "1"]


def test_a_silent_redis_is_asked_once(fake: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not know is passed over; when it does not answer the others are left."""
    asked = []

    def cancel(submission_id: str) -> bool:
        asked.append(submission_id)
        raise (UnknownSubmission if submission_id == "0" else BrokerUnavailable)(submission_id)

    monkeypatch.setattr(fake, "cancel", cancel)
    fake.abandon([fake.submission(str(number)) for number in range(64)])
    assert asked == ["0", "1"]


def test_map_cancels_one_whose_answer_is_lost(fake: FakeClient) -> None:
    """It may have been accepted."""
    fake.unanswered = {"1"}
    with pytest.raises(BrokerUnavailable):
        list(fake.map(requests(5)))
    assert fake.cancelled == ["0", "1"]


def test_map_of_nothing_is_nothing(fake: FakeClient) -> None:
    """And asks nobody."""
    assert list(fake.map([])) == []


async def test_map_async_does_the_same(fake: FakeClient) -> None:
    """Order, bound, and cancelling the rest."""
    assert [result.output async for result in fake.map_async(requests(10), in_flight=3)] == [str(n) for n in range(10)]
    assert fake.most_in_flight == 3
    fake.failing = {"11"}
    with pytest.raises(ResultTimeout):
        [result async for result in fake.map_async(requests(5), in_flight=3)]
    assert fake.cancelled == ["11", "12", "13"]
