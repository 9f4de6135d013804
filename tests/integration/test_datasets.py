"""Data sets: in a real Redis, shared by real workers, read by strategies in real containers."""

from __future__ import annotations

import bz2
import hashlib
import json
import logging
import os
import random
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from local import private_redis, private_worker

from tasks import DatasetRef, ExecutionStatus, Settings, StrategyClient, SubmissionState
from tasks.datasets import DATASETS_PAUSE_SECONDS
from tasks.errors import DatasetsFull, InvalidRequest, UnknownDataset
from tests.waiting import until
from worker.datasets import FOLDER

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

log = logging.getLogger(__name__)

PREFIX = "stratbox:celery:"
DATA: dict[str, Any] = {"bars": {"close": [101.25, 100.5]}, "symbol": "é"}
SHOW = "print(open('/workspace/data.json', encoding='utf-8').read())"
DAY, WEEK = 86_400, 7 * 86_400


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """The module's Redis, asked directly, and empty."""
    with redis.Redis.from_url(redis_url) as opened:
        opened.flushall()
        yield opened
        opened.config_set("maxmemory", 0)


@pytest.fixture
def ref(client: StrategyClient, store: redis.Redis) -> DatasetRef:
    """One that was put."""
    del store
    return client.datasets.put(DATA)


def key(ref: DatasetRef) -> str:
    """Return where its text is."""
    return f"{PREFIX}dataset:{ref}"


def traffic(store: redis.Redis) -> int:
    """Return the bytes that have gone in and out of Redis so far."""
    stats = store.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


def end(client: StrategyClient, task_id: str, state: str = "SUCCESS") -> None:
    """Run one as a worker would, in no time."""
    fence = client.ledger.begin(task_id, f"attempt {time.monotonic_ns()}", {}).fence
    meta = json.dumps({"status": state, "result": {"status": "failed"}, "traceback": None})
    assert client.ledger.record(task_id, state, meta, fence=fence, reason="lost")


def is_over(store: redis.Redis, ref: DatasetRef) -> None:
    """Let its time pass, of which Redis knows by two ways."""
    store.zadd(f"{PREFIX}datasets", {ref.digest: time.time() - 1})
    if store.ttl(key(ref)) != -1:
        store.expireat(key(ref), int(time.time()) - 1)


def nothing_is_left(store: redis.Redis) -> None:
    """Neither of a data set nor of what is counted."""
    assert [name for name in store.keys(f"{PREFIX}*") if b"dataset" in name or b"references" in name] == []


# Put. The first tests have no worker: they say to Redis what one would.


def test_what_is_there_is_not_sent_again(client: StrategyClient, store: redis.Redis) -> None:
    """A megabyte of noise goes to Redis once, for whoever puts it, and is kept for a day from then on."""
    data: dict[str, Any] = {"noise": random.Random(1).randbytes(750_000).hex()}
    store.script_flush()  # as a Redis that has just been started
    before = traffic(store)
    ref = client.datasets.put(data)
    sent = traffic(store) - before
    assert ref == DatasetRef(
        hashlib.sha256(text := json.dumps(data, separators=(",", ":")).encode()).hexdigest(), len(text)
    )
    assert 700_000 < sent < 850_000
    store.expire(key(ref), 100)
    with StrategyClient(client.settings) as another:
        before = traffic(store)
        assert another.datasets.put(dict(data)) == ref
        assert traffic(store) - before < 10_000
    assert DAY - 10 < int(str(store.ttl(key(ref)))) <= DAY + 1
    assert client.datasets.read(ref.digest) == text


async def test_put_async_does_the_same(client: StrategyClient, ref: DatasetRef) -> None:
    """Without blocking the event loop."""
    assert await client.datasets.put_async(DATA) == ref


def test_sixteen_who_put_the_same_store_it_once(client: StrategyClient, store: redis.Redis) -> None:
    """One text, counted once."""
    with ThreadPoolExecutor(16) as threads:
        refs = set(threads.map(client.datasets.put, [DATA] * 64))
    (ref,) = refs
    size = int(str(store.strlen(key(ref)))) + 512
    assert store.hgetall(f"{PREFIX}dataset-bytes") == {b"all": b"%d" % size, ref.digest.encode(): b"%d" % size}


