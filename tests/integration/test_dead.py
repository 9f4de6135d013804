"""What did not end by itself: killed three times and given up, shown, run again; lost on its way, and brought back."""

from __future__ import annotations

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
from celery import Celery
from local import private_redis, private_worker

from tasks import ExecutionResult, ExecutionStatus, StrategyClient, Submission, SubmissionState
from tasks.errors import ExecutionLost
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRATBOX = str(Path(sys.executable).with_name("stratbox"))
SLOW = "import time\ntime.sleep(2)\nprint('I ran')\n"


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of each test's own: the list of the dead is one for all."""
    with private_redis() as url:
        yield url


@pytest.fixture
def stratbox(redis_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, as a person types it."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"STRATBOX_REDIS_URL": redis_url, "COLUMNS": "80"}
        return subprocess.run([STRATBOX, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)

    return call


@pytest.fixture
def lose(client: StrategyClient) -> Callable[..., Submission]:
    """Submit, and say as a worker would that it is given up."""

    def submit(
        code: str = SLOW, data: Any = None, *, reason: str = "WorkerDied: thrice", user_id: str = ""
    ) -> Submission:
        submission = client.submit(code, data, user_id=user_id)
        begun = client.ledger.begin(submission.id, "attempt", {})
        meta = {"status": "FAILURE", "result": {"exc_type": "WorkerDied", "exc_message": ["thrice"]}}
        assert client.ledger.record(submission.id, "FAILURE", json.dumps(meta), fence=begun.fence, reason=reason)
        return submission

    return submit


def kill_while_it_runs(
    client: StrategyClient, submission: Submission, worker: subprocess.Popen[bytes], times: int
) -> None:
    """Kill -9 the pool process that runs it, in each of its runs."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    killed: set[int] = set()
    for _ in range(times):

        def runs_again() -> bool:
            meta = client.meta(submission.id)
            return meta["status"] == "STARTED" and meta["result"]["pid"] not in killed

        until(runs_again)
        killed.add(pid := client.meta(submission.id)["result"]["pid"])
        assert str(pid) in children.read_text().split()
        os.kill(pid, signal.SIGKILL)


def test_killed_three_times_is_dead_and_runs_when_queued_again(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], client: StrategyClient, redis_url: str
) -> None:
    """A poison ends as lost and says so; it is listed and shown, and queued again it runs under the same id."""
    with private_worker(redis_url, concurrency=1) as worker:
        submission = client.submit(SLOW, {"price": 7}, user_id="tenant-7")
        kill_while_it_runs(client, submission, worker, times=3)
        with pytest.raises(ExecutionLost, match="its worker died each of the three times it ran"):
            submission.result(timeout=30)
        assert worker.poll() is None, "the worker itself lives on"
        assert stratbox("result", submission.id).returncode == 3

        listed = [json.loads(line) for line in stratbox("dead", "--json").stdout.splitlines()]
        assert [(one["id"], one["user_id"]) for one in listed] == [(submission.id, "tenant-7")]
        assert "three times" in listed[0]["reason"]
        assert listed[0]["bytes"] > len(SLOW)
        shown = stratbox("dead", "show", submission.id)
        assert (shown.returncode, shown.stdout) == (0, SLOW)
        assert "three times" in shown.stderr

        again = stratbox("dead", "requeue", submission.id)
        assert (again.returncode, again.stdout) == (0, f"requeued {submission.id}\n"), again.stderr
        assert submission.result(timeout=60).output == "I ran\n"
        assert stratbox("dead", "--json").stdout == ""


def test_a_requeued_submission_has_all_its_lives_again(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], client: StrategyClient, redis_url: str
) -> None:
    """What died three times and was queued again survives two more deaths."""
    with private_worker(redis_url, concurrency=1) as worker:
        submission = client.submit(SLOW)
        kill_while_it_runs(client, submission, worker, times=3)
        with pytest.raises(ExecutionLost):
            submission.result(timeout=30)
        assert stratbox("dead", "requeue", "--all").stdout == f"requeued {submission.id}\n"
        kill_while_it_runs(client, submission, worker, times=2)
        assert submission.result(timeout=60).output == "I ran\n"


def test_nobody_is_dead(stratbox: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """An empty list says so, to a person; --all finds nothing to do."""
    for arguments in (["dead"], ["dead", "requeue", "--all"], ["dead", "drop", "--all"]):
        done = stratbox(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "no dead submissions\n")
    done = stratbox("dead", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_list_is_whole_lines_without_code(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], lose: Callable[..., Submission]
) -> None:
    """The latest first; in a pipe a line each, however long; without code or data, and no terminal obeys it."""
    first = lose("secret = 1", {"secret": 2}, reason="x" * 200, user_id="a")
    second = lose("secret = 2", reason="\x1b[2J[bold]two\nlines", user_id="[red]b")
    lines = [line.rstrip() for line in stratbox("dead").stdout.splitlines()]
    assert lines[0].split() == ["id", "user", "since", "bytes", "reason"]
    assert lines[2].split()[:2] == [second.id, "[red]b"]
    assert lines[2].endswith("\\x1b[2J[bold]two lines")
    assert lines[3].split()[:2] == [first.id, "a"]
    assert lines[3].endswith("x" * 200)
    assert "secret" not in "".join(lines)


@pytest.mark.parametrize("padding", [0, 50_000])
def test_show_decodes_the_message(
    stratbox: Callable[..., subprocess.CompletedProcess[str]],
    client: StrategyClient,
    lose: Callable[..., Submission],
    padding: int,
) -> None:
    """Compressed or not; sizes, user, reason and time as talk, the code as data; as JSON the code is exact."""
    code = "a = '\x1b[2J'\r\n" + "#" * padding
    lost = lose(code, {"price": [1, 2]}, user_id="tenant")
    headers = json.loads(client.ledger.message(lost.id) or b"")["headers"]
    assert ("compression" in headers) == (padding > 0)

    shown = stratbox("dead", "show", lost.id)
    assert shown.stdout == "a = '\\x1b[2J'\\r\n" + "#" * padding + ("\n" if padding else "")
    told = dict(line.split(maxsplit=1) for line in shown.stderr.replace("dead since", "since").splitlines())
    assert told["id"] == lost.id
    assert told["user"] == "tenant"
    assert told["reason"] == "WorkerDied: thrice"
    assert told["request"] == f"{len(code):,} bytes of code, 15 bytes of data"
    assert time.strptime(told["since"], "%Y-%m-%dT%H:%M:%SZ").tm_year >= 2025

    as_json = json.loads(stratbox("dead", "show", lost.id, "--json").stdout)
    assert (as_json["code"], as_json["data_bytes"]) == (code, 15)
    assert (as_json["id"], as_json["since"]) == (lost.id, told["since"])


def test_one_with_a_data_set(
    stratbox: Callable[..., subprocess.CompletedProcess[str]],
    client: StrategyClient,
    lose: Callable[..., Submission],
    redis_url: str,
) -> None:
    """It is shown by reference; without the data set it is not queued again, and the others are."""
    ref = client.datasets.put({"price": 7})
    lost, other = lose(SLOW, ref), lose(SLOW)
    assert f"bytes of code, data set {ref}\n" in stratbox("dead", "show", lost.id).stderr
    assert json.loads(stratbox("dead", "show", lost.id, "--json").stdout)["dataset"] == ref.digest
    with redis.Redis.from_url(redis_url) as direct:
        direct.delete(f"stratbox:celery:dataset:{ref}")
    done = stratbox("dead", "requeue", lost.id, "none", other.id)
    assert (done.returncode, done.stdout) == (2, f"requeued {other.id}\n")
    assert done.stderr == (
        "stratbox: no dead submission 'none': `stratbox dead` lists them; "
        f"the data set of {lost.id} is not in Redis any more: put it again first\n"
    )
    client.datasets.put({"price": 7})
    assert stratbox("dead", "requeue", "--all").stdout == f"requeued {lost.id}\n"


def test_show_what_no_worker_could_run(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], client: StrategyClient, redis_url: str
) -> None:
    """A careless producer's message can kill its worker, too: it is told what is wrong with it."""
    plain = Celery(broker=redis_url, backend=redis_url, set_as_current=False)
    try:
        plain.send_task("STRATEGY_EXECUTION", kwargs={"code": 7}, task_id="odd")
        with redis.Redis.from_url(redis_url) as direct:
            message = direct.rpop("celery")
        assert isinstance(message, bytes)
        client.ledger.adopt("odd", message.decode(), tenant="", priority=0)
    finally:
        plain.close()
        plain.backend.result_consumer.stop()
    begun = client.ledger.begin("odd", "attempt", {})
    client.ledger.record("odd", "FAILURE", '{"status": "FAILURE"}', fence=begun.fence, reason="thrice")
    shown = stratbox("dead", "show", "odd")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "not valid: code: " in shown.stderr
    assert json.loads(stratbox("dead", "show", "odd", "--json").stdout)["reason"] == "thrice"


def test_drop_forgets(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], client: StrategyClient, lose: Callable[..., Submission]
) -> None:
    """Those that are named, or all; each remains lost, and its message is gone."""
    one, two, three = lose(), lose(), lose()
    assert stratbox("dead", "drop", one.id).stdout == f"dropped {one.id}\n"
    assert client.ledger.message(one.id) is None
    assert {dead.id for dead in client.ledger.dead()} == {two.id, three.id}
    assert sorted(stratbox("dead", "drop", "--all").stdout.splitlines()) == sorted(
        f"dropped {dead.id}" for dead in (two, three)
    )
    assert client.ledger.dead() == []
    assert {dead.status() for dead in (one, two, three)} == {SubmissionState.LOST}


@pytest.mark.parametrize("command", ["show", "requeue", "drop"])
def test_an_id_that_is_not_dead(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], client: StrategyClient, command: str
) -> None:
    """One line and exit code 2, whether it is unknown or only waits; nothing happens to it."""
    waits = client.submit(SLOW)
    for name, shown in ((waits.id, waits.id), ("[bold]\x1b", "[bold]\\x1b")):
        done = stratbox("dead", command, name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"stratbox: no dead submission '{shown}': `stratbox dead` lists them\n"
    assert waits.status() is SubmissionState.QUEUED
    assert client.ledger.message(waits.id)


@pytest.mark.parametrize(("command", "done"), [("requeue", "requeued"), ("drop", "dropped")])
def test_one_wrong_id_does_not_keep_the_others(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], lose: Callable[..., Submission], command: str, done: str
) -> None:
    """Each is told of, once; the unknown ones in one line at the end."""
    one, two = lose(), lose()
    called = stratbox("dead", command, one.id, "none", two.id, one.id, "nil")
    assert called.returncode == 2
    assert called.stdout == f"{done} {one.id}\n{done} {two.id}\n"
    assert called.stderr == "stratbox: no dead submission 'none', 'nil': `stratbox dead` lists them\n"


