"""The producers' guide, docs/producers.md: its programs as they stand, and what it says of messages and records."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import playwright
import pytest
import redis
from celery import Celery
from local import private_flower, private_redis, private_worker

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks import StrategyClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "producers"
MESSAGE, MINIMAL, RECORD = (FOLDER / f"{name}.json" for name in ("message", "minimal", "record"))
MESSAGE_ID = "0a1f6c1e-6f0c-4d6a-9a55-3f1d2b7c8e90"
#: Playwright brings one along.
NODE = Path(playwright.__file__).with_name("driver") / "node"
RUN = {"python": [sys.executable, "-c"], "sh": ["sh", "-eu", "-c"]}
#: Blocks that are no programs, by heading and language.
NOT_RUN = {("A message", "json"): "a message: minimal.json, which this file and the program below it send"}
PASSWORD = f"stratbox:{secrets.token_hex(8)}"
ENDED = {"SUCCESS", "FAILURE", "REVOKED"}
RANDOM = "import random\nprint(random.random())"

pytestmark = pytest.mark.usefixtures("worker_process")


def blocks() -> Iterator[tuple[str, str, str]]:
    """Give heading, language and text of each fenced block of the guide."""
    heading, guide = "", (ROOT / "docs" / "producers.md").read_text()
    for title, language, text in re.findall(r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL):
        heading = title or heading
        if not title:
            yield heading, language, text


PROGRAMS = [block for block in blocks() if block[:2] not in NOT_RUN]


def as_promised(program: str) -> re.Pattern[str]:
    """Return what a program prints, as its comments say; an ellipsis is anything."""
    promises = re.findall(r"(?:#|//) prints (.*)$", program, re.MULTILINE)
    assert promises, "a program of the guide says what it prints"
    return re.compile(".*".join(map(re.escape, "\n".join(promises).split("…"))) + r"\s*")


@pytest.fixture(scope="module")
def flower(redis_url: str, worker_process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Flower beside the worker."""
    del worker_process
    with private_flower(redis_url, PASSWORD.partition(":")[2], FLOWER_INSPECT_TIMEOUT="500") as address:
        yield address


@pytest.fixture
def environment(redis_url: str, flower: str) -> dict[str, str]:
    """What the guide says to set, and the project's Python as `python`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "STRATBOX_REDIS_URL": redis_url, "FLOWER": flower, "FLOWER_BASIC_AUTH": PASSWORD}
    return os.environ | own


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """Redis, with none of our code and none of Celery's."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as opened:
        yield opened


@pytest.fixture
def plain(redis_url: str) -> Iterator[Celery]:
    """A Celery that has none of our code."""
    with Celery(broker=redis_url, backend=redis_url, set_as_current=False) as opened:
        yield opened
        opened.backend.result_consumer.stop()


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a program of the guide where it says to run it; return what it printed."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def ask(flower: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call Flower's API: with fields to post, without to get."""
    headers = {"Authorization": f"Basic {base64.b64encode(PASSWORD.encode()).decode()}"}
    body = None if fields is None else json.dumps(fields).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{flower}/api/{path}", body, headers), timeout=30) as response:
        return dict(json.loads(response.read()))


def minimal(code: str = "print(6 * 7)", **headers: Any) -> tuple[str, dict[str, Any]]:
    """Return an id, and the message of the guide with it."""
    task_id = str(uuid.uuid4())
    message = json.loads(MINIMAL.read_text().replace("ID", task_id))
    message["body"] = json.dumps([[], {"code": code}, {}])
    message["headers"].update(headers)
    return task_id, message


def record_of(server: redis.Redis, task_id: str) -> dict[str, Any] | None:
    """Return a record, read as any program would."""
    text = server.get(f"celery-task-meta-{task_id}")
    return None if text is None else dict(json.loads(str(text)))


def end_of(server: redis.Redis, task_id: str, seconds: float = 30.0) -> dict[str, Any]:
    """Wait for a final record."""
    deadline = time.monotonic() + seconds
    while (record := record_of(server, task_id)) is None or record["status"] not in ENDED:
        assert time.monotonic() < deadline, record
        time.sleep(0.05)
    return record


def listen(server: Any, task_id: str) -> Any:
    """Subscribe to a record."""
    subscription = server.pubsub()
    subscription.subscribe(f"celery-task-meta-{task_id}")
    return subscription


def published(subscription: Any) -> list[dict[str, Any]]:
    """Return the records that were published, and leave."""
    heard = iter(lambda: subscription.get_message(timeout=0.5), None)
    records = [json.loads(one["data"]) for one in heard if one["type"] == "message"]
    subscription.close()
    return records


