"""What a submission looks like in Redis: as if Celery had sent it."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery

from tasks import ExecutionRequest, Settings, StrategyClient
from tasks.app import READY_PRIORITY, StratboxApp, create_app
from tasks.message import SUBMITTED_AT, encode, event, readdress
from tasks.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = ExecutionRequest(code="print('gr\u00fc\u00df')", data={"price": 1.5}, timeout=5, user_id="tenant-7", seed=3)


@pytest.fixture
def app(redis_url: str) -> Iterator[StratboxApp]:
    """The client's app."""
    with create_app(Settings(redis_url=redis_url)) as opened:
        yield opened
        opened.backend.client.close()


@pytest.fixture
def plain(redis_url: str) -> Iterator[Celery]:
    """A Celery that has none of our code."""
    with Celery(broker=redis_url, backend=redis_url, set_as_current=False) as opened:
        yield opened
        opened.backend.result_consumer.stop()


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """The module's Redis, asked directly, and empty."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as opened:
        opened.flushall()
        yield opened


def body_of(raw: dict[str, Any]) -> Any:
    """Undo the envelope without Celery."""
    body = base64.b64decode(raw["body"])
    return json.loads(zlib.decompress(body) if "compression" in raw["headers"] else body)


def received(app: Celery, text: str) -> Any:
    """Return the message as a worker's kombu has it, decoded."""
    with app.connection_for_read() as connection, connection.channel() as channel:
        return channel.message_to_python(json.loads(text))


def test_it_is_what_celery_itself_would_send(app: StratboxApp, plain: Celery, store: redis.Redis) -> None:
    """Envelope, headers, properties and body, but for the time, the description, the address and the list."""
    task_id = str(uuid.uuid4())
    fields = REQUEST.model_dump(mode="json", exclude_defaults=True)
    plain.send_task("STRATEGY_EXECUTION", kwargs=fields, task_id=task_id)
    theirs = json.loads(str(store.rpop("celery")))
    ours = json.loads(encode(app, task_id, REQUEST, {"traceparent": "00-1"}).text)

    assert body_of(ours) == body_of(theirs)
    assert body_of(ours)[:2] == [[], fields]
    assert abs(ours["headers"].pop(SUBMITTED_AT) - time.time()) < 10
    assert ours["headers"].pop("traceparent") == "00-1"
    taken = [
        [one["properties"].pop(name) for name in ("delivery_tag", "priority", "reply_to")] for one in (ours, theirs)
    ]
    assert taken[0] == [task_id, READY_PRIORITY, ""], "nobody waits for a reply"
    assert taken[1][1] == 0
    for one in (ours, theirs):
        del one["body"], one["headers"]["kwargsrepr"]
        assert not one["headers"].pop("ignore_result")
    assert ours == theirs


@pytest.mark.parametrize("size", [200, 4095, 4096, 100_000, 3_000_000])
def test_what_is_long_is_compressed_and_read_by_kombu(app: StratboxApp, size: int) -> None:
    """From 4,096 bytes on, to the byte; what is read is the same."""
    bare = len(base64.b64decode(json.loads(encode(app, "x-1", ExecutionRequest(code="x", data="z"), {}).text)["body"]))
    request = ExecutionRequest(code="x", data="z" * (size - bare + 1))
    text = encode(app, "x-1", request, {}).text
    message = received(app, text)
    assert message.payload[1] == request.model_dump(exclude_defaults=True)
    assert len(json.dumps(message.payload)) == size
    assert ("compression" in message.headers) == (size >= 4096)
    assert (len(text) < size / 2) == (size >= 4096)


def test_the_digest_is_of_the_request_alone(app: StratboxApp) -> None:
    """Neither id nor time nor headers count, every field does."""
    fields: dict[str, Any] = REQUEST.model_dump()
    first = encode(app, "x-1", REQUEST, {}).digest
    assert encode(app, "x-2", ExecutionRequest(**fields), {"traceparent": "00-1"}).digest == first
    changes: list[dict[str, Any]] = [{"code": "x"}, {"data": 1}, {"timeout": 6}, {"user_id": "b"}, {"seed": None}]
    changes += [{"data": {}, "dataset": digit * 64} for digit in "ab"] + [{"params": {}}, {"params": {"fast": 5}}]
    digests = {encode(app, "x-1", ExecutionRequest(**fields | change), {}).digest for change in changes}
    assert len(digests - {first}) == len(changes)


