"""Sweeps: through a real Redis and a real worker, in the client and on the command line."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from local import private_redis, private_worker

from tasks import ExecutionStatus, Settings, StrategyClient, SubmissionState
from tasks.app import create_app
from tasks.errors import BrokerUnavailable, ExecutionLost, ResultTimeout, UnknownDataset
from tasks.watch import SILENCE_SECONDS
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks import SweepPoint
    from tasks.app import StratboxApp

ROOT = Path(__file__).resolve().parents[2]
STRATBOX = str(Path(sys.executable).with_name("stratbox"))
STRATEGY, MARKET = ROOT / "examples/crossover_parameters.py", ROOT / "examples/data/sp500.json"
PREFIX = "stratbox:celery:"
#: Sleeps as long as its point says, and prints its number.
SLEEP = """
import json, time
params = json.load(open("/workspace/data.json"))["params"]
time.sleep(params["seconds"])
print(json.dumps({"n": params["n"]}))
"""


@pytest.fixture(scope="module", autouse=True)
def worker_process(redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Two pool processes whose sandboxes serve a user's strategies one after the other."""
    with private_worker(redis_url, STRATBOX_SANDBOX_MAX_RUNS_PER_CONTAINER="10000") as process:
        yield process


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """The module's Redis, asked directly."""
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def nothing_runs(store: redis.Redis) -> bool:
    """Whether no submission is unfinished, and nobody holds a data set."""
    return not store.exists(f"{PREFIX}waiting", f"{PREFIX}started") and not store.keys(f"{PREFIX}references:*")


def points(count: int, seconds: float = 0.0) -> list[dict[str, Any]]:
    """Return so many points."""
    return [{"n": number, "seconds": seconds} for number in range(count)]


def swept(found: list[SweepPoint]) -> list[int]:
    """Return the numbers of points that all succeeded, in the order they came."""
    assert all(point.result.json()["n"] == point.params["n"] for point in found)
    return [int(str(point.params["n"])) for point in found]


def test_points_come_as_they_end(client: StrategyClient) -> None:
    """The slow one, submitted first, comes last; and nobody waited for it to have the others."""
    slow, *others = points(6)
    started, came = time.monotonic(), []
    for point in client.sweep(SLEEP, {"x": 1}, [{**slow, "seconds": 5}, *others], user_id="one"):
        came.append((point, time.monotonic() - started))  # noqa: PERF401  # when it came
    assert swept([point for point, _ in came])[-1] == 0
    assert sorted(swept([point for point, _ in came])) == list(range(6))
    assert came[-2][1] < 4.9 < came[-1][1]


def test_data_are_put_once_and_held_by_what_is_in_flight(client: StrategyClient, store: redis.Redis) -> None:
    """Sixty points over one data set, twenty in flight; afterwards nobody holds it."""
    held = set()
    for point in client.sweep(SLEEP, {"bars": list(range(1000))}, points(60), user_id="one", in_flight=20):
        assert point.result.success
        held.add(max([int(str(store.scard(name))) for name in store.keys(f"{PREFIX}references:*")], default=0))
    assert 1 < max(held) <= 20
    until(lambda: nothing_runs(store))


def test_one_subscription_serves_all(client: StrategyClient, store: redis.Redis) -> None:
    """One connection, one channel for each that is in flight, none for what has ended."""
    before = store.info("stats")["total_connections_received"]
    channels: list[int] = []
    for _ in client.sweep(SLEEP, {"x": 1}, points(12, 0.1), user_id="one", in_flight=4):
        channels.append(len(store.pubsub_channels("celery-task-meta-*")))  # noqa: PERF401  # while it goes on
    assert 0 < max(channels) <= 4
    assert store.info("stats")["total_connections_received"] - before < 4
    until(lambda: not store.pubsub_channels("celery-task-meta-*"))


@pytest.mark.parametrize("stop", ["close", "error"])
def test_stopping_early_cancels_what_is_in_flight(client: StrategyClient, store: redis.Redis, stop: str) -> None:
    """Running and waiting: within a second nothing of it is left."""
    sweep = client.sweep(SLEEP, {"x": 1}, [{"n": 0, "seconds": 0}, *points(9, 30)], user_id="one")
    assert next(sweep).params["n"] == 0
    if stop == "close":
        sweep.close()
    else:
        with pytest.raises(KeyError):
            sweep.throw(KeyError("of the caller"))
    until(lambda: nothing_runs(store), seconds=5)


def test_lost_notifications_are_made_good(client: StrategyClient, store: redis.Redis) -> None:
    """Redis cuts off every subscriber again and again: all points come, each once."""
    found = []
    for point in client.sweep(SLEEP, {"x": 1}, points(16, 0.15), user_id="one", in_flight=4):
        found.append(point)
        if len(found) % 4 == 0:
            store.client_kill_filter(_type="pubsub", skipme=True)
    assert sorted(swept(found)) == list(range(16))


