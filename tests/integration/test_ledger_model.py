"""The ledger against a model: any sequence of what happens to submissions leaves both in the same state."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tasks import DatasetRef, Settings, StrategyClient, ledger
from tasks.errors import UnknownDataset

PREFIX = "stratbox:celery:"
LIST = "celery:9"
RESULT = "celery-task-meta-"
#: As many wait in Celery's list at most (ledger.lua).
READY_LIMIT = 2


def asked(url: str) -> redis.Redis:
    """Return a Redis that is asked directly."""
    return redis.Redis.from_url(url, decode_responses=True)


def record_of(state: str) -> str:
    """Return Celery's record of a state."""
    lost = {"exc_type": "WorkerDied", "exc_module": "worker.errors", "exc_message": ["lost"]}
    result = lost if state in {"FAILURE", "RETRY"} else {"status": "failed"}
    return json.dumps({"status": state, "result": result, "traceback": None})


@dataclass
class Record:
    """What the model knows of one that has not ended, or is dead."""

    tenant: str
    place: tuple[int, int]
    starts: int = 0
    deaths: int = 0
    tries: int = 0
    cancelled: bool = False
    #: Its worker has fallen silent, and its message was put back.
    silent: bool = False
    #: That worker spoke again, and there may be two messages.
    doubled: bool = False
    #: The number of the data set it refers to.
    dataset: int | None = None


@dataclass
class Model:
    """The ledger as it is meant to be, in a few lines of Python."""

    lanes: dict[str, list[str]] = field(default_factory=dict)
    ring: list[str] = field(default_factory=list)
    ready: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    started: dict[str, str] = field(default_factory=dict)
    open: dict[str, Record] = field(default_factory=dict)
    dead: dict[str, Record] = field(default_factory=dict)
    #: Data sets that are there, by number, and who holds each.
    datasets: dict[int, set[str]] = field(default_factory=dict)

    def hold(self, task_id: str) -> None:
        """Hold what it refers to, if that is there."""
        self.datasets.get(self.open[task_id].dataset or 0, set()).add(task_id)

    def line_up(self, task_id: str) -> None:
        """Into the lane of its tenant."""
        tenant = self.open[task_id].tenant
        if tenant not in self.lanes:
            self.ring.append(tenant)
        lane = [*self.lanes.get(tenant, []), task_id]
        self.lanes[tenant] = sorted(lane, key=lambda one: self.open[one].place)

    def leave(self, task_id: str) -> None:
        """Out of all that leads to a run."""
        tenant = self.open[task_id].tenant
        self.ready.discard(task_id)
        self.later.discard(task_id)
        if task_id in self.lanes.get(tenant, []):
            self.lanes[tenant].remove(task_id)
            if not self.lanes[tenant]:
                del self.lanes[tenant]
                self.ring.remove(tenant)

    def refill(self) -> None:
        """One of each tenant in turn."""
        while len(self.ready) < READY_LIMIT and self.ring:
            tenant = self.ring.pop(0)
            self.ready.add(self.lanes[tenant].pop(0))
            if self.lanes[tenant]:
                self.ring.append(tenant)
            else:
                del self.lanes[tenant]

    def close(self, task_id: str) -> Record:
        """At its end."""
        self.leave(task_id)
        self.started.pop(task_id, None)
        record = self.open.pop(task_id)
        self.datasets.get(record.dataset or 0, set()).discard(task_id)
        return record


#: How a key is read, by the beginning of its name.
KINDS: dict[str, Any] = {
    **dict.fromkeys(
        ["ready", "later", "started", "waiting", "dead", "datasets", "lane"], lambda at, key: at.zrange(key, 0, -1)
    ),
    **dict.fromkeys(["task", "inflight", "dataset-bytes"], lambda at, key: at.hgetall(key)),
    "ring": lambda at, key: at.lrange(key, 0, -1),
    "references": lambda at, key: at.smembers(key),
    "dataset": lambda at, key: at.strlen(key),
    "bytes": lambda at, key: at.get(key),
}


@dataclass
class Seen:
    """What Redis holds after a step: two questions, however many keys there are."""

    #: Of the ledger's keys and their time to live, by name without its prefix; of the text of a data set its length.
    keys: dict[str, tuple[Any, int]]
    #: How many messages there are of each submission, in the list and with workers.
    messages: Counter[str]

    @classmethod
    def of(cls, store: redis.Redis) -> Seen:
        """Look."""
        names = [str(name).removeprefix(PREFIX) for name in store.keys(f"{PREFIX}*")]
        asked = [(name, kind) for name in names if (kind := KINDS.get(name.partition(":")[0]))]
        with store.pipeline() as pipe:
            pipe.lrange(LIST, 0, -1)
            pipe.hkeys("unacked")
            for name, kind in asked:
                kind(pipe, PREFIX + name)
                pipe.ttl(PREFIX + name)
            waiting, taken, *answers = pipe.execute()
        keys = dict(zip((name for name, _ in asked), zip(answers[::2], answers[1::2], strict=True), strict=True))
        return cls(keys, Counter([*(json.loads(text)["headers"]["id"] for text in waiting), *taken]))

    def get(self, name: str, default: Any) -> Any:
        """Return what a key holds."""
        return self.keys.get(name, (default, 0))[0]

    def named(self, beginning: str) -> dict[str, Any]:
        """Return what keys hold whose names begin so, by what follows."""
        return {
            name.removeprefix(beginning): held for name, (held, _) in self.keys.items() if name.startswith(beginning)
        }


