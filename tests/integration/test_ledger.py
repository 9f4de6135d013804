"""The ledger in a real Redis, without a worker: the tests say to it what workers and producers would."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tasks import ExecutionStatus, Settings, StrategyClient, SubmissionState, ledger
from tasks.errors import InvalidRequest, QueueFull, UnknownSubmission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFIX = "stratbox:celery:"
LIST = "celery:9"
RESULT = "celery-task-meta-"
VERDICTS = ["SUCCESS", "FAILURE", "REVOKED"]


def meta(state: str, said: str = "") -> str:
    """Return Celery's record of a state."""
    lost = {"exc_type": "WorkerDied", "exc_module": "worker.errors", "exc_message": [said]}
    result = lost if state in {"FAILURE", "RETRY"} else {"status": "failed", "output": said}
    return json.dumps({"status": state, "result": result, "traceback": None})


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """The module's Redis, asked directly, and empty."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
def everything(store: redis.Redis) -> Callable[[], dict[str, Any]]:
    """All there is in Redis, to be compared."""
    read: dict[str, Callable[[str], Any]] = {
        "string": store.get,
        "hash": store.hgetall,
        "list": lambda name: store.lrange(name, 0, -1),
        "zset": lambda name: store.zrange(name, 0, -1, withscores=True),
    }
    return lambda: {name: read[str(store.type(name))](name) for name in map(str, store.keys())}


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Speak as another worker from now on."""
    return lambda name: monkeypatch.setattr(ledger, "WORKER", name)


def make_old(store: redis.Redis, where: str, task_id: str, seconds: float = 200) -> None:
    """Put back the clock of one entry."""
    store.zadd(PREFIX + where, {task_id: time.time() - seconds}, xx=True)
    if store.hexists(f"{PREFIX}task:{task_id}", "missing"):
        store.hset(f"{PREFIX}task:{task_id}", "missing", str(time.time() - seconds))


# Who is heard.


def test_the_newer_of_two_starts_is_heard(client: StrategyClient, store: redis.Redis) -> None:
    """What the first says is refused, before the second has ended and after."""
    task_id = client.submit("x = 1").id
    first = client.ledger.begin(task_id, "1", {})
    make_old(store, "started", task_id)
    second = client.ledger.begin(task_id, "2", {})
    assert (first.word, second.word, first.fence < second.fence) == ("run", "run", True)
    for state in ("RETRY", *VERDICTS):
        assert not client.ledger.record(task_id, state, meta(state), fence=first.fence, pause_seconds=0)
    assert client.submission(task_id).status() is SubmissionState.RUNNING
    assert client.ledger.record(task_id, "SUCCESS", meta("SUCCESS", "second"), fence=second.fence)
    assert not client.ledger.record(task_id, "SUCCESS", meta("SUCCESS", "first"), fence=first.fence)
    assert json.loads(str(store.get(RESULT + task_id)))["result"]["output"] == "second"


def test_a_second_start_beside_the_first_is_told_so(
    client: StrategyClient, everything: Callable[[], dict[str, Any]]
) -> None:
    """The message was delivered twice: nothing changes, and it is no death."""
    task_id = client.submit("x = 1").id
    begun = client.ledger.begin(task_id, "1", {})
    before = everything()
    assert [client.ledger.begin(task_id, attempt, {}).word for attempt in "2345"] == ["busy"] * 4
    assert everything() == before
    assert client.ledger.record(task_id, "SUCCESS", meta("SUCCESS"), fence=begun.fence)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_nothing_changes_a_verdict(
    client: StrategyClient, everything: Callable[[], dict[str, Any]], verdict: str
) -> None:
    """Whatever comes late, from the run itself or its main process, is not taken down anywhere."""
    task_id = client.submit("x = 1").id
    fence = client.ledger.begin(task_id, "1", {}).fence
    assert client.ledger.record(task_id, verdict, meta(verdict), fence=fence)
    before = everything()
    for state in ("STARTED", "RETRY", *VERDICTS):
        for late in (fence, None):
            assert not client.ledger.record(task_id, state, meta(state, "late"), fence=late, pause_seconds=0)
    client.ledger.release()
    client.ledger.died(task_id)
    client.ledger.adopt(task_id, "late", tenant="", priority=0)
    assert not client.cancel(task_id)
    assert everything() == before


