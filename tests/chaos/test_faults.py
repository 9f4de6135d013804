"""Each fault alone: what was accepted has one verdict, the right one, and no live run has a second one beside it.

Those that take longer run with STRATBOX_CHAOS=1 only, as `make chaos` does.
"""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionStatus, Settings, StrategyClient, Submission, SubmissionState
from tasks.errors import ExecutionLost
from tasks.ledger import Ledger
from tests.chaos import audit
from tests.chaos.faults import Fleet, Worker, asleep, cut_connections, redeliver_now
from tests.chaos.servers import Proxy, RedisServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks import ExecutionResult

long = pytest.mark.skipif(os.environ.get("STRATBOX_CHAOS") != "1", reason="takes long: STRATBOX_CHAOS=1")

#: Each run prints another number, so that verdicts of two runs differ.
RUN = "import random\nimport time\ntime.sleep({seconds})\nprint(random.random())"
#: Four times the timeout of a socket: a main process asks on as many, one after the other.
SILENCE_SECONDS = 150
READY_LIST = "celery:9"
RECORD = "stratbox:celery:task:{}"


class Stage:
    """A Redis and a producer; workers come on demand."""

    def __init__(self, server: RedisServer, client: StrategyClient, folder: Path) -> None:
        self.server, self.client, self._folder = server, client, folder
        self.ledger = Ledger(client.settings, client._app.backend.client)

    def fleet(self, name: str = "fleet", *, url: str | None = None, concurrency: int = 2) -> Fleet:
        """Return a fleet of one, not started yet."""
        folder = self._folder / name
        folder.mkdir()
        return Fleet(folder, {"STRATBOX_REDIS_URL": url or self.server.url}, 1, concurrency)

    def run(self, seconds: float = 2.0) -> Submission:
        """Submit something that takes so long, and wait until it runs."""
        submission = self.client.submit(RUN.format(seconds=seconds), timeout=30)
        until(lambda: submission.status() is SubmissionState.RUNNING, what="its start")
        return submission

    def pid(self, submission: Submission) -> int:
        """Return the pool process that runs it; 0 while none does."""
        meta = self.client.meta(submission.id)
        return int(meta["result"]["pid"]) if meta["status"] == "STARTED" else 0

    def starts(self, submission: Submission) -> int:
        """Return how often it was begun, as long as it has not ended."""
        return int(self.server.client.hget(RECORD.format(submission.id), "starts") or 0)

    def runs_for_the(self, start: int, submission: Submission) -> bool:
        """Whether it has been begun so often, and runs."""
        return self.starts(submission) == start and self.pid(submission) > 0

    def message(self, submission: Submission) -> str:
        """Return its message, as it was in the queue."""
        return str(self.server.client.hget(RECORD.format(submission.id), "message"))

    def until_idle(self) -> None:
        """Wait until no message is in the queue or with a worker."""
        until(lambda: not self.server.client.exists(READY_LIST, "unacked"), what="an empty queue")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """What most of these tests share."""
    yield from open_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def own_stage(tmp_path: Path) -> Iterator[Stage]:
    """One that has no worker but the test's."""
    yield from open_stage(tmp_path)


def open_stage(folder: Path) -> Iterator[Stage]:
    """Open a Redis and a producer."""
    (folder / "redis").mkdir()
    with RedisServer(folder / "redis") as server, StrategyClient(Settings(redis_url=server.url)) as client:
        yield Stage(server, client, folder)


@pytest.fixture(scope="module")
def fleet(stage: Stage) -> Iterator[Fleet]:
    """A worker with two pool processes, replaced when it ends; afterwards nothing is left in Redis."""
    with stage.fleet() as opened:
        yield opened
        left = audit.patiently(lambda: audit.leaked_keys(stage.server.client), 20)
    assert left == []


def number(result: ExecutionResult) -> float:
    """Return what a run printed."""
    assert result.success, result.error
    return float(result.output)


def ends(fleet: Fleet, submission: Submission) -> int:
    """Return how often a submission ran to its end."""
    return audit.executions(fleet.logs())[submission.id]


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_connections_are_cut(stage: Stage, fleet: Fleet, kind: str) -> None:
    """Whoever waits goes on waiting, what runs ends, and the next is taken by connections that were idle."""
    running = stage.run()
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(running.result, 30)
        time.sleep(0.3)
        cut_connections(stage.server, kind)
        number(waits.result())
    cut_connections(stage.server, kind)
    following = [stage.client.submit(RUN.format(seconds=0)) for _ in range(4)]
    assert len({number(submission.result(30)) for submission in following}) == 4
    assert ends(fleet, running) == 1


