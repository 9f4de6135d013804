"""Whose turn it is: lanes and their round robin, messages that came by another way, a real worker."""

from __future__ import annotations

import base64
import json
import random
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from local import private_redis, private_worker

from tasks import ExecutionStatus, Settings, StrategyClient, Submission
from tasks.message import SUBMITTED_AT

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "stratbox:celery:"
LIST = "celery:9"
RESULT = "celery-task-meta-"
#: As many wait in Celery's list at most (ledger.lua).
READY_LIMIT = 2
PROCESSES = 2
#: The policy refuses it: an execution, but no container.
REFUSED = "import os"
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def asked(url: str) -> redis.Redis:
    """Return a Redis that is asked directly."""
    return redis.Redis.from_url(url, decode_responses=True)


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """The module's Redis, empty."""
    with asked(redis_url) as opened:
        opened.flushall()
        yield opened


@pytest.fixture(scope="module")
def worker_url() -> Iterator[str]:
    """A Redis with a worker of two pool processes."""
    with private_redis() as url, private_worker(url, concurrency=PROCESSES):
        yield url


@pytest.fixture
def served(worker_url: str) -> Iterator[StrategyClient]:
    """A producer for that worker, which has shown that it runs."""
    with StrategyClient(Settings(redis_url=worker_url)) as opened:
        opened.submit("print(1)").result(timeout=60)
        yield opened


@pytest.fixture
def plain(worker_url: str) -> Iterator[Celery]:
    """A producer without our code."""
    with Celery(broker=worker_url, backend=worker_url, set_as_current=False) as opened:
        yield opened
        opened.backend.result_consumer.stop()


def record_of(state: str) -> str:
    """Return Celery's record of a state."""
    lost = {"exc_type": "WorkerDied", "exc_module": "worker.errors", "exc_message": ["lost"]}
    result = lost if state in {"FAILURE", "RETRY"} else {"status": "failed"}
    return json.dumps({"status": state, "result": result, "traceback": None})


def run_next(client: StrategyClient, store: redis.Redis) -> str | None:
    """Take the next message and run it in no time; return its id."""
    if (text := store.rpop(LIST)) is None:
        return None
    task_id: str = json.loads(str(text))["headers"]["id"]
    begun = client.ledger.begin(task_id, uuid.uuid4().hex, {})
    if begun.word == "run":
        assert client.ledger.record(task_id, "SUCCESS", record_of("SUCCESS"), fence=begun.fence)
    return task_id


def run_all(client: StrategyClient, store: redis.Redis, submissions: dict[str, str]) -> list[str]:
    """Run what waits, one after the other; return the names of the submissions in the order of their runs."""
    order = []
    while (task_id := run_next(client, store)) is not None:
        order.append(submissions[task_id])
    return order


# Lanes, without a worker.


def test_tenants_take_turns(client: StrategyClient, store: redis.Redis) -> None:
    """After the two that were alone there, one of each in turn, whoever came first with however many."""
    names: dict[str, str] = {}
    for user, count in (("a", 6), ("b", 1), ("c", 3)):
        names |= {client.submit("x = 1", user_id=user).id: f"{user}{which}" for which in range(count)}
    assert run_all(client, store, names) == ["a0", "a1", "a2", "b0", "c0", "a3", "c1", "a4", "c2", "a5"]


def test_a_priority_is_among_the_tenants_own(client: StrategyClient, store: redis.Redis) -> None:
    """The same priority in the order of arrival; nobody's priority 0 takes another's turn."""
    names = {client.submit("x = 1", user_id=user).id: user for user in "ab"}  # both ready at once
    for which, (user, priority) in enumerate([("a", 9), ("b", 0), ("a", 0), ("b", 9), ("a", 5), ("b", 0), ("a", 0)]):
        names[client.submit("x = 1", user_id=user, priority=priority).id] = f"{user}{which}"
    assert run_all(client, store, names) == ["a", "b", "a2", "b1", "a6", "b5", "a4", "b3", "a0"]


def test_a_retry_goes_to_the_front_of_its_own_lane(client: StrategyClient, store: redis.Redis) -> None:
    """It has waited before: but for the other tenant's turn it is the next."""
    names = {client.submit("x = 1", user_id="a").id: f"a{which}" for which in range(8)}
    names |= {client.submit("x = 1", user_id="b").id: f"b{which}" for which in range(2)}
    first = json.loads(str(store.rpop(LIST)))["headers"]["id"]
    fence = client.ledger.begin(first, "1", {}).fence  # a2 is ready with a1 now
    client.ledger.record(first, "RETRY", record_of("RETRY"), fence=fence, pause_seconds=0)
    time.sleep(0.002)
    assert run_all(client, store, names) == ["a1", "a2", "b0", "a0", "b1", "a3", "a4", "a5", "a6", "a7"]