def test_who_begins_what_has_ended_gets_the_verdict(client: StrategyClient, store: redis.Redis) -> None:
    """It is not run again, and its record says so byte for byte."""
    task_id = client.submit("x = 1").id
    client.ledger.record(task_id, "SUCCESS", meta("SUCCESS", "kept"), fence=client.ledger.begin(task_id, "1", {}).fence)
    begun = client.ledger.begin(task_id, "2", {})
    assert (begun.word, begun.verdict) == ("ended", meta("SUCCESS", "kept").encode())
    assert store.zcard(f"{PREFIX}started") == 0


def test_another_workers_main_process_is_not_heard(
    client: StrategyClient, as_worker: Callable[[str], None], everything: Callable[[], dict[str, Any]]
) -> None:
    """While one worker owns a run, the other can neither end it, nor put it off, nor give it back."""
    task_id = client.submit("x = 1").id
    as_worker("owner")
    client.ledger.begin(task_id, "1", {})
    before = everything()
    as_worker("other")
    for state in ("STARTED", "RETRY", *VERDICTS):
        assert not client.ledger.record(task_id, state, meta(state), fence=None, pause_seconds=0)
    client.ledger.release()
    client.ledger.died(task_id)
    assert everything() == before
    as_worker("owner")
    assert client.ledger.record(task_id, "FAILURE", meta("FAILURE"), fence=None, reason="hard limit")


# Deaths and tries.


@pytest.mark.parametrize("seen", ["seen", "missed"])
def test_the_third_death_is_the_last(client: StrategyClient, store: redis.Redis, seen: str) -> None:
    """Whether the worker saw its pool process die, or died itself and was missed; the fourth start is told so."""
    task_id = client.submit("x = 1", user_id="tenant-7").id
    words = []
    for attempt in "abcd":
        begun = client.ledger.begin(task_id, attempt, {})
        words.append(begun.word)
        if seen == "seen":
            client.ledger.died(task_id)
            assert (store.zcard(f"{PREFIX}waiting"), store.zcard(f"{PREFIX}started")) == (1, 0)
        make_old(store, "started", task_id)
    assert words == ["run", "run", "run", "dead"]
    assert client.ledger.record(task_id, "FAILURE", meta("FAILURE"), fence=begun.fence, reason="WorkerDied: thrice")
    [dead] = client.ledger.dead()
    assert (dead.id, dead.tenant, dead.reason) == (task_id, "tenant-7", "WorkerDied: thrice")


def test_a_start_whose_answer_was_lost_is_no_death(client: StrategyClient) -> None:
    """The same attempt asks as often as it likes, and has the same token each time."""
    task_id = client.submit("x = 1").id
    begun = [client.ledger.begin(task_id, "same", {}) for _ in range(6)]
    assert {(one.word, one.fence) for one in begun} == {("run", 1)}


def test_a_lost_connection_is_no_death(client: StrategyClient, store: redis.Redis) -> None:
    """What the worker gives back counts as waiting again, however often."""
    task_id = client.submit("x = 1").id
    for attempt in range(6):
        assert client.ledger.begin(task_id, str(attempt), {}).word == "run"
        client.ledger.release()
        assert (store.zcard(f"{PREFIX}waiting"), store.zcard(f"{PREFIX}started")) == (1, 0)
    assert store.hget(f"{PREFIX}task:{task_id}", "deaths") is None


def test_a_retry_comes_back_when_it_is_due(client: StrategyClient, store: redis.Redis) -> None:
    """Not before; each counts as a try, none as a death, and the state says that it will be tried again."""
    task_id = client.submit("x = 1").id
    for tries in range(5):
        store.delete(LIST)
        begun = client.ledger.begin(task_id, str(tries), {})
        assert (begun.word, begun.tries) == ("run", tries)
        assert client.ledger.record(task_id, "RETRY", meta("RETRY"), fence=begun.fence, pause_seconds=30)
        assert client.submission(task_id).status() is SubmissionState.RETRYING
        client.ledger.refill()
        assert store.llen(LIST) == 0
        assert 25 < float(str(store.zscore(f"{PREFIX}later", task_id))) - time.time() < 31
        make_old(store, "later", task_id, seconds=0.01)
        client.ledger.refill()
        assert (store.llen(LIST), store.zcard(f"{PREFIX}later")) == (1, 0)


def test_cancelled_between_two_tries_ends_at_once(client: StrategyClient, store: redis.Redis) -> None:
    """It is due no more."""
    submission = client.submit("x = 1")
    fence = client.ledger.begin(submission.id, "1", {}).fence
    client.ledger.record(submission.id, "RETRY", meta("RETRY"), fence=fence, pause_seconds=0)
    assert submission.cancel()
    assert submission.status() is ExecutionStatus.CANCELLED
    client.ledger.refill()
    assert {name for name in store.keys(f"{PREFIX}*") if name != f"{PREFIX}pace"} == set()