def test_what_a_lost_connection_cuts_off_has_ended(own_stage: Stage) -> None:
    """Another worker takes it at once, so it does not go on where it was."""
    with (
        closing(Proxy(own_stage.server.port)) as proxy,
        own_stage.fleet("one", url=proxy.url, concurrency=1) as one,
    ):
        running = own_stage.run(seconds=8)
        with own_stage.fleet("other", concurrency=1) as other:
            proxy.cut()
            number(running.result(30))  # when the first, begun earlier, would have ended, too
        assert (ends(one, running), ends(other, running)) == (0, 1)


def test_messages_that_come_while_a_worker_connects_again(stage: Stage, fleet: Fleet) -> None:
    """What it takes off the list while it gives its old connections up is put back at once, too."""
    submissions = []
    for _ in range(3):
        cut_connections(stage.server, "pubsub")
        for _ in range(10):
            submissions.append(stage.client.submit("import os"))  # refused: quick
            time.sleep(0.1)
    assert {submission.result(30).status for submission in submissions} == {ExecutionStatus.REJECTED}
    assert fleet.elder.alive()


def test_redis_is_killed_in_the_middle_of_a_run(stage: Stage, fleet: Fleet) -> None:
    """It comes back with its data, and the run, or the next one, gives the verdict."""
    running, waiting = stage.run(), [stage.client.submit(RUN.format(seconds=0)) for _ in range(6)]
    stage.server.kill()
    stage.server.start()
    assert len({number(submission.result(60)) for submission in [running, *waiting]}) == 7
    assert fleet.elder.alive()


def test_a_verdict_waits_for_redis(own_stage: Stage) -> None:
    """What a pool process has to say while Redis is away is taken down when it is back."""
    submission = own_stage.client.submit("x = 1")
    fence = own_stage.ledger.begin(submission.id, "1", {}).fence
    backend, verdict = own_stage.client._app.backend, {"status": "succeeded", "output": "kept"}
    with ThreadPoolExecutor() as threads:
        own_stage.server.stop()
        stored = threads.submit(
            backend.store_result, submission.id, verdict, "SUCCESS", request=SimpleNamespace(stratbox_fence=fence)
        )
        time.sleep(2)
        own_stage.server.start()
        stored.result(30)
    assert submission.result(0).output == "kept"


@long
def test_redis_is_away_when_a_run_ends(stage: Stage, fleet: Fleet) -> None:
    """The verdict is there when Redis is."""
    running = stage.run()
    stage.server.stop()
    time.sleep(5)
    stage.server.start()
    verdict = running.result(60)
    stage.until_idle()
    assert running.result(0) == verdict
    assert number(verdict)
    assert fleet.elder.alive()


def test_a_pool_process_is_killed(stage: Stage, fleet: Fleet) -> None:
    """Its run begins anew in another, which is the only one then."""
    running = stage.run()
    killed = stage.pid(running)
    os.kill(killed, signal.SIGKILL)
    until(partial(stage.runs_for_the, 2, running), what="its second start")
    assert stage.pid(running) != killed
    number(running.result(30))
    assert ends(fleet, running) == 1


def test_poison_is_given_up(stage: Stage, fleet: Fleet) -> None:
    """What has cost three pool processes is listed as dead, saying why; put back by hand, it has another chance."""
    poison = stage.run(seconds=3)
    for start in (1, 2, 3):
        until(partial(stage.runs_for_the, start, poison), what=f"start {start}")
        os.kill(stage.pid(poison), signal.SIGKILL)
    with pytest.raises(ExecutionLost, match="died"):
        poison.result(30)
    (dead,) = stage.ledger.dead()
    assert dead.id == poison.id
    assert "died" in dead.reason
    assert ends(fleet, poison) == 0
    assert stage.ledger.requeue(poison.id)
    until(lambda: stage.starts(poison) > 0, what="its next start")
    number(poison.result(30))
    assert stage.ledger.dead() == []


def test_a_second_delivery_of_what_runs(own_stage: Stage) -> None:
    """To another worker: it does not run a second time beside the first, whose verdict counts."""
    with own_stage.fleet("one", concurrency=1) as one, own_stage.fleet("other", concurrency=1) as other:
        running = own_stage.run(seconds=3)
        own_stage.server.client.lpush(READY_LIST, own_stage.message(running))
        verdict = number(running.result(30))
        time.sleep(4)  # as long as a second run would take, and more
        assert number(running.result(0)) == verdict
        assert ends(one, running) + ends(other, running) == 1