# Programs.


@pytest.mark.parametrize(("heading", "language", "program"), PROGRAMS, ids=[f"{one[0]} {one[1]}" for one in PROGRAMS])
def test_a_program_of_the_guide_prints_what_it_says(
    heading: str, language: str, program: str, environment: dict[str, str]
) -> None:
    """As it stands, with the variables the guide names and no others."""
    del heading
    printed = run([*RUN[language], program], environment)
    assert as_promised(program).fullmatch(printed), printed


def test_every_way_has_a_program() -> None:
    """No heading has lost its program, and what is excused is there."""
    assert {heading for heading, *_ in PROGRAMS} >= {"Python", "Python, async", "Plain Celery", "Flower's HTTP API"}
    assert NOT_RUN.keys() <= {block[:2] for block in blocks()}


def test_the_javascript_program_prints_what_it_says(environment: dict[str, str], redis_url: str) -> None:
    """Its text is longer than ASCII, and its header makes the worker tell the wait."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as server:
        before = set(server.keys("celery-task-meta-*"))
        printed = run([str(NODE), str(FOLDER / "submit.mjs")], environment)
        assert as_promised((FOLDER / "submit.mjs").read_text()).fullmatch(printed), printed
        (key,) = set(server.keys("celery-task-meta-*")) - before
        assert 0 <= json.loads(str(server.get(key)))["result"]["metrics"]["queue_seconds"] < 20


# The message.


def test_the_long_message_is_what_celery_sends() -> None:
    """Every field of it, but for where it came from."""
    example = json.loads(MESSAGE.read_text())
    (args, fields, _embed) = json.loads(base64.b64decode(example["body"]))
    with private_redis() as elsewhere, redis.Redis.from_url(elsewhere) as server:
        with Celery(broker=elsewhere, backend=elsewhere, set_as_current=False) as sender:
            sender.send_task("STRATEGY_EXECUTION", args, fields, task_id=MESSAGE_ID)
            sender.backend.result_consumer.stop()
        sent = json.loads(server.rpop("celery") or b"")
    for one in (example, sent):
        del one["headers"]["origin"], one["properties"]["reply_to"], one["properties"]["delivery_tag"]
    assert example == sent


def test_the_long_message_gives_the_record_that_is_shown(
    server: redis.Redis, client: StrategyClient, redis_url: str
) -> None:
    """Pushed byte for byte; the record is what the guide shows up to times, is published, and our client reads it."""
    subscription = listen(server, MESSAGE_ID)
    server.lpush("celery", MESSAGE.read_bytes())
    record, shown = end_of(server, MESSAGE_ID), json.loads(RECORD.read_text())
    heard = published(subscription)
    assert [one["status"] for one in heard] == ["QUEUED", "STARTED", "SUCCESS"]
    assert heard[0]["result"] is None
    assert heard[1]["result"].keys() == {"pid", "hostname"}
    assert heard[2] == record
    assert 86_000 < server.ttl(f"celery-task-meta-{MESSAGE_ID}") <= 86_400
    assert client.submission(MESSAGE_ID).result(timeout=0).output == "101.2\n"
    status = ["-m", "worker.cli", "status", MESSAGE_ID]
    assert run([sys.executable, *status], os.environ | {"STRATBOX_REDIS_URL": redis_url}) == "succeeded\n"
    for one in (record, shown):
        assert one.pop("date_done").endswith("+00:00")
        numbers = one["result"].pop("metrics")
        assert numbers.pop("queue_seconds") is None
        one["metrics"] = {name: type(value) for name, value in numbers.items()}
    assert record == shown


def without(message: dict[str, Any], path: str) -> str:
    """Return a message that lacks a field."""
    *way, last = path.split(".")
    place = message
    for name in way:
        place = place[name]
    del place[last]
    return json.dumps(message)


def test_no_field_of_the_short_message_can_be_left_out(server: redis.Redis) -> None:
    """As it is, it runs; without any one of its fields it is `rejected`, or, without an id, nothing is heard of it."""
    for path in ("body", "headers.task", "headers", "headers.id"):
        lacking, message = minimal()
        server.lpush("celery", without(message, path))
        task_id, message = minimal()
        server.lpush("celery", json.dumps(message))
        assert end_of(server, task_id)["result"]["output"] == "42\n", path
        if path in {"body", "headers.task"}:
            assert end_of(server, lacking)["result"]["error"]["message"].startswith(f"{path}: "), path
        else:
            assert record_of(server, lacking) is None, path


def test_a_body_may_be_encoded_and_compressed(server: redis.Redis) -> None:
    """In base64, or also with zlib, as the table says."""
    for pack, headers in ((bytes, {}), (zlib.compress, {"compression": "zlib"})):
        task_id, message = minimal(**headers)
        message["body"] = base64.b64encode(pack(message["body"].encode())).decode()
        message["properties"] = {"body_encoding": "base64"}
        server.lpush("celery", json.dumps(message))
        assert end_of(server, task_id)["result"]["output"] == "42\n"


def test_a_message_for_another_task_ends_as_celery_ends_it(server: redis.Redis) -> None:
    """Whoever sent it to the wrong queue is told so in Celery's words."""
    task_id, message = minimal(task="of.another.app")
    server.lpush("celery", json.dumps(message))
    record = end_of(server, task_id)
    assert (record["status"], record["result"]["exc_type"]) == ("FAILURE", "NotRegistered")