@pytest.mark.parametrize("lost_by", ["silence", "death", "retry", "release"])
def test_a_cancel_is_remembered(client: StrategyClient, store: redis.Redis, lost_by: str) -> None:
    """Cancelled while it ran, and its worker could not say so: the next start is told."""
    submission = client.submit("x = 1")
    fence = client.ledger.begin(submission.id, "1", {}).fence
    assert submission.cancel()
    assert submission.status() is SubmissionState.RUNNING
    if lost_by == "retry":
        client.ledger.record(submission.id, "RETRY", meta("RETRY"), fence=fence, pause_seconds=0)
    if lost_by == "release":
        client.ledger.release()
    if lost_by == "death":
        client.ledger.died(submission.id)
    make_old(store, "started", submission.id)
    assert client.ledger.begin(submission.id, "2", {}).word == "cancelled"


def test_a_cancel_is_not_remembered_beyond_the_end(client: StrategyClient, store: redis.Redis) -> None:
    """Given up, its result expired, submitted again under its key: that is a submission of its own."""
    submission = client.submit("x = 1", key="daily")
    fence = client.ledger.begin(submission.id, "1", {}).fence
    submission.cancel()
    client.ledger.record(submission.id, "FAILURE", meta("FAILURE"), fence=fence, reason="lost")
    store.delete(RESULT + submission.id)
    again = client.submit("x = 1", key="daily")
    assert again.id == submission.id
    assert client.ledger.begin(again.id, "2", {}).word == "run"
    assert client.ledger.dead() == []


def test_unknown_ids_are_nobodys(client: StrategyClient, everything: Callable[[], dict[str, Any]]) -> None:
    """Neither cancel nor requeue, drop, died or reconcile makes something of an id that never was."""
    before = everything()
    with pytest.raises(UnknownSubmission):
        client.cancel("nobody")
    assert not client.ledger.requeue("nobody")
    assert not client.ledger.drop("nobody")
    client.ledger.release()
    client.ledger.died("nobody")
    assert client.ledger.reconcile() == []
    assert everything() == before


# Keys.


def test_the_same_key_is_the_same_submission(client: StrategyClient, store: redis.Redis) -> None:
    """From sixteen producers at once: one id, one message, one record."""

    def submit(_: int) -> str:
        return client.submit("x = 1", user_id="tenant-7", key="daily").id

    with ThreadPoolExecutor(16) as threads:
        ids = set(threads.map(submit, range(64)))
    assert len(ids) == 1
    assert (store.llen(LIST), store.zcard(f"{PREFIX}waiting")) == (1, 1)
    assert store.hgetall(f"{PREFIX}inflight") == {"tenant-7": "1"}


@pytest.mark.parametrize("change", [{"code": "x = 2"}, {"data": 1}, {"timeout": 5}, {"seed": 3}])
def test_another_request_under_a_used_key_is_refused(
    client: StrategyClient, everything: Callable[[], dict[str, Any]], change: dict[str, Any]
) -> None:
    """In one line that names the key, before and after the first has ended."""
    request: dict[str, Any] = {"code": "x = 1", "user_id": "tenant-7", "key": "daily"}
    task_id = client.submit(**request).id
    before = everything()
    with pytest.raises(InvalidRequest, match=r"^key: it was used for another request before[^\n]+$"):
        client.submit(**request | change)
    assert everything() == before
    client.ledger.record(task_id, "SUCCESS", meta("SUCCESS"), fence=client.ledger.begin(task_id, "1", {}).fence)
    with pytest.raises(InvalidRequest, match=r"^key: "):
        client.submit(**request | change)


def test_keys_are_each_users_own(client: StrategyClient) -> None:
    """Nor does one without a key, or with a key that only looks the same, meet another's."""
    users = ["", "a", "b", "a\u00e4"]
    ids = {client.submit("x = 1", user_id=user, key=key).id for user in users for key in ("1", "2", None)}
    assert len(ids) == len(users) * 3


def test_a_key_given_again_after_the_end_gives_the_result(client: StrategyClient, store: redis.Redis) -> None:
    """No second run."""
    first = client.submit("x = 1", key="daily")
    fence = client.ledger.begin(first.id, "1", {}).fence
    client.ledger.record(first.id, "SUCCESS", meta("SUCCESS", "once"), fence=fence)
    store.delete(LIST)
    again = client.submit("x = 1", key="daily")
    assert again.result(timeout=0).output == "once"
    assert (store.llen(LIST), store.zcard(f"{PREFIX}waiting")) == (0, 0)