@pytest.mark.parametrize("data", [{"x": float("nan")}, "x" * 17_000_000, {"x": (1,)}, {1: 2}, b"x"])
def test_what_is_no_data_is_not_put(client: StrategyClient, store: redis.Redis, data: Any) -> None:
    """Refused as in a submission, and nothing is sent."""
    with pytest.raises(InvalidRequest, match=r"^data"):
        client.datasets.put(data)
    assert store.dbsize() == 0


def test_a_reference_is_not_put(client: StrategyClient) -> None:
    """It would stand for nothing."""
    with pytest.raises(InvalidRequest, match=r"^data: a reference was put before"):
        client.datasets.put(DatasetRef("0" * 64, 7))  # type: ignore[arg-type]


def test_all_together_have_a_bound(client: StrategyClient, store: redis.Redis) -> None:
    """What is over it is refused and says when to come again; room that is given back is used again."""
    noise = [random.Random(number).randbytes(500).hex() for number in range(4)]
    with StrategyClient(client.settings.model_copy(update={"max_dataset_bytes": 2000})) as bounded:
        first, second = (bounded.datasets.put(one) for one in noise[:2])
        with pytest.raises(DatasetsFull, match=r"2,000 bytes \(STRATBOX_MAX_DATASET_BYTES\): put it again in") as full:
            bounded.datasets.put(noise[2])
        assert full.value.retry_after > 0
        assert bounded.datasets.put(noise[0]) == first, "what is there asks for no room"
        is_over(store, second)
        bounded.ledger.reconcile()
        third = bounded.datasets.put(noise[2])
        with pytest.raises(InvalidRequest, match="bytes compressed, all data sets together may have 2,000"):
            bounded.datasets.put(noise[0] + noise[1] + noise[2] + noise[3])
    sizes = {one.digest.encode(): int(str(store.strlen(key(one)))) + 512 for one in (first, third)}
    counted = {name: int(size) for name, size in store.hgetall(f"{PREFIX}dataset-bytes").items()}
    assert counted == {**sizes, b"all": sum(sizes.values())}


def test_small_ones_are_counted_with_what_redis_needs_for_them(client: StrategyClient, store: redis.Redis) -> None:
    """The bound is near the memory they take, some 550 bytes each, not a tenth of it."""
    client.datasets.put([-1])
    before = int(store.info("memory")["used_memory_dataset"])
    settings = client.settings.model_copy(update={"max_dataset_bytes": 200_000})
    with StrategyClient(settings) as bounded, pytest.raises(DatasetsFull):
        [bounded.datasets.put([number]) for number in range(2000)]
    assert 300 < int(str(store.zcard(f"{PREFIX}datasets"))) < 400
    assert int(store.info("memory")["used_memory_dataset"]) - before < 250_000


def test_data_sets_leave_memory_for_submissions(client: StrategyClient, store: redis.Redis) -> None:
    """Where one client puts them until it is refused, every other still submits."""
    limit = 2 * int(store.info("memory")["used_memory"]) + 6_000_000
    store.config_set("maxmemory", limit)
    noise = random.Random(1)
    with pytest.raises(DatasetsFull, match=r"^Redis has no memory left for more data sets: put it again in 30 s"):
        [client.datasets.put(noise.randbytes(100_000).hex()) for _ in range(100)]
    assert 0.4 * limit < int(store.info("memory")["used_memory"]) < 0.6 * limit
    for _ in range(10):
        client.submit("x = 1", noise.randbytes(50_000).hex())


def test_a_full_redis_takes_no_more(client: StrategyClient, store: redis.Redis) -> None:
    """Neither when there is none left nor when only the workers' reserve is; what is there can still be kept."""
    ref = client.datasets.put(DATA)
    used = int(store.info("memory")["used_memory"])
    for limit in (used + 300_000, used - 100_000):
        store.config_set("maxmemory", limit)
        with pytest.raises(DatasetsFull, match=r"^Redis has no memory left for more data sets: put it again") as full:
            client.datasets.put(random.Random(1).randbytes(200_000).hex())
        assert full.value.retry_after == DATASETS_PAUSE_SECONDS
        assert client.datasets.put(DATA) == ref


