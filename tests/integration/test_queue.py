"""The queue: a real Redis, a real worker as a subprocess, real containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from celery import Celery
from local import private_redis, private_worker, stop
from redis.asyncio.client import PubSub

from tasks import ExecutionRequest, ExecutionStatus, Settings, StrategyClient, SubmissionState
from tasks.errors import BrokerUnavailable, ExecutionLost, InvalidRequest, ResultTimeout, UnknownSubmission
from tests.waiting import until
from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    import docker

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LOOP = "print('begun')\nwhile True:\n    pass"

pytestmark = pytest.mark.usefixtures("worker_process")


def own_containers(client: docker.DockerClient, process: subprocess.Popen[bytes]) -> set[str]:
    """Return the ids of the sandboxes of a worker's pool processes."""
    children = {int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}
    found = client.api.containers(all=True, filters={"label": OWNER_LABEL})
    return {one["Id"] for one in found if Owner.parse(one["Labels"][OWNER_LABEL]).pid in children}


def test_submit_and_result(client: StrategyClient) -> None:
    """A submission goes through its states and its result comes back with metrics."""
    submission = client.submit("print('hello')", {"price": 1}, timeout=10, user_id="tenant")
    result = submission.result(timeout=30)
    assert result.success, result.error
    assert result.output == "hello\n"
    assert submission.status() is ExecutionStatus.SUCCEEDED
    assert result.metrics.queue_seconds is not None
    assert 0 <= result.metrics.queue_seconds < 20
    assert client.submission(submission.id).result(timeout=0) == result


async def test_awaiting_submissions(client: StrategyClient) -> None:
    """Submissions can be awaited, many at once, on one event loop."""
    submissions = [await client.submit_async(f"print({number})") for number in range(6)]
    results = await asyncio.gather(*submissions)
    assert [result.output for result in results] == [f"{number}\n" for number in range(6)]


@pytest.mark.parametrize(
    ("waiting", "kind", "method"),
    [("one", PubSub, "subscribe"), ("many", PubSub, "subscribe"), ("reach", redis.asyncio.Redis, "ping")],
)
async def test_a_cancel_that_nobody_told_ends_a_wait(
    client: StrategyClient, monkeypatch: pytest.MonkeyPatch, waiting: str, kind: type, method: str
) -> None:
    """As `asyncio.wait_for` of Python 3.11 drops it, where it comes in the moment in which something was sent."""
    told = getattr(kind, method)
    dropped: list[asyncio.Task[Any] | None] = []

    async def dropping(*arguments: Any) -> None:
        await told(*arguments)
        current = asyncio.current_task()
        assert current
        dropped.append(current)
        current.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    monkeypatch.setattr(kind, method, dropping)
    submission = await client.submit_async("import time\ntime.sleep(20)")

    async def wait() -> None:
        if waiting == "reach":
            await client.reach()
        elif waiting == "one":
            await submission
        else:
            async with client.watch_async() as watch:
                await watch.add(submission.id)
                await watch.next(20)

    began = time.monotonic()
    task = asyncio.ensure_future(wait())
    await asyncio.wait([task])
    assert task.cancelled()
    assert dropped == [task]
    assert time.monotonic() - began < 10
    assert await asyncio.to_thread(submission.cancel)


async def test_map_async_keeps_the_order(client: StrategyClient) -> None:
    """Results come in the order of the requests, whatever ended first."""
    requests = (ExecutionRequest(code=f"import time\ntime.sleep({0.4 - n / 10})\nprint({n})") for n in range(4))
    outputs = [result.output async for result in client.map_async(requests, in_flight=3, timeout=30)]
    assert outputs == ["0\n", "1\n", "2\n", "3\n"]


def test_many_submissions_come_back_in_order(client: StrategyClient) -> None:
    """Runs of the RSI example, each on another window, all right and in the order of the input."""
    count = int(os.environ.get("SUBMISSIONS", "30"))
    code = (EXAMPLES / "rsi_mean_reversion.py").read_text()
    market = json.loads((EXAMPLES / "data" / "sp500.json").read_text())

    def window(bars: int) -> ExecutionRequest:
        return ExecutionRequest(
            code=code, data={**market, "bars": {name: column[:bars] for name, column in market["bars"].items()}}
        )

    sizes = [250 + number for number in range(count)]
    results = list(client.map((window(bars) for bars in sizes), in_flight=50, timeout=100))
    assert [result.status for result in results] == ["succeeded"] * count
    assert [result.json()["bars"] for result in results] == sizes
    assert all(len(result.json()["equity"]) == bars for result, bars in zip(results, sizes, strict=True))