def test_a_key_is_known_as_long_as_its_result(client: StrategyClient, store: redis.Redis) -> None:
    """It does not expire before: what waits long, or is tried long, is not taken for another request."""
    submission = client.submit("x = 1", key="daily")
    key = f"{PREFIX}key:{submission.id}"
    assert store.ttl(key) == -1, "it waits, for who knows how long"
    fence = client.ledger.begin(submission.id, "1", {}).fence
    client.ledger.record(submission.id, "SUCCESS", meta("SUCCESS"), fence=fence)
    assert 0 <= int(str(store.ttl(RESULT + submission.id))) <= int(str(store.ttl(key)))


def test_a_full_queue_does_not_refuse_what_is_in_it(redis_url: str, store: redis.Redis) -> None:
    """A repeat under a key asks for no room; and what was refused has not used its key up."""
    with StrategyClient(Settings(redis_url=redis_url, max_queued=1)) as client:
        first = client.submit("x = 1", key="first")
        with pytest.raises(QueueFull):
            client.submit("x = 2", key="second")
        assert client.submit("x = 1", key="first").id == first.id
        first.cancel()
        assert client.submit("x = 3", key="second").id
    assert store.zcard(f"{PREFIX}waiting") == 1


def test_forgotten_by_celery_is_not_counted_twice(client: StrategyClient, store: redis.Redis) -> None:
    """Celery's `forget()` deletes the state of one that waits: it is still known, and leaves nothing behind."""
    submission = client.submit("x = 1", key="daily")
    store.delete(RESULT + submission.id)
    assert client.submit("x = 1", key="daily").id == submission.id
    begun = client.ledger.begin(submission.id, "1", {})
    client.ledger.record(submission.id, "SUCCESS", meta("SUCCESS"), fence=begun.fence)
    left = {name for name in map(str, store.keys(f"{PREFIX}*")) if ":key:" not in name and not name.endswith(":pace")}
    assert left == set()


# The dead.


def test_a_message_of_a_dead_submission_runs_nothing(client: StrategyClient, store: redis.Redis) -> None:
    """Its result has expired, a copy of its message comes late: the count of its user stays right."""
    dead, alive = client.submit("x = 1"), client.submit("x = 2")
    fence = client.ledger.begin(dead.id, "1", {}).fence
    client.ledger.record(dead.id, "FAILURE", meta("FAILURE"), fence=fence, reason="lost")
    store.delete(RESULT + dead.id)
    late = client.ledger.begin(dead.id, "2", {})
    client.ledger.record(dead.id, "SUCCESS", meta("SUCCESS"), fence=late.fence)
    assert store.hgetall(f"{PREFIX}inflight") == {"": "1"}
    assert alive.cancel()


def test_a_dead_submission_outlives_its_result(client: StrategyClient, store: redis.Redis) -> None:
    """When the result has expired, Celery's Revoke changes nothing, and it can still be queued again."""
    others = [client.submit("x = 1").id for _ in range(2)]
    task_id = client.submit("x = 1").id
    client.ledger.record(task_id, "FAILURE", meta("FAILURE", "lost"), fence=None, reason="lost")
    store.delete(RESULT + task_id)
    before = (store.hgetall(f"{PREFIX}inflight"), store.get(f"{PREFIX}bytes"))
    assert not client.ledger.record(task_id, "REVOKED", meta("REVOKED", "late"), fence=None)
    assert (store.hgetall(f"{PREFIX}inflight"), store.get(f"{PREFIX}bytes")) == before
    assert client.ledger.requeue(task_id)
    assert client.ledger.waiting()[0] == len(others) + 1


def test_dropped_is_gone_and_requeued_is_counted(client: StrategyClient, store: redis.Redis) -> None:
    """Twice each: the second time there is nothing to do."""
    submissions = [client.submit("x = 1", user_id="a") for _ in range(2)]
    for one in submissions:
        fence = client.ledger.begin(one.id, "1", {}).fence
        client.ledger.record(one.id, "FAILURE", meta("FAILURE"), fence=fence, reason="lost")
    assert store.hgetall(f"{PREFIX}inflight") == {}
    assert [client.ledger.requeue(submissions[0].id) for _ in range(2)] == [True, False]
    assert [client.ledger.drop(submissions[1].id) for _ in range(2)] == [True, False]
    assert (store.hgetall(f"{PREFIX}inflight"), store.zcard(f"{PREFIX}waiting")) == ({"a": "1"}, 1)
    assert int(str(store.get(f"{PREFIX}bytes"))) == int(str(store.hget(f"{PREFIX}task:{submissions[0].id}", "bytes")))
    assert store.exists(f"{PREFIX}task:{submissions[1].id}") == 0


