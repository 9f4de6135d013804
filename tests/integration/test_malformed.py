"""Messages that are wrong in every way: they end no worker, and whoever waits for one that has an id is told."""

from __future__ import annotations

import base64
import bz2
import contextlib
import json
import lzma
import pickle
import time
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from local import private_redis, private_worker

from tasks import Settings, StrategyClient
from tasks.message import TASK_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINIMAL = Path(__file__).resolve().parents[2] / "docs" / "producers" / "minimal.json"
RESULT = "celery-task-meta-"
LISTS = ("celery", "celery:3", "celery:6", "celery:9")
#: What workers listen to.
CHANNELS = ("/0.celery.pidbox", "/0.celeryev/task.sent", "/0.celeryev/worker.heartbeat")
ENDED = {"SUCCESS", "FAILURE", "REVOKED"}
#: Of every message, and nowhere in the log.
CODE, DATA = "hush_3f1d2b7c", "hush-9e04c5a1"
FIELDS = {"code": f"import {CODE}", "data": {"close": DATA}}  # the policy refuses it: no container is spent
TASK = [[], FIELDS, {}]
SIGNATURE = {"task": "another", "args": [DATA], "kwargs": {}, "options": {"queue": "elsewhere"}}

GARBAGE: list[Any] = ["x", "", -1, 1e300, True, None, ["x"], {"x": [[{}]]}, "\ud800\0\n", "9" * 5000]
HEADERS = (
    "task id eta expires timelimit retries group chord callbacks chain compression shadow root_id parent_id argsrepr "
    "kwargsrepr lang ignore_result stamped_headers stamps headers properties args kwargs get update __class__ "
    "called_directly delivery_info hostname stratbox_submitted_at stratbox_fence stratbox_pause_seconds traceparent"
)
PROPERTIES = "delivery_tag delivery_info priority body_encoding delivery_mode correlation_id reply_to"
FIELDS_OF_A_MESSAGE = ("body", "content-type", "content-encoding", "headers", "properties")
MOMENTS = ("soon", "2030-13-13", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2020-01-01", "20200101")
#: JSON of such depths may be read in one place and not in another.
DEPTHS = (100, 250, 300, 500, 700, *range(900, 1000, 7), 100_000)


def message(body: Any = TASK, headers: Any = (), properties: Any = ()) -> dict[str, Any]:
    """Return the guide's short message with an id and a tag of its own, and these changes."""
    made: dict[str, Any] = json.loads(MINIMAL.read_text().replace("ID", str(uuid.uuid4())))
    made["body"] = body if isinstance(body, str) else json.dumps(body)
    made["headers"].update(headers)
    return made | {"properties": {"delivery_tag": str(uuid.uuid4()), **dict(properties)}}


def nested(depth: int) -> str:
    """Return JSON that is deep."""
    return "[" * depth + "]" * depth


def with_wrong_fields() -> Iterator[dict[str, Any]]:
    """Give messages in which something around the body is missing or of another kind."""
    for value in GARBAGE:
        yield from (message(headers={name: value}) for name in HEADERS.split())
        yield from (message(properties={name: value}) for name in PROPERTIES.split())
        yield from (message() | {name: value} for name in FIELDS_OF_A_MESSAGE)
        for part in ("exchange", "routing_key"):
            yield message(properties={"delivery_info": {"exchange": "", "routing_key": "celery", part: value}})
    for name in FIELDS_OF_A_MESSAGE:
        yield {field: value for field, value in message().items() if field != name}
    for moment in MOMENTS:
        yield message(headers={"expires": moment})
        if not moment.startswith("9999"):  # it would wait until then
            yield message(headers={"eta": moment})
    yield message(headers={"task": "of.another.app"})
    tagged = message()
    yield tagged | {"properties": {"delivery_tag": tagged["headers"]["id"]}}


def with_wrong_bodies() -> Iterator[dict[str, Any]]:
    """Give messages whose body is no task, or one that nobody can run."""
    wrong: tuple[Any, ...] = (
        [],
        [[], {}],
        [1, 2, 3],
        [[], [], {}],
        [{}, FIELDS, {}],
        [[DATA], FIELDS, {}],
        {"task": DATA},
        None,
        5,
    )
    yield from (message(json.dumps(body)) for body in wrong)
    for kwargs in (
        {"self": DATA},
        {"args": DATA},
        {"code": "\ud800"},
        {**FIELDS, "user_id": "\ud800"},
        {**FIELDS, "": 1},
    ):
        yield message([[], kwargs, {}])
    for name in ("callbacks", "errbacks", "chain", "chord", "id", "hostname"):
        yield from (message([[], FIELDS, {name: value}]) for value in (None, DATA, SIGNATURE, [SIGNATURE]))
    yield from (message(text) for text in ("[[], {", f"{json.dumps(TASK)} {DATA}", "NaN", "1" * 9999))
    for depth in DEPTHS:
        yield from (message(nested(depth)), message(f'[[], {{"code": "{CODE}", "data": {nested(depth)}}}, {{}}]'))
    for kind in ("datetime", "uuid", "decimal", "base64", "another"):  # as kombu writes what JSON has not
        yield message([[], {"code": CODE, "data": {"__type__": kind, "__value__": DATA}}, {}])
    yield from (message(properties={"body_encoding": encoding}) for encoding in ("base64", "rot13", "utf-8"))
    pickled = message(base64.b64encode(pickle.dumps(TASK)).decode(), properties={"body_encoding": "base64"})
    yield pickled | {"content-type": "application/x-python-serialize"}
    packers: tuple[tuple[Callable[[bytes], bytes], str], ...] = (
        (zlib.compress, "zlib"),
        (bz2.compress, "bzip2"),
        (lzma.compress, "lzma"),
        (bytes, "zlib"),
        (bytes, "another"),
    )
    for pack, name in packers:
        for text in (json.dumps(TASK).encode(), b"x" if pack is bytes else b" " * 100_000_000):
            body = base64.b64encode(pack(text)).decode()
            yield message(body, {"compression": name}, {"body_encoding": "base64"})


def not_messages() -> Iterator[bytes]:
    """Give what is not even one."""
    yield from (
        DATA.encode(),
        b"",
        b"[]",
        b"5",
        b"null",
        b'"x"',
        b"{}",
        b"\xff\xfe",
        b"{",
        b"1" * 5000,
        pickle.dumps(TASK),
    )
    yield f'{{"body": {{"__type__": "datetime", "__value__": "{DATA}"}}}}'.encode()
    for depth in DEPTHS:
        yield from (nested(depth).encode(), f'{{"headers": {{"x": {nested(depth)}}}}}'.encode())


def id_of(one: dict[str, Any]) -> str | None:
    """Return an id by which somebody may wait."""
    headers = one.get("headers")
    task_id = headers.get("id") if isinstance(headers, dict) else None
    return task_id if isinstance(task_id, str) and TASK_ID.fullmatch(task_id) else None


def records_of(store: redis.Redis, ids: set[str]) -> dict[str, str]:
    """Return the state of each that has one."""
    texts = {task_id: store.get(RESULT + task_id) for task_id in ids}
    return {task_id: json.loads(str(text))["status"] for task_id, text in texts.items() if text}


def is_through(store: redis.Redis, ids: set[str]) -> bool:
    """Whether all have ended and nothing is in a list, with the worker, or in the ledger."""
    left = {*store.keys("stratbox:*")} - {"stratbox:celery:pace", "stratbox:celery:reconciled"}
    idle = not left and not store.exists(*LISTS, "unacked", "unacked_index")
    return idle and all(state in ENDED for state in records_of(store, ids).values())


def test_nothing_in_a_message_ends_a_worker(tmp_path: Path) -> None:
    """Each of hundreds of mutations ends, or leaves one line; the log has no code and no data; the worker goes on.

    The same goes for what is published to all workers.
    """
    log, messages = tmp_path / "log", [*with_wrong_fields(), *with_wrong_bodies()]
    ids = {task_id for task_id in map(id_of, messages) if task_id}
    texts = [*(json.dumps(one).encode() for one in messages), *not_messages()]
    with (
        private_redis() as url,
        private_worker(url, concurrency=1, log=log) as worker,
        redis.Redis.from_url(url, decode_responses=True) as store,
        StrategyClient(Settings(redis_url=url)) as client,
    ):
        assert client.submit("print(1)").result(timeout=60).success
        for text in (*not_messages(), texts[0]):
            for channel in CHANNELS:
                store.publish(channel, text)
        store.lpush("celery", *texts)
        deadline = time.monotonic() + 90
        while not is_through(store, ids):
            assert worker.poll() is None
            assert time.monotonic() < deadline, records_of(store, ids)
            time.sleep(0.2)
        begun = time.monotonic()
        assert client.submit("print(6 * 7)").result(timeout=60).output == "42\n"
        assert time.monotonic() - begun < 20
        assert len(client.workers()) == 1
        assert worker.poll() is None
        assert records_of(store, ids).keys() == ids
    lines = []
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    assert not [line for line in lines if CODE in str(line) or DATA in str(line)]
    assert not [line for line in lines if line["event"].startswith("Redis is")]
    assert [line for line in lines if line["event"].startswith("left out")]
    dropped = [line for line in lines if line["event"].startswith("dropped a message")]
    assert sum(not line.get("task_id") for line in dropped) == len(texts) - len(ids)
    assert all(line["level"] == "warning" for line in dropped)
