"""No more is accepted than there is room for, and what was accepted is run: many producers, a Redis that is full."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis
from local import private_redis, private_worker

from tasks import (
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Settings,
    StrategyClient,
    Submission,
    SubmissionState,
)
from tasks.errors import Backpressure, QueueFull, TenantLimit
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFIX = "stratbox:celery:"
LIST = "celery:9"
PRODUCERS = 16
MEGABYTE = 1_000_000
#: The policy refuses it, so that no container is spent.
REFUSED = "import os"


def _asked(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """The module's Redis, asked directly, and empty."""
    with _asked(redis_url) as opened:
        opened.flushall()
        yield opened
        opened.config_set("maxmemory", 0)


def number(value: Any) -> int:
    """Return what Redis counts."""
    return int(value or 0)


def end(client: StrategyClient, task_id: str, state: str = "SUCCESS") -> None:
    """Run one as a worker would, in no time."""
    fence = client.ledger.begin(task_id, "attempt", {}).fence
    meta = json.dumps({"status": state, "result": {"status": "failed"}, "traceback": None})
    assert client.ledger.record(task_id, state, meta, fence=fence, reason="lost")


def nothing_is_left(store: redis.Redis) -> None:
    """Of the ledger there is only the pace, and keys, which expire."""
    left = [str(name) for name in store.keys(f"{PREFIX}*")]
    assert {name for name in left if not name.startswith((f"{PREFIX}key:", f"{PREFIX}pace"))} == set()
    assert all(0 < number(store.ttl(name)) <= 86_400 for name in left)


def at_once(redis_url: str, produce: Callable[[StrategyClient, int], list[Any]], **bounds: Any) -> list[Any]:
    """Let sixteen producers, each with a client of its own, begin at the same moment; return what all got."""
    start = threading.Barrier(PRODUCERS)

    def run(which: int) -> list[Any]:
        with StrategyClient(Settings(redis_url=redis_url, **bounds)) as client:
            client.server_info()  # connected
            start.wait(30)
            return produce(client, which)

    with ThreadPoolExecutor(PRODUCERS) as threads:
        return [one for got in threads.map(run, range(PRODUCERS)) for one in got]


def attempt(client: StrategyClient, *, code: str = "x = 1", **request: Any) -> Submission | Backpressure:
    """Submit; return what came of it."""
    try:
        return client.submit(code, **request)
    except Backpressure as full:
        return full


def refusals_are_clear(got: list[Any], kind: type[Backpressure], names: str) -> None:
    """Each is one line that names the bound and says when to come again."""
    refused = [one for one in got if isinstance(one, Backpressure)]
    assert refused
    for one in refused:
        assert type(one) is kind
        assert 0 < one.retry_after <= 30
        assert names in str(one)
        assert f"submit again in {one.retry_after:g} s" in str(one)
        assert "\n" not in str(one)


# Bounds.


def test_as_many_as_may_wait_are_accepted(client: StrategyClient, store: redis.Redis, redis_url: str) -> None:
    """Sixteen producers, 160 attempts, room for 50: 50 are in, and room that is given back is used again."""
    got = at_once(redis_url, lambda one, _: [attempt(one) for _ in range(10)], max_queued=50)
    accepted = [one for one in got if isinstance(one, Submission)]
    assert len(accepted) == 50 == store.zcard(f"{PREFIX}waiting")
    refusals_are_clear(got, QueueFull, "STRATBOX_MAX_QUEUED)")
    begun = client.ledger.begin(accepted[0].id, "1", {})
    assert begun.word == "run"
    with StrategyClient(Settings(redis_url=redis_url, max_queued=50)) as bounded:
        assert isinstance(attempt(bounded), QueueFull), "what runs takes room, too"
        accepted[1].cancel()
        assert isinstance(attempt(bounded), Submission)
        assert isinstance(attempt(bounded), QueueFull)