def test_where_there_is_no_room_it_waits(redis_url: str) -> None:
    """Two have room; nine points come."""
    with StrategyClient(Settings(redis_url=redis_url, max_queued=2)) as client:
        assert sorted(swept(list(client.sweep(SLEEP, {"x": 1}, points(9), user_id="one")))) == list(range(9))


def test_points_fail_each_for_itself(client: StrategyClient) -> None:
    """One raises, one is too late, one succeeds: the results say so."""
    code = (
        "import json\nn = json.load(open('/workspace/data.json'))['params']['n']\nwhile n == 1:\n    pass\nprint(1 / n)"
    )
    found = {point.params["n"]: point.result for point in client.sweep(code, None, points(3), timeout=1, user_id="one")}
    assert [found[n].status for n in range(3)] == ["failed", "timed_out", "succeeded"]


def test_impatience_and_a_data_set_that_is_not_there(client: StrategyClient, store: redis.Redis) -> None:
    """Each ends the sweep with its own error, and cancels the rest."""
    with pytest.raises(ResultTimeout, match="none of 2 submissions has ended"):
        list(client.sweep(SLEEP, {"x": 1}, points(2, 30), user_id="one", patience=0.5))
    ref = client.datasets.put({"y": 1})
    store.delete(f"{PREFIX}dataset:{ref}")
    with pytest.raises(UnknownDataset):
        list(client.sweep(SLEEP, ref, points(2), user_id="one"))
    until(lambda: nothing_runs(store), seconds=5)


async def test_sweep_async_beside_others(client: StrategyClient, store: redis.Redis) -> None:
    """Two at once on one event loop, which goes on meanwhile; one that is cancelled leaves nothing."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def run(count: int, seconds: float = 0.05) -> list[int]:
        sweep = client.sweep_async(SLEEP, {"x": count}, points(count, seconds), user_id="one", in_flight=4)
        return swept([point async for point in sweep])

    ticking = asyncio.create_task(tick())
    five, nine = await asyncio.gather(run(5), run(9))
    assert (sorted(five), sorted(nine)) == (list(range(5)), list(range(9)))
    assert ticks > 5
    ticking.cancel()
    doomed = asyncio.create_task(run(9, 30))
    await asyncio.sleep(1)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    until(lambda: nothing_runs(store), seconds=5)


def test_a_silent_redis_is_looked_at_again(client: StrategyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended while nothing was told is found by the look."""
    with client.watch() as watch:
        submission = client.submit("print(1)", user_id="one")
        monkeypatch.setattr(watch, "_heard", lambda _: [])
        watch.add(submission.id)
        started = time.monotonic()
        ended = watch.next(20)
        assert ended
        assert ended[0] == submission.id
        assert time.monotonic() - started < SILENCE_SECONDS + 6
        assert watch.next(0) is None