# What was lost on its way.


@pytest.mark.parametrize("where", ["ready", "started"])
def test_what_is_nowhere_is_brought_back_once(client: StrategyClient, store: redis.Redis, where: str) -> None:
    """Its message was taken from the list by somebody who died: missed twice, it is put there again."""
    task_id = client.submit("x = 1").id
    message = store.rpop(LIST)
    if where == "started":
        client.ledger.begin(task_id, "1", {})
    assert client.ledger.reconcile() == [], "it may be on its way"
    make_old(store, where, task_id)
    assert client.ledger.reconcile() == [], "it is missed for the first time"
    assert client.ledger.reconcile() == [], "that was a moment ago"
    make_old(store, where, task_id)
    assert client.ledger.reconcile() == [task_id]
    assert store.lrange(LIST, 0, -1) == [message]
    for _ in range(2):
        make_old(store, "ready", task_id)
        assert client.ledger.reconcile() == []
    assert (store.zcard(f"{PREFIX}waiting"), store.zcard(f"{PREFIX}started")) == (1, 0)
    store.delete(LIST)
    assert client.ledger.begin(task_id, "2", {}).word == "run"


@pytest.mark.parametrize("short", ["1", "a", "-", "celery"])
def test_a_short_id_is_not_taken_for_found_in_another_message(
    client: StrategyClient, store: redis.Redis, short: str
) -> None:
    """That of a producer without our code may be anywhere in a text; as a tag it is only in its own."""
    text = json.dumps({"properties": {"delivery_tag": short}})
    client.ledger.adopt(short, text, tenant="", priority=0)
    assert store.rpop(LIST) == text
    other = client.submit(f"x = {short!r}").id
    assert store.llen(LIST) == 1
    for found in ([], [short]):
        make_old(store, "ready", short)
        assert client.ledger.reconcile() == found
    make_old(store, "ready", short)
    make_old(store, "ready", other)
    assert client.ledger.reconcile() == []
    assert store.llen(LIST) == 2


@pytest.mark.parametrize(("where", "held"), [("ready", "list"), ("started", "list"), ("started", "unacked")])
def test_nothing_is_brought_back_that_is_somewhere(
    client: StrategyClient, store: redis.Redis, where: str, held: str
) -> None:
    """However old: a copy in the list, or with a worker, is enough; and what was missed and seen is not missed."""
    task_id = client.submit("x = 1").id
    message = str(store.rpop(LIST))
    if where == "started":
        client.ledger.begin(task_id, "1", {})
    make_old(store, where, task_id)
    assert client.ledger.reconcile() == []
    assert store.hexists(f"{PREFIX}task:{task_id}", "missing")
    if held == "list":
        store.rpush(LIST, message)
    else:
        store.hset("unacked", task_id, message)
    before = store.llen(LIST)
    for _ in range(3):
        make_old(store, where, task_id)
        assert client.ledger.reconcile() == []
    assert store.llen(LIST) == before
    assert not store.hexists(f"{PREFIX}task:{task_id}", "missing")


def test_a_note_of_delivery_is_not_believed_for_ever(client: StrategyClient, store: redis.Redis) -> None:
    """Redis went away between the note and its answer, and the worker knows of nothing; 30 s it may still begin."""
    task_id = client.submit("x = 1").id
    message = str(store.rpop(LIST))
    store.hset("unacked", task_id, message)
    make_old(store, "ready", task_id)
    assert client.ledger.reconcile() == []
    make_old(store, "ready", task_id, seconds=25)
    assert client.ledger.reconcile() == [], "its worker may wait for a pool process"
    make_old(store, "ready", task_id, seconds=31)
    assert client.ledger.reconcile() == [task_id]
    assert store.lrange(LIST, 0, -1) == [message]
    begun = [client.ledger.begin(task_id, attempt, {}).word for attempt in "12"]
    assert begun == ["run", "busy"], "and where it did begin, after all, only one goes on"