def test_reconcile_brings_back_what_was_lost(
    stratbox: Callable[..., subprocess.CompletedProcess[str]], client: StrategyClient, redis_url: str
) -> None:
    """A message that vanished between Redis and a worker comes back under its id, and runs; the others stay."""
    lost, waits = client.submit(SLOW), client.submit(SLOW)
    with redis.Redis.from_url(redis_url) as direct:
        popped = direct.brpop(["celery:9"], timeout=5)
        assert isinstance(popped, (list, tuple))
        assert lost.id in popped[1].decode(), "the first in is the first out"
        time.sleep(5.1)  # a younger message may be on its way to a worker: nobody misses it yet
        done = stratbox("reconcile")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{lost.id}\n"
        first, last = done.stderr.splitlines()
        assert "again in" in first
        assert last.startswith("1 brought back; 2 waiting, the oldest since 20")
        assert sum(lost.id.encode() in message for message in direct.lrange("celery:9", 0, -1)) == 1
    with private_worker(redis_url, concurrency=1):
        results: list[ExecutionResult] = [one.result(timeout=60) for one in (lost, waits)]
    assert [(one.status, one.output) for one in results] == [(ExecutionStatus.SUCCEEDED, "I ran\n")] * 2


def test_reconcile_with_nothing_to_do(stratbox: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """It says so."""
    done = stratbox("reconcile")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "0 brought back; 0 waiting"