def test_plain_celery_producer(redis_url: str) -> None:
    """A producer with none of our code sends by name, on Celery's default queue, and reads a plain result."""
    plain = Celery(broker=redis_url, backend=redis_url, set_as_current=False)
    try:
        code = "import json\nprint(json.load(open('/workspace/data.json'))['price'])"
        sent = plain.send_task("STRATEGY_EXECUTION", kwargs={"code": code, "data": {"price": 7}})
        result = sent.get(timeout=30)
        assert (result["status"], result["output"]) == ("succeeded", "7\n")
        assert result["metrics"]["queue_seconds"] is None
    finally:
        plain.close()
        plain.backend.result_consumer.stop()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "code"),
        ({"code": "print(1)", "timeout": 61}, "timeout"),
        ({"code": "print(1)", "timeout": "soon"}, "timeout"),
        ({"code": "print(1)", "memory": 1}, "memory"),
        ({"code": "x" * (256 * 1024 + 1)}, "code"),
        ({"code": "print(1)", "data": [float("nan")]}, "data"),
        ({"code": 7}, "code"),
    ],
)
def test_worker_refuses_malformed_requests(redis_url: str, fields: dict[str, object], named: str) -> None:
    """What a careless producer sends is refused by the worker, naming the field, without a traceback or a retry."""
    plain = Celery(broker=redis_url, backend=redis_url, set_as_current=False)
    try:
        result = plain.send_task("STRATEGY_EXECUTION", kwargs=fields).get(timeout=30)
        assert result["status"] == "rejected"
        assert named in result["error"]["message"]
    finally:
        plain.close()
        plain.backend.result_consumer.stop()


def test_producer_refuses_before_redis(client: StrategyClient, redis_url: str) -> None:
    """Oversized and malformed requests raise at once and leave nothing in Redis."""
    del redis_url
    for wrong in ({"code": "x" * 300_000}, {"code": "1", "timeout": 0}, {"code": "1", "data": "x" * 17_000_000}):
        with pytest.raises(InvalidRequest, match=max(wrong)):
            client.submit(**wrong)
    with pytest.raises(InvalidRequest, match="priority"):
        client.submit("print(1)", priority=10)


def test_policy_rejection_carries_violations(client: StrategyClient) -> None:
    """The worker checks again, and the violations come back whole."""
    result = client.submit("import os\nos.system('id')").result(timeout=30)
    assert result.status is ExecutionStatus.REJECTED
    assert result.violations[0].rule == "R2"
    assert result.violations[0].hint


def test_cancel_ends_a_running_container(
    client: StrategyClient, docker_client: docker.DockerClient, worker_process: subprocess.Popen[bytes]
) -> None:
    """Cancel ends a running strategy within 2 s, keeps its output, and its container is gone soon after."""
    submission = client.submit(LOOP, timeout=60)
    until(lambda: submission.status() is SubmissionState.RUNNING)
    time.sleep(1)
    children = Path(f"/proc/{worker_process.pid}/task/{worker_process.pid}/children").read_text()
    during = own_containers(docker_client, worker_process)  # those that are kept ready among them
    started = time.monotonic()
    assert submission.cancel()
    result = submission.result(timeout=2)
    assert time.monotonic() - started < 2
    assert result.status is ExecutionStatus.CANCELLED
    assert result.output == "begun\n"
    assert not submission.cancel(), "it has ended already"
    until(lambda: bool(during - own_containers(docker_client, worker_process)))
    assert Path(f"/proc/{worker_process.pid}/task/{worker_process.pid}/children").read_text() == children


def test_cancel_while_queued(client: StrategyClient) -> None:
    """A submission cancelled in the queue has its verdict at once and never runs."""
    blockers = [client.submit(LOOP, timeout=5) for _ in range(2)]
    waiting = client.submit("print('ran')", priority=9)
    assert waiting.status() is SubmissionState.QUEUED
    assert waiting.cancel()
    assert waiting.result(timeout=0).status is ExecutionStatus.CANCELLED
    assert [blocker.result(timeout=30).status for blocker in blockers] == ["timed_out", "timed_out"]
    assert client.submit("print(1)").result(timeout=30).success
    assert waiting.result(timeout=0).output == ""


def test_cancel_outlives_the_worker_that_heard_it() -> None:
    """Cancelled between two tries, with its worker gone before the next: no later worker runs it."""
    no_engine = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "STRATBOX_ENGINE_PATIENCE_SECONDS": "0.5"}
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        with private_worker(url, concurrency=1, **no_engine):
            submission = client.submit("print('I ran')")
            until(lambda: submission.status() is SubmissionState.RETRYING)
        assert submission.cancel()
        assert submission.status() is ExecutionStatus.CANCELLED
        with private_worker(url, concurrency=1):
            assert client.submit("import time\ntime.sleep(5)").result(timeout=30).success
        assert submission.result(timeout=0).status is ExecutionStatus.CANCELLED
        assert submission.result(timeout=0).output == ""


def test_cancelled_while_running_is_not_run_again() -> None:
    """A message that comes again after its running task was cancelled, and its worker lost, ends as cancelled."""
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        submission = client.submit("print('again')")
        client.ledger.begin(submission.id, "attempt", {})  # by a worker that is never heard of again, long ago
        client._app.backend.client.zadd("stratbox:celery:started", {submission.id: 1.0}, xx=True)
        assert submission.cancel()
        assert submission.status() is SubmissionState.RUNNING
        with private_worker(url, concurrency=1):
            result = submission.result(timeout=30)
        assert (result.status, result.output) == (ExecutionStatus.CANCELLED, "")