USERS = st.sampled_from(["", "a", "b", "c"])
WORKERS = st.sampled_from(["worker-1", "worker-2"])
WHICH = st.integers(0, 1000)
DATASETS = st.integers(1, 3)


class LedgerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, ledger and model agree."""

    def __init__(self, url: str, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.store, self.client = asked(url), StrategyClient(Settings(redis_url=url))
        self.store.flushall()
        self.ledger, self.patch = self.client.ledger, patch
        self.model = Model()
        self.count = 0
        #: Taken out of the list by somebody who died.
        self.lost: set[str] = set()
        #: What may come late: id and token of runs that do not count any more.
        self.stale: list[tuple[str, int]] = []
        self.refs = {number: DatasetRef(hashlib.sha256(b"%d" % number).hexdigest(), 1) for number in (1, 2, 3)}

    def teardown(self) -> None:
        """Close."""
        self.client.close()
        self.store.close()

    def speak_as(self, worker: str) -> None:
        """Be this worker from now on."""
        self.patch.setattr(ledger, "WORKER", worker)

    def pick(self, which: int, among: Any) -> str:
        """Choose one."""
        ids = sorted(among, key=lambda one: (self.model.open | self.model.dead)[one].place[1])
        chosen: str = ids[which % len(ids)]
        return chosen

    def put_back(self, task_id: str) -> None:
        """Do what kombu does with the message of one that is not acknowledged, unless it has done so."""
        if (text := self.store.hget("unacked", task_id)) is not None:
            self.store.hdel("unacked", task_id)
            self.store.rpush(LIST, str(text))

    def owned(self, which: int) -> tuple[str, int]:
        """Choose one that runs, and speak as its owner."""
        task_id = self.pick(which, self.model.started)
        self.speak_as(self.model.started[task_id])
        return task_id, self.model.open[task_id].starts

    @rule(number=DATASETS)
    def put(self, number: int) -> None:
        """A client's, of data that may be there."""
        assert self.client.datasets.put(number) == self.refs[number]
        self.model.datasets.setdefault(number, set())

    @rule(number=DATASETS)
    def time_passes(self, number: int) -> None:
        """Its own time is over; it stays as long as somebody holds it."""
        digest = self.refs[number].digest
        if self.store.zadd(f"{PREFIX}datasets", {digest: time.time() - 1}, xx=True, ch=True):
            if self.store.ttl(f"{PREFIX}dataset:{digest}") != -1:
                self.store.delete(f"{PREFIX}dataset:{digest}")  # as Redis does
            self.reconcile()
        if not self.model.datasets.get(number):
            self.model.datasets.pop(number, None)

    @rule(user=USERS, priority=st.integers(0, 9), number=st.none() | DATASETS)
    def submit(self, user: str, priority: int, number: int | None) -> None:
        """A client's."""
        data = self.refs[number] if number else None
        if number and number not in self.model.datasets:
            with pytest.raises(UnknownDataset):
                self.client.submit("x = 1", data, user_id=user, priority=priority)
            return
        task_id = self.client.submit("x = 1", data, user_id=user, priority=priority).id
        direct = len(self.model.ready) < READY_LIMIT and not self.model.ring
        self.count += 1
        self.model.open[task_id] = Record(user, (priority, self.count), dataset=number)
        self.model.hold(task_id)
        if direct:
            self.model.ready.add(task_id)
        else:
            self.model.line_up(task_id)

    @rule(user=USERS, priority=st.integers(0, 9), later=st.booleans(), number=st.none() | DATASETS)
    def adopt(self, *, user: str, priority: int, later: bool, number: int | None) -> None:
        """By a worker: of a message that came by another way, to be run at once or later."""
        task_id = str(uuid.uuid4())
        text = json.dumps({"headers": {"id": task_id}, "properties": {"delivery_tag": task_id}})
        due = time.time() + 1000 if later else None
        digest = self.refs[number].digest if number else None
        self.ledger.adopt(task_id, text, tenant=user, priority=priority, due=due, dataset=digest)
        self.count += 1
        self.model.open[task_id] = Record(user, (priority, self.count), dataset=number)
        self.model.hold(task_id)
        if later:
            self.model.later.add(task_id)
        else:
            self.model.line_up(task_id)
        self.model.refill()

    @rule(worker=WORKERS)
    def take(self, worker: str) -> None:
        """A worker takes a message, and one of its pool processes asks what to do."""
        if (text := self.store.rpop(LIST)) is None:
            return
        task_id = json.loads(str(text))["headers"]["id"]
        self.store.hset("unacked", task_id, str(text))
        self.speak_as(worker)
        begun = self.ledger.begin(task_id, uuid.uuid4().hex, {})
        record = self.model.open.get(task_id)
        if record is None:
            assert begun.word == "ended"
            self.store.hdel("unacked", task_id)
        elif task_id in self.model.started and not record.silent:
            # The second message of one that runs: its worker puts it aside.
            assert begun.word == "busy"
        else:
            record.silent = False
            self.stale.append((task_id, record.starts))
            self.model.leave(task_id)
            record.deaths += task_id in self.model.started
            record.starts += 1
            self.model.started[task_id] = worker
            word = "cancelled" if record.cancelled else "dead" if record.deaths >= 3 else "run"
            assert (begun.word, begun.fence, begun.tries) == (word, record.starts, record.tries)
        self.model.refill()

    @precondition(lambda self: self.model.started)
    @rule(which=WHICH, state=st.sampled_from(["SUCCESS", "FAILURE", "REVOKED"]), main=st.booleans())
    def end(self, *, which: int, state: str, main: bool) -> None:
        """A run ends; its pool process says so, or its main one."""
        task_id, fence = self.owned(which)
        assert self.ledger.record(task_id, state, record_of(state), fence=None if main else fence, reason="lost")
        self.store.hdel("unacked", task_id)
        record = self.model.close(task_id)
        self.stale.append((task_id, fence))
        if state == "FAILURE":
            record.deaths = record.tries = 0
            self.model.dead[task_id] = record
        self.model.refill()

    @precondition(lambda self: self.model.started)
    @rule(which=WHICH)
    def retry(self, which: int) -> None:
        """The infrastructure failed it; it is not due for long."""
        task_id, fence = self.owned(which)
        assert self.ledger.record(task_id, "RETRY", record_of("RETRY"), fence=fence, pause_seconds=1000)
        self.store.hdel("unacked", task_id)
        del self.model.started[task_id]
        record = self.model.open[task_id]
        record.tries += 1
        record.doubled |= record.silent
        self.model.later.add(task_id)

    @precondition(lambda self: self.model.later)
    @rule(which=WHICH)
    def fall_due(self, which: int) -> None:
        """Time passes for one."""
        task_id = self.pick(which, self.model.later)
        self.store.zadd(f"{PREFIX}later", {task_id: time.time() - 1})
        self.ledger.refill()
        self.model.later.remove(task_id)
        self.model.line_up(task_id)
        self.model.refill()

    @precondition(lambda self: self.model.started)
    @rule(which=WHICH)
    def die(self, which: int) -> None:
        """The worker sees its pool process die, and puts the message back."""
        task_id, fence = self.owned(which)
        self.ledger.died(task_id)
        self.put_back(task_id)
        self.stale.append((task_id, fence - 1))
        del self.model.started[task_id]
        self.model.open[task_id].deaths += 1
        self.model.ready.add(task_id)

    @precondition(lambda self: self.model.started)
    @rule(which=WHICH)
    def fall_silent(self, which: int) -> None:
        """The whole worker dies in the run; the message is put back when its time is over."""
        task_id, _ = self.owned(which)
        self.store.zadd(f"{PREFIX}started", {task_id: time.time() - 200})
        self.model.open[task_id].silent = True
        self.put_back(task_id)

    @rule(worker=WORKERS)
    def lose_connection(self, worker: str) -> None:
        """A worker gives back what it runs."""
        self.speak_as(worker)
        self.ledger.release()
        for task_id in [one for one, owner in self.model.started.items() if owner == worker]:
            self.put_back(task_id)
            del self.model.started[task_id]
            self.model.ready.add(task_id)

    @precondition(lambda self: self.model.ready - self.lost)
    @rule(which=WHICH)
    def lose(self, which: int) -> None:
        """Somebody takes a message from the list and dies before it is noted anywhere."""
        task_id = self.pick(which, self.model.ready - self.lost)
        for text in self.store.lrange(LIST, 0, -1):
            if task_id in text:
                self.store.lrem(LIST, 1, str(text))
        self.lost.add(task_id)

    @rule()
    def reconcile(self) -> None:
        """It is missed twice: exactly what was lost is brought back."""
        missed = self.lost & self.model.ready
        for ends in (False, True):
            for task_id in self.model.ready:
                self.store.zadd(f"{PREFIX}ready", {task_id: time.time() - 100})
                if ends and task_id in missed:
                    self.store.hset(f"{PREFIX}task:{task_id}", "missing", str(time.time() - 100))
            assert set(self.ledger.reconcile()) == (missed if ends else set())
            self.model.refill()
        self.lost.clear()

    @precondition(lambda self: self.model.open)
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        """A client's."""
        task_id = self.pick(which, self.model.open)
        assert self.client.cancel(task_id)
        if task_id in self.model.started:
            self.model.open[task_id].cancelled = True
        else:
            self.stale.append((task_id, self.model.close(task_id).starts))

    @precondition(lambda self: self.stale)
    @rule(which=WHICH, state=st.sampled_from(["STARTED", "RETRY", "SUCCESS", "FAILURE"]))
    def come_late(self, which: int, state: str) -> None:
        """A run that counts no more says something."""
        task_id, fence = self.stale[which % len(self.stale)]
        if (record := self.model.open.get(task_id)) and record.starts == fence:
            return
        self.speak_as(self.model.started.get(task_id, "worker-1"))
        assert not self.ledger.record(task_id, state, record_of(state), fence=fence, pause_seconds=0, reason="late")

    @precondition(lambda self: self.model.dead)
    @rule(which=WHICH, again=st.booleans())
    def decide(self, *, which: int, again: bool) -> None:
        """An operator's, of a dead one."""
        task_id = self.pick(which, self.model.dead)
        number = self.model.dead[task_id].dataset
        if again and number and number not in self.model.datasets:
            with pytest.raises(UnknownDataset):
                self.ledger.requeue(task_id)
            return
        record = self.model.dead.pop(task_id)
        assert (self.ledger.requeue if again else self.ledger.drop)(task_id)
        if again:
            record.cancelled = False
            self.model.open[task_id] = record
            self.model.hold(task_id)
            self.model.line_up(task_id)
            self.model.refill()

    @invariant()
    def they_agree(self) -> None:
        """Redis holds what the model says, and no key beside it."""
        seen = Seen.of(self.store)
        self.places_agree(seen)
        self.data_sets_are_held(seen)
        self.counts_are_right(seen)

    def places_agree(self, seen: Seen) -> None:
        """Each key holds what the model says, and there is no other."""
        model = self.model
        assert seen.get("ring", []) == model.ring
        assert seen.named("lane:") == model.lanes
        kept = {name: set(seen.get(name, [])) for name in ("ready", "later", "started", "waiting", "dead")}
        waiting = model.open.keys() - model.started.keys()
        assert kept == {
            "ready": model.ready,
            "later": model.later,
            "started": set(model.started),
            "waiting": waiting,
            "dead": set(model.dead),
        }
        assert seen.named("task:").keys() == model.open.keys() | model.dead.keys()

    def data_sets_are_held(self, seen: Seen) -> None:
        """Each is there, counted, and held by those who refer to it; then it has no end, and one otherwise."""
        digests = {number: ref.digest for number, ref in self.refs.items()}
        there = {digests[number] for number in self.model.datasets}
        stored = seen.named("dataset:")
        assert stored.keys() == there
        holders = {digest: set(held) for digest, held in seen.named("references:").items()}
        assert holders == {digests[number]: held for number, held in self.model.datasets.items() if held}
        assert {digest for digest in stored if seen.keys[f"dataset:{digest}"][1] == -1} == holders.keys()
        sizes = {digest: str(length + 512) for digest, length in stored.items()}
        total = {"all": str(sum(map(int, sizes.values())))} if sizes else {}
        assert seen.get("dataset-bytes", {}) == sizes | total
        assert set(seen.get("datasets", [])) == there

    def counts_are_right(self, seen: Seen) -> None:
        """Of each tenant, and of bytes; each open one is in one place, and its message in one, but for the lost."""
        model = self.model
        tenants = Counter(one.tenant for one in model.open.values())
        assert seen.get("inflight", {}) == {tenant: str(count) for tenant, count in tenants.items()}
        records = seen.named("task:")
        assert int(seen.get("bytes", 0)) == sum(int(records[task_id]["bytes"]) for task_id in model.open)
        places = [*model.ready, *model.later, *model.started, *(one for lane in model.lanes.values() for one in lane)]
        assert sorted(places) == sorted(model.open)
        for task_id in model.ready - self.lost:
            assert 1 <= seen.messages[task_id] <= 1 + model.open[task_id].doubled


@pytest.mark.timeout(600)  # to Hypothesis, one that strikes would look like a failure that comes and goes
def test_ledger_and_model_agree(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty histories of up to fifty steps: submissions, runs, deaths, cancels, losses, retries, in any order."""
    run_state_machine_as_test(
        lambda: LedgerMachine(redis_url, monkeypatch),  # type: ignore[arg-type]  # it takes whatever makes one
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