# How long it is kept.


def test_it_is_kept_while_a_submission_has_not_ended(
    client: StrategyClient, store: redis.Redis, ref: DatasetRef
) -> None:
    """Queued, running, tried again: whatever its own time says; then it goes with the last of them."""
    one, two = client.submit("x = 1", ref), client.submit("x = 2", ref, params={"fast": 1})
    for _ in range(2):
        is_over(store, ref)
        client.ledger.reconcile()
    assert client.datasets.read(ref.digest)
    begun = client.ledger.begin(one.id, "1", {})
    meta = json.dumps({"status": "RETRY", "result": {"exc_type": "E", "exc_message": "", "exc_module": "m"}})
    client.ledger.record(one.id, "RETRY", meta, fence=begun.fence, pause_seconds=0)
    is_over(store, ref)
    client.ledger.reconcile()
    assert store.ttl(key(ref)) == -1
    end(client, one.id)
    assert client.datasets.read(ref.digest)
    is_over(store, ref)
    assert two.cancel()
    with pytest.raises(UnknownDataset):
        client.datasets.read(ref.digest)
    client.ledger.reconcile()
    nothing_is_left(store)


def test_it_expires_by_redis_clock_and_not_before(client: StrategyClient, store: redis.Redis) -> None:
    """With two seconds to live it is gone by then, unless somebody waits with it: then when he has ended."""
    with StrategyClient(client.settings.model_copy(update={"dataset_expires_seconds": 1})) as brief:
        lonely, held = brief.datasets.put([1]), brief.datasets.put([2])
        waits = brief.submit("x = 1", held)
        until(lambda: not store.exists(key(lonely)), seconds=4)
        time.sleep(1)
        assert store.exists(key(held))
        waits.cancel()
        until(lambda: not store.exists(key(held)), seconds=4)
        brief.ledger.reconcile()
    nothing_is_left(store)


def test_a_submission_keeps_it_for_another_day(client: StrategyClient, store: redis.Redis, ref: DatasetRef) -> None:
    """A sweep may last longer than that, and need not put it again."""
    store.zadd(f"{PREFIX}datasets", {ref.digest: time.time() + 100})
    end(client, client.submit("x = 1", ref).id)
    assert DAY - 10 < int(str(store.ttl(key(ref)))) <= DAY + 1


def test_the_dead_keep_it_for_a_week(client: StrategyClient, store: redis.Redis, ref: DatasetRef) -> None:
    """As long as they can be put into the queue again; then they hold it as any other does."""
    task_id = client.submit("x = 1", ref).id
    end(client, task_id, "FAILURE")
    assert WEEK - 10 < int(str(store.ttl(key(ref)))) <= WEEK + 1
    end(client, client.submit("x = 2", ref).id)
    assert WEEK - 10 < int(str(store.ttl(key(ref)))) <= WEEK + 1, "another's end does not shorten it"
    assert client.ledger.requeue(task_id)
    assert store.smembers(f"{PREFIX}references:{ref}") == {task_id.encode()}
    assert store.ttl(key(ref)) == -1


def test_the_dead_are_not_queued_without_it(client: StrategyClient, store: redis.Redis, ref: DatasetRef) -> None:
    """Somebody has removed it: they stay dead, and can be queued when it is there again."""
    task_id = client.submit("x = 1", ref).id
    end(client, task_id, "FAILURE")
    store.delete(key(ref))
    with pytest.raises(UnknownDataset, match="put it again"):
        client.ledger.requeue(task_id)
    assert [dead.id for dead in client.ledger.dead()] == [task_id]
    assert store.keys(f"{PREFIX}references:*") == []
    client.datasets.put(DATA)
    assert client.ledger.requeue(task_id)


def test_without_it_nothing_is_accepted(client: StrategyClient, store: redis.Redis) -> None:
    """One clear line, and no trace; unless the submission is known already."""
    digest = "0" * 64
    with pytest.raises(UnknownDataset, match=r"^dataset: 000000000000… is not in Redis, or not any more: put it again"):
        client.submit("x = 1", DatasetRef(digest, 7))
    assert store.dbsize() == 0
    ref = client.datasets.put(DATA)
    first = client.submit("x = 1", ref, key="daily")
    store.delete(key(ref))
    assert client.submit("x = 1", ref, key="daily").id == first.id