def test_a_message_runs_once_however_often_it_is_sent(server: redis.Redis) -> None:
    """While it waits, while it runs, after its end, and with another request in it."""
    task_id, message = minimal(RANDOM)
    subscription = listen(server, task_id)
    for _ in range(3):
        server.lpush("celery", json.dumps(message))
    first = end_of(server, task_id)
    message["body"] = json.dumps([[], {"code": "print('another')"}, {}])
    server.lpush("celery", json.dumps(message))
    later, after = minimal()
    server.lpush("celery", json.dumps(after))
    end_of(server, later)
    assert [one["status"] for one in published(subscription)] == ["QUEUED", "STARTED", "SUCCESS"]
    assert record_of(server, task_id) == first


def test_a_producers_rights_are_enough_for_a_message(server: redis.Redis, redis_url: str) -> None:
    """With the user of ops/redis/users.acl: into `celery:9`, not into `celery`; it hears and reads its record."""
    password = secrets.token_hex(16)
    passwords = {f"STRATBOX_{user}_PASSWORD": password for user in ("ADMIN", "PRODUCER", "WORKER")}
    (rules,) = [one for one in run(["ops/redis/acl"], os.environ | passwords).splitlines() if "user producer" in one]
    server.execute_command("ACL", "SETUSER", *re.findall(r"\([^)]*\)|\S+", rules)[1:])  # type: ignore[no-untyped-call]
    url = redis_url.replace("//", f"//producer:{password}@")
    with redis.Redis.from_url(url, decode_responses=True) as producer:
        task_id, message = minimal()
        with pytest.raises(redis.exceptions.NoPermissionError):
            producer.lpush("celery", json.dumps(message))
        subscription = listen(producer, task_id)
        producer.lpush("celery:9", json.dumps(message))
        assert end_of(producer, task_id)["result"]["output"] == "42\n"
        assert [one["status"] for one in published(subscription)][-1] == "SUCCESS"


def test_times_and_priority_of_a_message_count(server: redis.Redis, client: StrategyClient, flower: str) -> None:
    """It does not begin before `eta` nor after `expires`; priority 9, Flower's likewise, waits for a later 0."""
    tells = "import time\nprint(time.time())\ntime.sleep(2)"
    # Plain messages come in when the first of these ends, and are to find others waiting.
    blockers = [client.submit("import time\ntime.sleep(1)") for _ in range(8)]
    late, message = minimal(tells)
    message["properties"] = {"priority": 9}
    server.lpush("celery", json.dumps(message))
    sent = {"kwargs": {"code": tells}, "priority": 9}
    later = ask(flower, "task/send-task/STRATEGY_EXECUTION", sent)["task-id"]
    while server.llen("celery") + server.llen("celery:3") + server.llen("celery:6"):
        time.sleep(0.01)
    early = [client.submit(tells).id for _ in range(2)]  # one for each pool process: the rest has to wait for them
    assert all(blocker.result(timeout=30).success for blocker in blockers)
    began = [float(end_of(server, task_id)["result"]["output"]) for task_id in (*early, late, later)]
    assert max(began[:2]) < min(began[2:])

    begin = time.time() + 2
    task_id, message = minimal("import time\nprint(time.time())", eta=time.strftime("%FT%TZ", time.gmtime(begin)))
    server.lpush("celery", json.dumps(message))
    expired, message = minimal(expires="2020-01-01T00:00:00Z")
    server.lpush("celery", json.dumps(message))
    assert float(end_of(server, task_id)["result"]["output"]) >= int(begin)
    assert end_of(server, expired)["status"] == "REVOKED"
    assert client.submission(expired).status() is ExecutionStatus.CANCELLED


# Plain Celery and Flower.