def test_as_many_as_a_tenant_may_have_are_accepted(store: redis.Redis, redis_url: str) -> None:
    """Four tenants at once, 7 each: one's refusals are nothing to the others."""
    got = at_once(
        redis_url, lambda one, which: [attempt(one, user_id=f"t{which % 4}") for _ in range(10)], max_per_tenant=7
    )
    assert store.hgetall(f"{PREFIX}inflight") == {f"t{which}": "7" for which in range(4)}
    assert sum(isinstance(one, Submission) for one in got) == 28
    refusals_are_clear(got, TenantLimit, "STRATBOX_MAX_PER_TENANT)")


def test_as_many_bytes_as_may_wait_are_accepted(store: redis.Redis, redis_url: str) -> None:
    """What is counted is what is stored, it stays below the bound, and the next one would not have fitted."""
    bound = 60_000
    got = at_once(
        redis_url,
        lambda one, which: [attempt(one, data=random.Random(which).randbytes(400).hex()) for _ in range(8)],
        max_queued_bytes=bound,
    )
    records = store.keys(f"{PREFIX}task:*")
    sizes = [number(store.hget(str(record), "bytes")) for record in records]
    assert sizes == [len(str(store.hget(str(record), "message"))) for record in records]
    assert len(sizes) == sum(isinstance(one, Submission) for one in got)
    assert sum(sizes) == number(store.get(f"{PREFIX}bytes"))
    assert bound - max(sizes) < sum(sizes) <= bound
    refusals_are_clear(got, QueueFull, "STRATBOX_MAX_QUEUED_BYTES)")


def test_bounds_hold_while_submissions_come_and_go(store: redis.Redis, redis_url: str) -> None:
    """Sixteen producers that submit, cancel, run and give up, and somebody who looks: never too many, nothing left."""
    over: list[Any] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with store.pipeline() as pipe:  # all of one moment
                pipe.zcard(f"{PREFIX}waiting")
                pipe.zcard(f"{PREFIX}started")
                pipe.hgetall(f"{PREFIX}inflight")
                waiting, started, inflight = pipe.execute()
            if waiting + started > 20 or max(map(int, inflight.values()), default=0) > 6:
                over.append((waiting, started, inflight))

    def produce(client: StrategyClient, which: int) -> list[Submission]:
        chance = random.Random(which)
        mine: list[Submission] = []
        for _ in range(25):
            got = attempt(client, user_id=f"t{which % 5}", priority=chance.randrange(10))
            mine += [got] if isinstance(got, Submission) else []
            if mine and chance.random() < 0.6:
                one = mine.pop(chance.randrange(len(mine)))
                match chance.choice(["cancel", "SUCCESS", "FAILURE", "REVOKED"]):
                    case "cancel":
                        assert one.cancel()
                    case state:
                        end(client, one.id, state)
        return mine

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        left = at_once(redis_url, produce, max_queued=20, max_per_tenant=6)
    finally:
        done.set()
        watcher.join()
    assert over == []
    with StrategyClient(Settings(redis_url=redis_url)) as client:
        assert all(client.cancel(one.id) for one in left)
        for dead in client.ledger.dead():
            assert client.ledger.drop(dead.id)
    nothing_is_left(store)


def test_nothing_is_left_of_keys_but_what_expires(client: StrategyClient, store: redis.Redis) -> None:
    """However they ended."""
    for which, state in enumerate(["SUCCESS", "FAILURE", "REVOKED", "cancel"]):
        submission = client.submit("x = 1", key=str(which), user_id=str(which))
        if state == "cancel":
            submission.cancel()
        else:
            end(client, submission.id, state)
    for dead in client.ledger.dead():
        client.ledger.drop(dead.id)
    nothing_is_left(store)
    assert len(list(store.keys(f"{PREFIX}key:*"))) == 4


def test_cancelled_messages_do_not_pile_up(client: StrategyClient, store: redis.Redis) -> None:
    """With no worker there, submitting and cancelling takes no room in Redis, which nothing bounds then."""
    for _ in range(50):
        client.submit("x = 1").cancel()
    assert number(store.llen(LIST)) <= 2
    nothing_is_left(store)