def test_one_whose_record_is_gone_is_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis lost it, as in a failover: its point is told as lost, and the other goes on."""
    monkeypatch.setattr("tasks.watch.SILENCE_SECONDS", 0.2)
    with private_redis() as url, redis.Redis.from_url(url) as store, StrategyClient(Settings(redis_url=url)) as client:

        def chosen() -> Iterator[dict[str, Any]]:
            yield {"n": 0}
            store.delete(*store.keys("celery-task-meta-*"))
            yield {"n": 1}

        sweep = client.sweep(SLEEP, None, chosen(), patience=10)
        lost = next(sweep)
        assert lost.params == {"n": 0}
        assert isinstance(lost.outcome, ExecutionLost)
        (other,) = (name.decode().removeprefix("celery-task-meta-") for name in store.keys("celery-task-meta-*"))
        assert client.submission(other).status() is SubmissionState.QUEUED
        sweep.close()
        assert client.submission(other).status() is ExecutionStatus.CANCELLED


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_redis_that_falls_silent_ends_it_soon(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """After a timeout, and those of one cancellation: not of each that is in flight."""

    def impatient(settings: Settings) -> StratboxApp:
        app = create_app(settings)
        app.conf.redis_socket_timeout = 1
        return app

    monkeypatch.setattr("tasks.client.create_app", impatient)
    with private_redis() as url, redis.Redis.from_url(url) as store, StrategyClient(Settings(redis_url=url)) as client:
        server = int(store.info("server")["process_id"])

        def chosen() -> Iterator[dict[str, Any]]:
            yield from points(20)
            os.kill(server, signal.SIGSTOP)

        async def run() -> None:
            if kind == "sync":
                list(client.sweep(SLEEP, None, chosen()))
            else:
                [point async for point in client.sweep_async(SLEEP, None, chosen())]

        started = time.monotonic()
        try:
            with pytest.raises(BrokerUnavailable):
                await run()
        finally:
            os.kill(server, signal.SIGCONT)
        assert time.monotonic() - started < 15


# The command.


def stratbox(redis_url: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it printed."""
    env = os.environ | {"COLUMNS": "80", "STRATBOX_REDIS_URL": redis_url}
    command = [STRATBOX, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_example_on_the_command_line(redis_url: str, tmp_path: Path) -> None:
    """A table with the best first, failed points by status, all of them in the files, and a picture."""
    files = {name: tmp_path / f"all.{name}" for name in ("csv", "json", "png")}
    done = stratbox(
        redis_url, "sweep", STRATEGY, "--data", MARKET, "--grid", "fast=10:50:20", "--grid", "slow=50,200",
        "--user", "one", "--top", "2", "--csv", files["csv"], "--json", files["json"], "--heatmap", files["png"],
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    head, _, first, second = done.stdout.splitlines()
    assert head.split()[:3] == ["fast", "slow", "sharpe"]
    assert first.split()[:3] == ["50", "200", "0.5621"], "as examples/README.md has it for the other crossover"
    assert float(second.split()[2]) <= 0.5621
    failed, told = done.stderr.splitlines()
    assert failed == "failed fast=50 slow=50: ValueError: fast (50) must be below slow (50) (line 51)"
    assert told == "6 points: 5 succeeded, 1 failed; best sharpe 0.5621: fast=50 slow=200"

    found = json.loads(files["json"].read_text())
    assert [one["params"] for one in found] == [
        {"fast": fast, "slow": slow} for fast in (10, 30, 50) for slow in (50, 200)
    ]
    assert [one["status"] for one in found] == ["succeeded"] * 4 + ["failed", "succeeded"]
    assert found[5]["metrics"]["sharpe"] == 0.5621
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [row["sharpe"] for row in rows] == [str(one["metrics"].get("sharpe", "")) for one in found]
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_a_sweep_over_a_data_set(redis_url: str, tmp_path: Path) -> None:
    """By reference, compared by a path, everything well: exit code 0."""
    strategy = tmp_path / "show.py"
    strategy.write_text("import json\nprint(json.dumps({'of': json.load(open('/workspace/data.json'))}))")
    (tmp_path / "data.json").write_text('{"price": 7}')
    ref = stratbox(redis_url, "dataset", "put", tmp_path / "data.json").stdout.strip()
    arguments = ("sweep", strategy, "--dataset", ref, "--grid", "x=0.1:0.3:0.1", "--by", "of.params.x", "--user", "one")
    done = stratbox(redis_url, *arguments)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[2:]] == [["0.3"] * 2, ["0.2"] * 2, ["0.1"] * 2]
    missed = stratbox(redis_url, *arguments[:-4], "--by", "sharpe", "--user", "one")
    assert (missed.returncode, missed.stdout) == (1, "")
    assert missed.stderr.splitlines()[0] == "succeeded x=0.1: printed no number sharpe"


def test_code_that_is_refused_is_exit_code_2(redis_url: str) -> None:
    """Where to mend it is shown once, not for each point."""
    strategy = ROOT / "examples/misbehaving/refused_network.py"
    done = stratbox(redis_url, "sweep", strategy, "--grid", "x=1:9:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count(f"{strategy}:") == 2
    assert "and 4 more" in done.stderr


def test_an_interrupt_keeps_what_there_is(redis_url: str, store: redis.Redis, tmp_path: Path) -> None:
    """Exit code 130: what has ended is shown and written, the rest is cancelled and says so."""
    strategy, written = tmp_path / "wait.py", tmp_path / "all.json"
    strategy.write_text(SLEEP)
    command: list[str | Path] = [STRATBOX, "sweep", strategy, "--by", "n", "--user", "one"]
    command += ["--grid", "n=1:6:1", "--grid", "seconds=0,50", "--json", written]
    env = os.environ | {"COLUMNS": "80", "STRATBOX_REDIS_URL": redis_url}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        # Both pool processes are at a slow one, so a fast one has ended before.
        until(lambda: len(store.zrangebyscore(f"{PREFIX}started", "-inf", time.time() - 1)) == 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    found = json.loads(written.read_text())
    statuses = [one["status"] for one in found]
    assert len(statuses) == 12
    assert set(statuses) == {ExecutionStatus.SUCCEEDED, ExecutionStatus.CANCELLED}
    assert len(out.splitlines()) == 2 + statuses.count("succeeded")
    until(lambda: nothing_runs(store), seconds=5)