def test_a_priority_of_plain_celery_is_not_to_be_used(server: redis.Redis, plain: Celery) -> None:
    """It goes where no worker reads."""
    lists = set(server.keys("celery*"))
    plain.send_task("STRATEGY_EXECUTION", kwargs={"code": "print(1)"}, priority=5)
    (unread,) = {key for key in set(server.keys("celery*")) - lists if "meta" not in str(key)}
    assert str(unread) not in {"celery", "celery:3", "celery:6", "celery:9"}
    assert server.llen(str(unread)) == 1


def test_time_limits_of_plain_celery_do_not_hold(server: redis.Redis, plain: Celery) -> None:
    """They would end a pool process, or count as a failure of the infrastructure: the strategy runs to its end."""
    sleep = {"code": "import time\ntime.sleep(2)\nprint(6 * 7)"}
    sent = plain.send_task("STRATEGY_EXECUTION", kwargs=sleep, soft_time_limit=1, time_limit=1)
    assert end_of(server, sent.id)["result"]["output"] == "42\n"


@pytest.mark.parametrize("option", ["link", "link_error", "chain", "chord"])
def test_what_follows_is_refused(server: redis.Redis, plain: Celery, option: str) -> None:
    """No worker sends other tasks for a producer, and what was to follow is not left out in silence."""
    lists = {"celery", "celery:3", "celery:6", "celery:9"}
    follows = plain.signature("STRATEGY_EXECUTION", kwargs={"code": "print(1)"})
    sent = plain.send_task(
        "STRATEGY_EXECUTION", kwargs={"code": "print(6 * 7)"}, **{option: [follows] if option == "chain" else follows}
    )
    result = end_of(server, sent.id)["result"]
    assert result["status"] == "rejected"
    assert "callbacks, chains and chords" in result["error"]["message"]
    assert not server.exists(*lists)


@pytest.mark.parametrize("sent_event", [False, True])
def test_celerys_sent_event_shows_the_code(server: Any, plain: Celery, *, sent_event: bool) -> None:
    """It is off by default; on, code and data are on their way to Flower."""
    assert not plain.conf.task_send_sent_event
    plain.conf.task_send_sent_event = sent_event
    with server.pubsub() as events:
        events.psubscribe("*celeryev*")
        sent = plain.send_task("STRATEGY_EXECUTION", kwargs={"code": "secret = 1", "data": {"close": [1]}})
        end_of(server, sent.id)
        messages = list(iter(lambda: events.get_message(timeout=0.5), None))
    bodies = [json.loads(one["data"])["body"] for one in messages if one["type"] == "pmessage"]
    assert bodies, "the worker's own events were heard"
    assert any(b"secret = 1" in base64.b64decode(body) for body in bodies) is sent_event


def test_flower_tells_what_never_ran_as_text(server: redis.Redis, plain: Celery, flower: str) -> None:
    """When its turn has come, revoked or not; of what has not ended, or is unknown, it tells nothing."""
    waiting = plain.send_task("STRATEGY_EXECUTION", kwargs={"code": "print(1)"}, countdown=4).id
    while record_of(server, waiting) is None:
        time.sleep(0.05)
    ask(flower, f"task/revoke/{waiting}", {})
    time.sleep(0.5)
    for task_id, state in ((waiting, "QUEUED"), (str(uuid.uuid4()), "PENDING")):
        assert ask(flower, f"task/result/{task_id}") == {"task-id": task_id, "state": state}
    assert end_of(server, waiting)["status"] == "REVOKED"
    assert ask(flower, f"task/result/{waiting}")["result"] == "TaskRevokedError('revoked')"


@pytest.mark.parametrize("tagged_with_its_id", [False, True])
def test_the_record_of_what_is_lost(*, tagged_with_its_id: bool) -> None:
    """Without an engine: started, tried again, given up, with the reason each time; also if it looks like our own."""
    no_engine = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "STRATBOX_ENGINE_PATIENCE_SECONDS": "0.2"}
    with (
        private_redis() as url,
        private_worker(url, concurrency=1, STRATBOX_TRIES="2", STRATBOX_RETRY_SECONDS="1", **no_engine),
        redis.Redis.from_url(url, decode_responses=True) as server,
    ):
        task_id, message = minimal()
        if tagged_with_its_id:
            message["properties"] = {"delivery_tag": task_id}
        subscription = listen(server, task_id)
        server.lpush("celery", json.dumps(message))
        lost = end_of(server, task_id)
        statuses = [one["status"] for one in published(subscription)]
    assert statuses == ["QUEUED", "STARTED", "RETRY", "STARTED", "FAILURE"]
    assert lost["result"].keys() == {"exc_type", "exc_message", "exc_module"}
    assert lost["result"]["exc_type"] == "EngineUnavailable"