def test_a_cancel_reaches_what_was_delivered_twice(stage: Stage, fleet: Fleet) -> None:
    """The worker keeps hold of the run while it puts the second delivery aside."""
    running = stage.run(seconds=20)
    stage.server.client.lpush(READY_LIST, stage.message(running))
    until(lambda: not stage.server.client.exists(READY_LIST), what="the second delivery")
    time.sleep(0.5)
    assert running.cancel()
    assert running.result(10).status is ExecutionStatus.CANCELLED
    stage.until_idle()
    assert fleet.elder.alive()


def test_a_delivery_after_the_end(stage: Stage, fleet: Fleet) -> None:
    """What has its verdict is not run again."""
    running = stage.run(seconds=1)
    message = stage.message(running)
    verdict = running.result(30)
    stage.until_idle()
    stage.server.client.lpush(READY_LIST, message)
    time.sleep(3)  # as long as a second run would take, and more
    assert not stage.server.client.exists(READY_LIST)
    assert running.result(0) == verdict
    assert ends(fleet, running) == 1


def test_a_worker_that_dies_with_a_message_in_its_hand(own_stage: Stage) -> None:
    """Taken off the list and noted nowhere, it is missed and comes back."""
    submission = own_stage.client.submit(RUN.format(seconds=0))
    taken = own_stage.server.client.brpop([READY_LIST], timeout=5)
    assert taken is not None
    assert json.loads(taken[1])["headers"]["id"] == submission.id
    with own_stage.fleet(concurrency=1) as fleet:
        number(submission.result(40))
        assert ends(fleet, submission) == 1


def test_a_worker_that_wakes_up_late(own_stage: Stage) -> None:
    """What it says of a run that was given to another is not heard."""
    with own_stage.fleet("late", concurrency=1) as late:
        running = own_stage.run(seconds=1)
        with asleep(late.elder, pool_too=True), own_stage.fleet("other", concurrency=1) as other:
            redeliver_now(own_stage.server)
            verdict = running.result(30)
            assert ends(other, running) == 1
        until(lambda: ends(late, running) == 1, what="the end of the first run")
        own_stage.until_idle()
        assert number(running.result(0)) == number(verdict)


@long
def test_a_main_process_is_killed(stage: Stage, fleet: Fleet) -> None:
    """What it ran is run by its replacement, when the visibility timeout is over."""
    running = stage.run(seconds=3)
    (worker,) = fleet.alive()
    worker.signal(signal.SIGKILL)
    worker.process.wait(10)
    until(lambda: any(one.ready() for one in fleet.alive()), what="its replacement")
    time.sleep(3)  # its first look is over
    redeliver_now(stage.server)
    number(running.result(60))
    assert ends(fleet, running) == 1
    assert audit.patiently(lambda: audit.leaked_containers(None), 10) == []


@long
def test_a_worker_told_to_stop(stage: Stage, fleet: Fleet) -> None:
    """It finishes what runs, and what waits is for its replacement."""
    running, waiting = stage.run(), [stage.client.submit(RUN.format(seconds=0)) for _ in range(8)]
    (worker,) = fleet.alive()
    worker.signal(signal.SIGTERM)
    assert len({number(submission.result(60)) for submission in [running, *waiting]}) == 9
    assert all(ends(fleet, submission) == 1 for submission in [running, *waiting])
    assert worker.process.wait(60) == 0


@long
@pytest.mark.timeout(300)
def test_a_connection_falls_silent(own_stage: Stage) -> None:
    """A worker whose connections are half open notices, connects anew, and what it ran has its verdict."""
    with (
        closing(Proxy(own_stage.server.port)) as proxy,
        own_stage.fleet(url=proxy.url, concurrency=1) as fleet,
    ):
        running = own_stage.run()
        proxy.fall_silent()
        waiting = own_stage.client.submit(RUN.format(seconds=0))
        assert number(running.result(SILENCE_SECONDS)) != number(waiting.result(SILENCE_SECONDS))
        assert fleet.elder.alive()


def test_the_fleet_tells_pool_processes_from_the_reaper(fleet: Fleet) -> None:
    """Faults hit what they say: a worker of two has two pool processes, and its reaper is none of them."""
    worker: Worker = fleet.alive()[-1]
    until(lambda: len(worker.children()) == 2, what="two pool processes")