def test_priority_goes_first(client: StrategyClient) -> None:
    """With both processes busy, what has priority 0 overtakes what has 9."""
    blockers = [client.submit(LOOP, timeout=2) for _ in range(4)]
    late = [client.submit("print(1)", priority=9) for _ in range(3)]
    early = client.submit("print(1)", priority=0)
    waits = [submission.result(timeout=60).metrics.queue_seconds or 0 for submission in (early, *late)]
    assert waits[0] < min(waits[1:])
    assert all(blocker.result(timeout=60).status == "timed_out" for blocker in blockers)


def test_unknown_id_and_impatience(client: StrategyClient) -> None:
    """An unknown id is an error, not an endless wait; impatience is a ResultTimeout and changes nothing."""
    with pytest.raises(UnknownSubmission, match="check the id"):
        client.submission(str(uuid.uuid4())).status()
    submission = client.submit("import time\ntime.sleep(1.5)\nprint('done')")
    with pytest.raises(ResultTimeout):
        submission.result(timeout=0.2)
    assert submission.result(timeout=30).output == "done\n"


def test_abandoned_map_cancels_the_rest(client: StrategyClient) -> None:
    """Whoever stops iterating leaves nothing running."""
    results = client.map((ExecutionRequest(code=code) for code in ["print(1)", *[LOOP] * 3]), in_flight=4)
    assert next(results).output == "1\n"
    results.close()  # type: ignore[attr-defined]  # a generator
    started = time.monotonic()
    assert client.submit("print(2)").result(timeout=30).success
    assert time.monotonic() - started < 20, "the loops would hold both processes for 60 s"


def test_no_redis_is_one_clear_error() -> None:
    """Without Redis, a submission fails soon and says what to do."""
    with StrategyClient(Settings(redis_url="redis://127.0.0.1:1/0")) as client:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="STRATBOX_REDIS_URL"):
            client.submit("print(1)")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("delay", [0.0, 0.04, 1.5])
def test_kill_9_of_a_worker_leaves_no_container(docker_client: docker.DockerClient, delay: float) -> None:
    """A worker killed in the middle of a run, and of making the next sandbox, leaves nothing behind 5 s later."""
    with private_redis() as url, private_worker(url) as process, StrategyClient(Settings(redis_url=url)) as client:
        until(lambda: len(own_containers(docker_client, process)) == 2)
        children = {int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}
        running = client.submit(LOOP, timeout=60)
        until(lambda: running.status() is SubmissionState.RUNNING)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait(5)

        def left() -> list[str]:
            found = docker_client.api.containers(all=True, filters={"label": OWNER_LABEL})
            return [one["Id"] for one in found if Owner.parse(one["Labels"][OWNER_LABEL]).pid in children]

        until(lambda: not left(), seconds=5)
        time.sleep(0.5)
        assert not left(), "nothing came up after the kill"


def test_sigterm_finishes_what_runs() -> None:
    """A worker told to stop finishes its strategy first and leaves no container."""
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        with private_worker(url) as process:
            submission = client.submit("import time\ntime.sleep(3)\nprint('finished')")
            until(lambda: submission.status() is SubmissionState.RUNNING)
            stop(process)
            assert process.returncode == 0
        assert submission.result(timeout=0).output == "finished\n"


def test_engine_away_is_retried_then_lost() -> None:
    """Without an engine the task is tried as often as is set, and then ends as lost, saying why."""
    environment = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "STRATBOX_ENGINE_PATIENCE_SECONDS": "0.5"}
    environment |= {"STRATBOX_TRIES": "3", "STRATBOX_RETRY_SECONDS": "2"}
    with (
        private_redis() as url,
        private_worker(url, concurrency=1, **environment),
        StrategyClient(Settings(redis_url=url)) as client,
    ):
        submission = client.submit("print(1)")
        until(lambda: submission.status() is SubmissionState.RETRYING)
        with pytest.raises(ExecutionLost, match="no container engine"):
            submission.result(timeout=40)
        assert submission.status() is SubmissionState.LOST


def test_killed_pool_process_does_not_lose_its_task(client: StrategyClient, worker_process: object) -> None:
    """When a pool process is killed in the middle of a run, the task runs again in another."""
    assert isinstance(worker_process, subprocess.Popen)
    children = Path(f"/proc/{worker_process.pid}/task/{worker_process.pid}/children")
    submissions = [client.submit("import time\ntime.sleep(3)\nprint('done')") for _ in range(2)]
    until(lambda: all(one.status() is SubmissionState.RUNNING for one in submissions))
    victim = client.meta(submissions[0].id)["result"]["pid"]
    assert str(victim) in children.read_text().split()
    os.kill(victim, signal.SIGKILL)
    assert [one.result(timeout=60).output for one in submissions] == ["done\n", "done\n"]