def test_cancelled_in_its_lane_is_not_handed_over(client: StrategyClient, store: redis.Redis) -> None:
    """A tenant all of whose submissions are cancelled has no turn; the others are not delayed."""
    for _ in range(2):
        client.submit("x = 1", user_id="first")
    submissions = {user: [client.submit("x = 1", user_id=user) for _ in range(3)] for user in "ab"}
    assert all(one.cancel() for one in submissions["a"])
    assert store.lrange(f"{PREFIX}ring", 0, -1) == ["b"]
    assert not store.exists(f"{PREFIX}lane:a")
    assert submissions["b"][0].cancel()
    ran = [run_next(client, store) for _ in range(4)]
    assert ran[2:] == [one.id for one in submissions["b"][1:]]
    assert run_next(client, store) is None


# By another way, with a worker.


def nothing_is_left(client: StrategyClient) -> None:
    """The ledger is empty, and no message is held."""
    with asked(client.settings.redis_url) as store:
        deadline = time.monotonic() + 10
        while left := [
            *store.keys(f"{PREFIX}*"),
            *store.keys("celery"),
            *store.keys("celery:*"),
            *store.hkeys("unacked"),
        ]:
            if left == [f"{PREFIX}pace"]:
                return
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def raw_message(task_id: str, body: Any, headers: dict[str, Any], properties: dict[str, Any]) -> str:
    """Return a message of Celery's protocol 2 as an older client of ours put it into Redis."""
    known = {"lang": "py", "task": "STRATEGY_EXECUTION", "id": task_id, "retries": 0, "timelimit": [None, None]}
    own = {"root_id": task_id, "parent_id": None, "argsrepr": "()", "kwargsrepr": "{}", "eta": None, "expires": None}
    address = {"exchange": "", "routing_key": "celery"}
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": known | own | headers,
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": address,
                "priority": 3,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            }
            | properties,
        }
    )


@pytest.mark.parametrize("priority", [None, 0, 5, 9])
def test_plain_messages_run(served: StrategyClient, plain: Celery, priority: int | None) -> None:
    """Whatever their priority, and so whatever list kombu puts them into, with the separator that ours has."""
    plain.conf.broker_transport_options = {"sep": ":"}
    sent = plain.send_task("STRATEGY_EXECUTION", kwargs={"code": REFUSED}, priority=priority)
    assert sent.get(timeout=30)["status"] == ExecutionStatus.REJECTED
    nothing_is_left(served)


def test_a_countdown_is_kept(served: StrategyClient, plain: Celery) -> None:
    """It waits in the ledger until it is due."""
    due = time.time() + 1.5
    sent = plain.send_task("STRATEGY_EXECUTION", kwargs={"code": REFUSED}, countdown=1.5)
    sent.get(timeout=30)
    assert time.time() >= due - 0.1
    nothing_is_left(served)


def test_what_has_expired_is_not_run(served: StrategyClient, plain: Celery) -> None:
    """Its producer wanted it no more."""
    late = datetime.now(UTC) - timedelta(seconds=60)
    sent = plain.send_task("STRATEGY_EXECUTION", kwargs={"code": "print(1)"}, expires=late)
    with pytest.raises(TaskRevokedError):
        sent.get(timeout=30)
    assert served.submission(str(sent.id)).status() is ExecutionStatus.CANCELLED
    nothing_is_left(served)


def test_an_older_clients_message_runs(served: StrategyClient) -> None:
    """With a delivery tag of its own, and a description that says nothing."""
    task_id = str(uuid.uuid4())
    fields = {"code": "import json\nprint(json.load(open('/workspace/data.json'))['x'])", "data": {"x": "y" * 9000}}
    with asked(served.settings.redis_url) as store:
        store.set(RESULT + task_id, json.dumps({"status": "QUEUED", "result": None, "task_id": task_id}))
        store.lpush("celery:3", raw_message(task_id, [[], fields, EMBED], {}, {}))
    result = served.submission(task_id).result(timeout=60)
    assert result.output == "y" * 9000 + "\n", result.error
    nothing_is_left(served)


def test_what_a_newer_client_asks_for_is_refused_clearly(served: StrategyClient, plain: Celery) -> None:
    """A field that this worker does not know is not left out silently."""
    sent = plain.send_task("STRATEGY_EXECUTION", kwargs={"code": "print(1)", "gpus": 2})
    refused = sent.get(timeout=30)
    assert refused["status"] == ExecutionStatus.REJECTED
    assert "gpus: Extra inputs are not permitted" in refused["error"]["message"]
    nothing_is_left(served)


