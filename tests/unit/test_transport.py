"""What is made of a message before kombu sees it; test_malformed.py shows it with a real worker."""

from __future__ import annotations

import bz2
import json
import lzma
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection, compression
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls
from kombu.transport import redis as kombu_redis

from tasks import ExecutionRequest, Settings
from tasks.app import create_app
from tasks.message import encode
from worker import transport

if TYPE_CHECKING:
    from collections.abc import Callable

EMPTY = {"body": "", "content-encoding": "utf-8", "content-type": "application/json", "headers": {}}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install it for one test only."""
    for registry in (TRANSPORT_ALIASES, compression._decoders):
        for name, value in dict(registry).items():
            monkeypatch.setitem(registry, name, value)
    transport.install()


@pytest.fixture
def own() -> dict[str, Any]:
    """A message of our client's."""
    with create_app(Settings(redis_url="redis://127.0.0.1:1/0")) as app:
        made: dict[str, Any] = json.loads(encode(app, "x-1", ExecutionRequest(code="x = 1"), {"own": 1}).text)
    return made


def test_a_message_of_our_own_stays_as_it_is(own: dict[str, Any]) -> None:
    """Also when kombu has put it back; so it need not be written again."""
    assert transport.sound(own, "celery") == own
    own["headers"]["redelivered"] = own["properties"]["delivery_info"]["redelivered"] = True
    assert transport.sound(own, "celery") == own


@pytest.mark.parametrize("tag", ["another", None, ["x"], 5])
def test_another_tag_is_replaced(own: dict[str, Any], tag: Any) -> None:
    """Kombu would note it over the message that has it."""
    own["properties"]["delivery_tag"] = tag
    made = transport.sound(own, "celery")["properties"]["delivery_tag"]
    assert str(uuid.UUID(made)) == made


@pytest.mark.parametrize("odd", ["\ud800", "", "x" * 256, 'x"', "x\\", "x\n", ["x"]])
def test_what_can_be_no_id_can_be_no_tag(odd: Any) -> None:
    """Redis could not store it, or the ledger not find it."""
    made = transport.sound({"headers": {"id": odd}, "properties": {"delivery_tag": odd}}, "celery")
    assert made["properties"]["delivery_tag"] != odd


@pytest.mark.parametrize(
    "message", [{}, {"body": 5, "headers": [], "properties": "x"}, {"properties": {"priority": "x"}}]
)
def test_every_field_is_there(message: dict[str, Any]) -> None:
    """Whatever was, and it goes back to where it came from, not where it says."""
    made = transport.sound(message, "celery")
    assert made.pop("properties")["delivery_info"] == {"exchange": "", "routing_key": "celery"}
    assert made == EMPTY


def test_what_cannot_be_read_is_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu then asks again; what can is read to the byte, from the list it came from."""
    monkeypatch.setattr(transport, "MOST_BYTES", 100)
    for text in (b"", b"hello", b"[]", b"\xff", b"1" * 99, b'{"x": "' + b"x" * 100 + b'"}'):
        assert transport._taken((b"celery:3", text)) is None
    assert transport._taken(None) is None
    place, text = transport._taken((b"celery:3", b'{"x": 1}')) or (b"", b"")
    assert place == b"celery:3"
    assert json.loads(text)["properties"]["delivery_info"]["routing_key"] == "celery"


def test_nothing_is_nested_deeply() -> None:
    """What was read can be written, wherever in a program that is."""
    deep = json.loads("[" * 900 + "]" * 900)
    headers = {"deep": deep, "flat": [1, None], "also": {"x": 1}, "text": "x"}
    made = transport.sound({"headers": headers, "properties": {"delivery_info": {"x": deep}, "deep": deep}}, "celery")
    del headers["deep"]
    assert made["headers"] == headers
    assert made["properties"].keys() == {"delivery_tag", "delivery_info"}


@pytest.mark.parametrize("name", ["redis", "rediss", "sentinel"])
def test_whatever_the_url_it_is_our_way(name: str) -> None:
    """To one Redis, over TLS, and by Sentinels."""
    ours = get_transport_cls(TRANSPORT_ALIASES[name])
    assert ours is not None
    assert ours.Channel.__module__ == transport.__name__
    assert issubclass(ours, kombu_redis.SentinelTransport) is (name == "sentinel")
    assert Connection(f"{name}://127.0.0.1:1/0").transport_cls == name


@pytest.mark.parametrize(("pack", "name"), [(zlib.compress, "zlib"), (bz2.compress, "bzip2"), (lzma.compress, "lzma")])
def test_it_is_unpacked_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], name: str
) -> None:
    """To the byte; what is longer, cut off, or no such thing, is an error."""
    monkeypatch.setattr(transport, "MOST_BYTES", 10_000)
    assert compression.decompress(pack(b"x" * 10_000), name) == b"x" * 10_000
    for wrong in (pack(b"x" * 10_001), pack(b"x" * 10_000)[:-1], b"x", b""):
        with pytest.raises((ValueError, OSError, EOFError, zlib.error, lzma.LZMAError)):
            compression.decompress(wrong, name)