def test_what_is_removed_by_hand_can_be_put_again(client: StrategyClient, store: redis.Redis, ref: DatasetRef) -> None:
    """It is counted once, and kept for those who referred to it before."""
    before = client.submit("x = 1", ref)
    counted = store.hgetall(f"{PREFIX}dataset-bytes")
    store.delete(key(ref))
    assert client.datasets.put(DATA) == ref
    assert store.hgetall(f"{PREFIX}dataset-bytes") == counted
    assert store.ttl(key(ref)) == -1
    end(client, before.id)
    assert int(str(store.ttl(key(ref)))) > 0


def test_who_is_removed_by_hand_holds_it_no_more(client: StrategyClient, store: redis.Redis, ref: DatasetRef) -> None:
    """An operator deleted the records of submissions: the workers' rounds notice."""
    doomed = [client.submit("x = 1", ref).id for _ in range(15)]
    store.delete(*(f"{PREFIX}task:{task_id}" for task_id in doomed))
    for _ in range(3):
        is_over(store, ref)
        client.ledger.reconcile()
    nothing_is_left(store)


# What strategies make of it.


@pytest.fixture(scope="module")
def worker_process(redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Two pool processes whose sandboxes serve a user's strategies one after the other."""
    with private_worker(redis_url, STRATBOX_SANDBOX_MAX_RUNS_PER_CONTAINER="10000") as process:
        yield process


def shown(client: StrategyClient, data: Any, **options: Any) -> str:
    """Return the data file as a strategy reads it."""
    result = client.submit(SHOW, data, user_id="one", **options).result(timeout=30)
    assert result.success, result.error
    return result.output.removesuffix("\n")


@pytest.mark.usefixtures("worker_process")
@pytest.mark.parametrize("data", [DATA, {"params": {"slow": 9}, "symbol": "x"}, {}])
@pytest.mark.parametrize("params", [None, {}, {"fast": 5, "names": ["é"]}])
def test_the_data_file_is_that_of_inline_data(client: StrategyClient, data: Any, params: dict[str, Any] | None) -> None:
    """To the byte, with and without parameters."""
    by_reference = shown(client, client.datasets.put(data), params=params)
    assert by_reference == shown(client, data, params=params)
    assert json.loads(by_reference) == data | ({} if params is None else {"params": params})


@pytest.mark.usefixtures("worker_process")
def test_plain_celery_producer(client: StrategyClient, redis_url: str) -> None:
    """It names the data set by its hash; the ledger holds it for that, too."""
    ref = client.datasets.put(DATA)
    plain = Celery(broker=redis_url, backend=redis_url, set_as_current=False)
    try:
        fields = {"code": SHOW, "dataset": ref.digest, "params": {"fast": 5}}
        result = plain.send_task("STRATEGY_EXECUTION", kwargs=fields).get(timeout=30)
        assert json.loads(result["output"]) == {**DATA, "params": {"fast": 5}}
        missing = plain.send_task("STRATEGY_EXECUTION", kwargs={**fields, "dataset": "0" * 64}).get(timeout=30)
        assert (missing["status"], missing["error"]["type"]) == ("rejected", "InvalidRequest")
        assert "put it again" in missing["error"]["message"]
    finally:
        plain.close()
        plain.backend.result_consumer.stop()


@pytest.mark.usefixtures("worker_process")
@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (None, "is not in Redis, or not any more: put it again"),
        (bz2.compress(b'{"other": 1}'), "is not what was put"),
        (bz2.compress(bytes(512 * 2**20)), "is not what was put"),
        (b"no bzip2", "is not what was put"),
        (bytes(20 * 2**20), "is not what was put"),
    ],
    ids=["removed", "wrong", "bomb", "garbage", "long"],
)
def test_what_is_not_what_was_put_is_rejected(
    client: StrategyClient, redis_url: str, stored: bytes, reason: str
) -> None:
    """Removed or replaced between acceptance and run: one line says so, no container is spent, the worker goes on."""
    ref = client.datasets.put({"this": time.time_ns()})
    busy = [client.submit("import time\ntime.sleep(1)", user_id="one") for _ in range(2)]
    until(lambda: all(one.status() is not SubmissionState.QUEUED for one in busy))
    waits = client.submit(SHOW, ref)
    with redis.Redis.from_url(redis_url) as direct:
        if stored is None:
            direct.delete(key(ref))
        else:
            direct.set(key(ref), stored)
    result = waits.result(timeout=30)
    assert result.status is ExecutionStatus.REJECTED
    assert reason in str(result.error)
    assert "\n" not in str(result.error)
    assert shown(client, client.datasets.put(DATA)) == json.dumps(DATA, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.usefixtures("worker_process")
def test_parameters_need_an_object(client: StrategyClient) -> None:
    """What is in the data set only the worker sees."""
    result = client.submit(SHOW, client.datasets.put([1, 2]), params={"fast": 5}).result(timeout=30)
    assert result.status is ExecutionStatus.REJECTED
    assert "params: they become a key of the data, so the data must be an object" in str(result.error)


def market(size_bytes: int) -> dict[str, Any]:
    """Return prices in cents, so many bytes as JSON and few more: random steps of a percent about a mean."""
    chance = random.Random(7)
    close, written = [100.0], 0
    while written < size_bytes:
        close.append(round(close[-1] * (1 + chance.gauss(0, 0.01)) + (150 - close[-1]) * 0.01, 2))
        written += len(f"{close[-1]},")
    return {"close": close}


@pytest.mark.usefixtures("worker_process")
def test_many_submissions_move_the_data_once(client: StrategyClient, redis_url: str) -> None:
    """Of SUBMISSIONS=1000 over 8 MiB all that Redis sends and receives, each message included, is below twice the data.

    By default they are fewer, and what each of them costs counts a thousand times. --log-cli-level=INFO shows figures.
    """
    count = int(os.environ.get("SUBMISSIONS", "60"))
    data = market(8 * 2**20)
    code = "print(open('/workspace/data.json').read(40).partition('}')[0])"
    with redis.Redis.from_url(redis_url) as direct:
        before = traffic(direct)
        ref = client.datasets.put(data)
        first = client.submit(code, ref, params={"number": -1}, user_id="one").result(timeout=60)
        assert first.success, first.error
        once = traffic(direct) - before
        points: Any = ({"number": number} for number in range(count))
        started = time.monotonic()
        found = list(client.sweep(code, ref, points, user_id="one", patience=60))
        seconds = time.monotonic() - started
        each = (traffic(direct) - before - once) / count
    assert {point.result.output for point in found} == {f'{{"params":{{"number":{n}\n' for n in range(count)}
    log.info("%d in %.1f s; of %d bytes: %d once, %d each", count, seconds, ref.size_bytes, once, each)
    assert 8 * 2**20 <= ref.size_bytes < 8 * 2**20 + 100
    assert once + each * max(count, 1000) <= 2 * ref.size_bytes


# The files of a worker.


def folder_of(process: subprocess.Popen[bytes]) -> Path:
    """Return the one folder that a worker's processes share, which it holds open."""
    held = {descriptor.readlink() for descriptor in Path(f"/proc/{process.pid}/fd").iterdir()}
    (found,) = held & set(Path(tempfile.gettempdir()).glob(f"{FOLDER.prefix}*"))
    return found


def reaper_of(process: subprocess.Popen[bytes]) -> int:
    """Return the process that leaves last."""
    children = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    (found,) = (pid for pid in children if b"worker.reaper" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


def test_a_killed_worker_leaves_no_files() -> None:
    """Its reaper removes them; where that is killed, too, the next worker does."""
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        ref = client.datasets.put(DATA)

        def run_and_kill(*, reaper: bool) -> Path:
            with private_worker(url, concurrency=1) as process:
                folder = folder_of(process)
                client.submit("import os", ref).result(timeout=30)  # the policy refuses it: no container is spent
                assert (folder / ref.digest).is_file()
                if reaper:
                    os.kill(reaper_of(process), signal.SIGKILL)
                process.kill()
                process.wait(30)
                return folder

        first = run_and_kill(reaper=True)
        assert first.is_dir(), "nobody is there who could"
        second = run_and_kill(reaper=False)
        assert not first.exists()
        until(lambda: not second.exists(), seconds=10)