def test_what_never_fits_is_not_told_to_come_again(redis_url: str, store: redis.Redis) -> None:
    """A submission over the bound for all of them: `map` would wait for ever."""
    with StrategyClient(Settings(redis_url=redis_url, max_queued_bytes=500)) as client:
        with pytest.raises(ValueError, match="STRATBOX_MAX_QUEUED_BYTES") as refused:
            client.submit("x = 1")
        assert not isinstance(refused.value, Backpressure)
    assert store.keys(f"{PREFIX}*") == []


def test_when_to_come_again_follows_the_pace(redis_url: str, store: redis.Redis) -> None:
    """The faster submissions end, the sooner; between half a second and half a minute."""
    with StrategyClient(Settings(redis_url=redis_url, max_queued=1)) as client:
        client.submit("x = 1")
        for between, expected in ((0.01, 0.5), (3, 3), (600, 30)):
            store.delete(f"{PREFIX}pace")
            store.rpush(f"{PREFIX}pace", *(time.time() - between * ended for ended in range(1, 11)))
            full = attempt(client)
            assert isinstance(full, QueueFull)
            assert full.retry_after == pytest.approx(expected, abs=0.2)


# A Redis that is full.


def fill(client: StrategyClient, size: int) -> list[Submission]:
    """Submit until there is no memory for more, each with so many bytes that compression does not shrink."""
    accepted: list[Submission] = []
    while isinstance(got := attempt(client, code=REFUSED, data=random.randbytes(size // 2).hex()), Submission):
        accepted.append(got)
    refusals_are_clear([got], QueueFull, "Redis has no memory left for more: ")
    assert accepted
    return accepted


def used(store: redis.Redis) -> int:
    """Return how much memory Redis uses."""
    info: dict[str, Any] = store.info("memory")
    return int(info["used_memory"])


def test_nothing_is_lost_in_a_full_redis(client: StrategyClient, store: redis.Redis) -> None:
    """Without a byte left, workers and cancels go on, and what was accepted is there; then there is room again."""
    store.config_set("maxmemory", used(store) + 20 * MEGABYTE)
    accepted = fill(client, MEGABYTE // 2)
    room = number(store.config_get("maxmemory")["maxmemory"]) - used(store)
    assert room > 0, "the reserve"
    store.config_set("maxmemory", used(store) - MEGABYTE // 2)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        store.set("anything", "more")
    with pytest.raises(QueueFull, match=r"^Redis has no memory left for more: submit again in 5 s$"):
        client.submit(REFUSED)
    assert number(store.zcard(f"{PREFIX}waiting")) == len(accepted)

    first, second, third, fourth, *others = accepted
    end(client, first.id)
    begun = client.ledger.begin(second.id, "1", {})
    meta = json.dumps({"status": "RETRY", "result": {"exc_type": "E", "exc_message": "", "exc_module": "m"}})
    assert client.ledger.record(second.id, "RETRY", meta, fence=begun.fence, pause_seconds=0)
    assert third.cancel()
    client.ledger.begin(fourth.id, "1", {})
    client.ledger.release()
    client.ledger.reconcile()
    client.ledger.adopt("plain", json.dumps({"body": "x" * 1000}), tenant="", priority=0)
    assert number(store.zcard(f"{PREFIX}waiting")) == len(accepted) - 2 + 1
    assert {one.status() for one in others} == {SubmissionState.QUEUED}

    store.config_set("maxmemory", 0)
    assert client.submit(REFUSED).status() is SubmissionState.QUEUED
    for task_id in [one.id for one in accepted if one not in (first, third)]:
        message = client.ledger.message(task_id)
        assert message is not None
        assert json.loads(message)["headers"]["id"] == task_id


def test_what_was_accepted_by_a_full_redis_is_run() -> None:
    """Filled with data up to the workers' reserve, a worker runs all of it, and producers go on."""
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client, _asked(url) as store:
        store.config_set("maxmemory", 30 * MEGABYTE)
        accepted = fill(client, MEGABYTE // 2)
        assert used(store) > 0.88 * 30 * MEGABYTE
        with private_worker(url):
            assert {one.result(timeout=60).status for one in accepted} == {ExecutionStatus.REJECTED}
            assert client.submit(REFUSED).result(timeout=60).status is ExecutionStatus.REJECTED
        nothing_is_left(store)


def test_a_worker_outlives_a_full_redis() -> None:
    """Without a byte for Celery's own notes it waits, as for a Redis that is away, and goes on when there is room."""
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client, _asked(url) as store:
        submissions = [client.submit(REFUSED) for _ in range(4)]
        with private_worker(url, concurrency=1) as worker:
            assert [one.result(timeout=60).status for one in submissions] == [ExecutionStatus.REJECTED] * 4
            late = [client.submit(f"import time\ntime.sleep(1.5)\nprint({which})") for which in range(2)]
            deadline = time.monotonic() + 30
            while late[0].status() is SubmissionState.QUEUED and time.monotonic() < deadline:
                time.sleep(0.05)
            store.config_set("maxmemory", 1)
            assert late[0].result(timeout=60).output == "0\n", "its verdict has room"
            with contextlib.suppress(TimeoutError):
                late[1].result(timeout=4)
            assert worker.poll() is None
            store.config_set("maxmemory", 0)
            assert late[1].result(timeout=60).output == "1\n"


# A map waits. The last one: its worker stays for as long as the module.


@pytest.mark.usefixtures("worker_process")
async def test_map_waits_for_room(redis_url: str, store: redis.Redis) -> None:
    """Two have room; seven come back, in order, and a plain submission meanwhile is refused."""
    with StrategyClient(Settings(redis_url=redis_url, max_queued=2)) as client:
        client.submit(REFUSED).result(timeout=60)  # the pace is known
        requests = [ExecutionRequest(code=f"{REFUSED}\nx = '{which}'") for which in range(7)]
        most = [0]

        def watched() -> Iterator[ExecutionRequest]:
            for request in requests:
                yield request
                with store.pipeline() as pipe:  # of one moment
                    pipe.zcard(f"{PREFIX}waiting")
                    pipe.zcard(f"{PREFIX}started")
                    most[0] = max(most[0], sum(pipe.execute()))

        results = list(client.map(watched(), timeout=60))
        assert [result.status for result in results] == [ExecutionStatus.REJECTED] * 7
        assert most[0] <= 2
        assert len([result async for result in client.map_async(requests[:4], timeout=60)]) == 4
    nothing_is_left(store)


@pytest.mark.usefixtures("worker_process")
async def test_who_leaves_while_waiting_for_room_submits_no_more(redis_url: str, store: redis.Redis) -> None:
    """Though there is room later."""
    with StrategyClient(Settings(redis_url=redis_url, max_queued=1)) as client:
        submitting = client.submit_as
        asked: list[str] = []

        def noting(submission: Submission, *arguments: Any, **options: Any) -> None:
            asked.append(submission.id)
            submitting(submission, *arguments, **options)

        client.submit_as = noting  # type: ignore[method-assign]
        client.submit(REFUSED).result(timeout=60)  # the pace is known, and a pause is short
        held = client.submit("import time\ntime.sleep(50)")

        async def collect() -> list[ExecutionResult]:
            return [result async for result in client.map_async([ExecutionRequest(code="print(1)")], timeout=60)]

        collecting = asyncio.create_task(collect())
        await asyncio.to_thread(until, lambda: len(asked) > 3)
        collecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await collecting
        assert held.cancel()
        before = len(asked)
        await asyncio.sleep(3)
        assert len(asked) == before
    until(lambda: not store.zcard(f"{PREFIX}started"))
    assert not store.zcard(f"{PREFIX}waiting")