def test_careless_messages_end_no_worker() -> None:
    """Odd etas, priorities and users; what comes without a zone is UTC, as Celery has it."""
    naive = (datetime.now(UTC) - timedelta(minutes=1)).replace(tzinfo=None).isoformat()
    odd: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        ({"code": REFUSED}, {"eta": naive}, {}),
        ({"code": REFUSED}, {"eta": naive + "Z"}, {}),
        ({"code": REFUSED}, {}, {"priority": "high"}),
        ({"code": REFUSED}, {}, {"priority": 1e300}),
        ({"code": REFUSED}, {}, {"priority": [1]}),
        ({"code": REFUSED}, {"ignore_result": True}, {}),  # the ledger is told how it ended all the same
        ({"code": REFUSED, "user_id": ["a"]}, {}, {}),
        ({"code": REFUSED, "user_id": "a\nb" * 100}, {}, {}),
    ]
    sound: Any = [[], {"code": REFUSED}, EMBED]
    bodies: list[Any] = [[], "x", None, [[], {}], [1, 2, 3], [[], None, {}], {}, {"args": [], "kwargs": 1}]
    dropped: list[tuple[Any, dict[str, Any]]] = [
        *((sound, headers) for headers in ({"eta": "soon"}, {"eta": 17}, {"eta": "2030-13-13"}, {"expires": "never"})),
        *((sound, {"id": odd_id}) for odd_id in (["x"], {"x": 1}, 5)),
        *((body, {}) for body in bodies),
    ]
    with (
        private_redis() as url,
        StrategyClient(Settings(redis_url=url)) as client,
        asked(url) as store,
        private_worker(url, concurrency=1, TZ="Etc/GMT+5") as worker,
    ):
        for which, (fields, headers, properties) in enumerate(odd):
            store.lpush("celery", raw_message(f"odd-{which}", [[], fields, EMBED], headers, properties))
        for which, (body, bad) in enumerate(dropped):
            store.lpush("celery", raw_message(f"dropped-{which}", body, bad, {}))
        deadline = time.monotonic() + 30
        while not all(store.exists(f"{RESULT}odd-{which}") for which in range(len(odd))):
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for which in range(len(odd)):
            assert client.submission(f"odd-{which}").result(timeout=30).status is ExecutionStatus.REJECTED
        assert client.submit(REFUSED).result(timeout=30).status is ExecutionStatus.REJECTED
        assert worker.poll() is None
        nothing_is_left(client)


# Fairness, measured with a worker.


def ended_between(client: StrategyClient, others: list[str], since: float, until: Submission) -> int:
    """Return how many of the others ended after `since` and before that one, by the worker's clock."""

    def when(task_id: str) -> float:
        return datetime.fromisoformat(client.meta(task_id)["date_done"]).timestamp()

    last = when(until.id)
    return sum(since < when(task_id) < last for task_id in others)


def occupied(client: StrategyClient, user: str) -> list[Submission]:
    """Keep both pool processes busy for a moment."""
    blockers = [
        client.submit(f"import time\ntime.sleep(2)\nprint({which})", user_id=user) for which in range(PROCESSES)
    ]
    with asked(client.settings.redis_url) as store:
        deadline = time.monotonic() + 30
        while store.zcard(f"{PREFIX}started") < PROCESSES:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    return blockers


def test_one_submission_is_not_behind_anothers_three_hundred(served: StrategyClient) -> None:
    """At most what was handed over already, and one for each process, goes before it."""
    blockers = occupied(served, "many")
    many = [served.submit(REFUSED, user_id="many").id for _ in range(300)]
    since = time.time()
    one = served.submit(REFUSED, user_id="one")
    waited = one.result(timeout=60).metrics.queue_seconds
    assert all(blocker.result(timeout=60).success for blocker in blockers)
    left = [task_id for task_id in many if served.meta(task_id)["status"] == "QUEUED"]
    for task_id in many:
        served.wait(task_id, 60)
    assert left, "the others still waited when it had ended"
    assert ended_between(served, many, since, one) <= READY_LIMIT + PROCESSES
    longest = served.submission(many[-1]).result(timeout=0).metrics.queue_seconds
    assert waited is not None
    assert longest is not None
    assert waited < longest
    nothing_is_left(served)


def test_a_flood_of_plain_messages_delays_a_client_by_a_few_runs(served: StrategyClient, plain: Celery) -> None:
    """Three hundred are taken into the ledger, as one tenant's, before the next is run: that takes no 300 runs."""
    blockers = occupied(served, "other")
    many = [str(plain.send_task("STRATEGY_EXECUTION", kwargs={"code": REFUSED}).id) for _ in range(300)]
    since = time.time()
    one = served.submit(REFUSED, user_id="one")
    one.result(timeout=60)
    assert all(blocker.result(timeout=60).success for blocker in blockers)
    for task_id in many:
        served.wait(task_id, 60)
    assert ended_between(served, many, since, one) <= READY_LIMIT + PROCESSES
    nothing_is_left(served)


def test_four_tenants_take_turns(served: StrategyClient) -> None:
    """Ten each, submitted tenant by tenant: none is ever far before another, where a plain queue would be by ten."""
    blockers = occupied(served, "other")
    users = random.Random(1).sample("abcd", 4)
    submitted: dict[str, tuple[str, float]] = {}
    for user in [user for user in users for _ in range(10)]:
        one = served.submit(REFUSED, user_id=user)
        message = served.ledger.message(one.id)
        assert message is not None
        submitted[one.id] = user, json.loads(message)["headers"][SUBMITTED_AT]
    starts = []
    for task_id, (user, since) in submitted.items():
        waited = served.submission(task_id).result(timeout=60).metrics.queue_seconds
        assert waited is not None
        starts.append((since + waited, user))
    started = Counter(dict.fromkeys(users, 0))
    for _, user in sorted(starts):
        started[user] += 1
        assert started[user] - min(started.values()) <= READY_LIMIT + PROCESSES, sorted(starts)
    assert all(blocker.result(timeout=60).success for blocker in blockers)