def test_a_copy_in_the_list_is_enough(client: StrategyClient, store: redis.Redis) -> None:
    """With a note of delivery that stays, and nobody who takes the copy, there is one copy all the same."""
    task_id = client.submit("x = 1").id
    store.hset("unacked", task_id, str(store.lindex(LIST, 0)))
    for _ in range(4):
        make_old(store, "ready", task_id)
        assert client.ledger.reconcile() == []
    assert store.llen(LIST) == 1


def test_one_look_serves_all_workers(client: StrategyClient, store: redis.Redis) -> None:
    """Each asks to look unless another has done so lately; by hand it can be done at any time."""
    task_id = client.submit("x = 1").id
    store.delete(LIST)
    make_old(store, "ready", task_id)
    client.ledger.reconcile(unless_within_seconds=1)
    make_old(store, "ready", task_id)
    assert client.ledger.reconcile(unless_within_seconds=1) == []
    time.sleep(1.1)
    assert client.ledger.reconcile(unless_within_seconds=1) == [task_id]
    assert client.ledger.reconcile() == []


def test_a_run_within_its_time_is_not_brought_back(client: StrategyClient, store: redis.Redis) -> None:
    """A late acknowledgement took its note away, but it runs."""
    task_id = client.submit("x = 1").id
    store.delete(LIST)
    client.ledger.begin(task_id, "1", {})
    make_old(store, "started", task_id, seconds=125)
    store.hset(f"{PREFIX}task:{task_id}", "missing", "1")
    assert client.ledger.reconcile() == []
    assert store.llen(LIST) == 0


def test_eight_reconcilers_at_once_bring_it_back_once(redis_url: str, store: redis.Redis) -> None:
    """Any number of workers may look at the same moment."""
    with StrategyClient(Settings(redis_url=redis_url)) as client:
        ids = [client.submit("x = 1", user_id=str(number)).id for number in range(2)]
        store.delete(LIST)
        for task_id in ids:
            make_old(store, "ready", task_id)
        client.ledger.reconcile()
        for task_id in ids:
            make_old(store, "ready", task_id)
        start = threading.Barrier(8)

        def reconcile(_: int) -> list[str]:
            start.wait(10)
            return client.ledger.reconcile()

        with ThreadPoolExecutor(8) as threads:
            brought_back = [task_id for found in threads.map(reconcile, range(8)) for task_id in found]
    assert sorted(brought_back) == sorted(ids)
    assert store.llen(LIST) == 2


@pytest.mark.parametrize("where", ["ready", "started"])
@pytest.mark.parametrize("found_by", ["reconcile", "begin"])
def test_what_an_older_worker_has_ended_is_closed(
    client: StrategyClient, store: redis.Redis, where: str, found_by: str
) -> None:
    """It stores the result itself, and knows of no ledger."""
    task_id = client.submit("x = 1").id
    store.delete(LIST)
    if where == "started":
        client.ledger.begin(task_id, "1", {})
    store.set(RESULT + task_id, meta("SUCCESS", "old"))
    make_old(store, where, task_id)
    if found_by == "reconcile":
        assert client.ledger.reconcile() == []
    else:
        assert client.ledger.begin(task_id, "2", {}).word == "ended"
    assert {name for name in store.keys(f"{PREFIX}*") if name != f"{PREFIX}pace"} == set()
    assert client.submission(task_id).result(timeout=0).output == "old"


@pytest.mark.parametrize("where", ["lane:", "ready", "later", "started"])
def test_a_record_removed_by_hand_hurts_nobody_else(client: StrategyClient, store: redis.Redis, where: str) -> None:
    """An operator deleted it in Redis: every operation still works for the others, and its traces go."""
    before = [client.submit("x = 1", user_id="b") for _ in range(2 if where == "lane:" else 0)]
    doomed = client.submit("x = 1")
    if where in {"later", "started"}:
        fence = client.ledger.begin(doomed.id, "1", {}).fence
        if where == "later":
            client.ledger.record(doomed.id, "RETRY", meta("RETRY"), fence=fence, pause_seconds=0)
    assert store.zscore(PREFIX + where, doomed.id) is not None
    store.delete(f"{PREFIX}task:{doomed.id}")
    assert all(one.cancel() for one in before)
    store.delete(LIST)
    time.sleep(0.002)  # so that it is due
    client.ledger.refill()
    other = client.submit("x = 2", user_id="b")
    assert client.ledger.begin(other.id, "1", {}).word == "run"
    make_old(store, where, doomed.id)
    client.ledger.reconcile()
    assert store.zscore(PREFIX + where, doomed.id) is None