def test_nothing_of_code_or_data_is_outside_the_body(app: StratboxApp) -> None:
    """Description and event show user, hash and sizes."""
    request = ExecutionRequest(code="secret_code = 1", data="secret_data", user_id="tenant-7")
    encoded = encode(app, "x-1", request, {})
    outside = json.dumps({**json.loads(encoded.text), "body": ""}) + json.dumps(body_of(json.loads(encoded.sent[1])))
    assert "secret" not in outside
    assert outside.count("user_id='tenant-7'") == 2


def test_readdressed_it_is_as_if_a_client_had_sent_it(app: StratboxApp) -> None:
    """From body and headers alone, with the tag, the list and the priority by which the ledger knows its own."""
    ours = json.loads(encode(app, "x-1", REQUEST, {}).text)
    again = json.loads(readdress("x-1", base64.b64decode(ours["body"]), {"own": 1}, "celery"))
    assert again.pop("headers") == {"own": 1}
    ours.pop("headers")
    assert again == ours


# Events.


def captured(app: Celery, store: redis.Redis, cause: Any) -> list[dict[str, Any]]:
    """Return the one event that comes of it, as Celery's own receiver has it."""
    events: list[dict[str, Any]] = []

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection)

            def note(one: dict[str, Any]) -> None:
                events.append(one)
                receiver.should_stop = True

            receiver.handlers["*"] = note
            receiver.capture(timeout=20, wakeup=False)

    listener = threading.Thread(target=listen)
    listener.start()
    deadline = time.monotonic() + 20
    while not store.pubsub_numpat():
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.01)
    cause()
    listener.join(30)
    while store.pubsub_numpat():
        assert time.monotonic() < deadline, "the listener is not gone"
        time.sleep(0.01)
    return events


def test_a_submission_is_seen_by_celerys_receiver(
    app: StratboxApp, plain: Celery, store: redis.Redis, client: StrategyClient
) -> None:
    """With every field that Celery's own event has, and nothing in it of the code."""
    [ours] = captured(app, store, lambda: client.submit_request(REQUEST))
    plain.conf.task_send_sent_event = True
    [theirs] = captured(app, store, lambda: plain.send_task("STRATEGY_EXECUTION", kwargs={"code": "x"}))
    assert ours.keys() == theirs.keys()
    assert (ours["type"], ours["name"], ours["queue"]) == ("task-sent", "STRATEGY_EXECUTION", "celery")
    for same in ("exchange", "routing_key", "queue", "name", "eta", "expires", "retries", "pid", "parent_id"):
        assert ours[same] == theirs[same], same
    assert ours["uuid"] == ours["root_id"]
    assert (ours["args"], ours["kwargs"]) == ("()", summarize(REQUEST))


def test_nobody_is_told_of_what_was_not_accepted(redis_url: str, app: StratboxApp, store: redis.Redis) -> None:
    """A repeat under a key is no second event: the next one is of the next submission."""
    with StrategyClient(Settings(redis_url=redis_url)) as client:
        client.submit("x = 1", key="daily")

        def twice() -> None:
            client.submit("x = 1", key="daily")
            client.submit("x = 2", user_id="another")

        [seen] = captured(app, store, twice)
    assert "user_id='another'" in seen["kwargs"]


def test_a_revoke_is_seen_by_celerys_receiver(app: StratboxApp, store: redis.Redis) -> None:
    """As Flower wants it."""
    channel, text = event(app, "task-revoked", uuid="x-1", terminated=False, signum=None)
    [seen] = captured(app, store, lambda: store.publish(channel, text))
    assert (seen["type"], seen["uuid"], seen["terminated"], seen["signum"]) == ("task-revoked", "x-1", False, None)
