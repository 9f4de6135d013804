"""Kombu's way to Redis, for messages that hold anything.

Kombu takes what it reads for its own: text that is no JSON, a field that is missing or of another type ends the worker,
or makes it connect again for ever. Here each message is made one that kombu can note, give back and decode, before it
sees it. What it says of a task is examined later, where somebody can be told.
"""

from __future__ import annotations

import bz2
import lzma
import uuid
import zlib
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Any

import redis
import structlog
from kombu import compression
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps, loads

from tasks.app import LIST_SEPARATOR
from tasks.message import TASK_ID
from tasks.models import MAX_DATA_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_BYTES", "REDIS_ERRORS", "SentinelTransport", "Transport", "install", "sound"]

#: Of a message, and of what its body is unpacked to: Celery makes six bytes of two that are not ASCII, base64 four of
#: three.
MOST_BYTES = 4 * MAX_DATA_BYTES
#: An LZMA file says how much memory it wants.
LZMA_MEMORY_BYTES = 2 * MOST_BYTES
#: By kombu's name for it, how to begin to unpack.
UNPACKERS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": partial(lzma.LZMADecompressor, memlimit=LZMA_MEMORY_BYTES),
}
#: What Redis is at fault for; all else that is raised on the way of a message, the message is.
REDIS_ERRORS = (OSError, redis.ConnectionError, redis.TimeoutError, redis.ResponseError)

log = structlog.get_logger(__name__)


def sound(message: dict[str, Any], queue: str) -> dict[str, Any]:
    """Return a message as kombu needs it: every field there, nothing nested deeply, and addressed to this queue.

    The delivery tag stays where it is the id, as in a message of our own; kombu notes what it delivers by it, and a
    stranger's could be that of another message.
    """
    headers, given = _flat(message.get("headers")), _flat(message.get("properties"))
    body, tag, info = message.get("body"), headers.get("id"), _flat(given.get("delivery_info"))
    if not isinstance(given.get("priority"), int):
        given.pop("priority", None)
    if not isinstance(tag, str) or tag != given.get("delivery_tag") or not TASK_ID.fullmatch(tag):
        tag = str(uuid.uuid4())
    return {
        "body": body if isinstance(body, str) else "",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            **given,
            "delivery_tag": tag,
            "delivery_info": {**info, "exchange": "", "routing_key": queue},
        },
    }


def _flat(value: Any) -> dict[str, Any]:
    """Return the fields of a mapping that are not nested deeply: JSON that could be read cannot always be written."""
    fields = value if isinstance(value, dict) else {}
    return {name: one for name, one in fields.items() if not any(map(_holds, _parts(one)))}


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _taken(reply: Any) -> tuple[bytes, bytes] | None:
    """Return what BRPOP has brought, made sound; of what cannot be, say so, and return what it brings after a while."""
    if not reply:
        return None
    place, text = reply
    try:
        message = _read(text)
        made = sound(message, place.decode().rsplit(LIST_SEPARATOR, 1)[0])
        return place, text if made == message else dumps(made).encode()
    except Exception as exc:  # noqa: BLE001  # whatever came
        log.warning("dropped a message that cannot be read", bytes=len(text), error=type(exc).__name__)
        return None


def _read(text: bytes) -> dict[str, Any]:
    if len(text) > MOST_BYTES:
        msg = "too long"
        raise ValueError(msg)
    message = loads(text)
    if not isinstance(message, dict):
        msg = "not an object"
        raise TypeError(msg)
    return message


class _Careful:
    """What both of our channels have in place of kombu's."""

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  # kombu's signature
        client = super()._create_client(asynchronous)  # type: ignore[misc]
        client.set_response_callback("BRPOP", _taken)
        return client

    def decode_body(self, body: Any, encoding: Any = None) -> Any:
        """Return nothing where the body is not what it says, as base64 that is broken."""
        try:
            return super().decode_body(body, encoding)  # type: ignore[misc]
        except Exception:  # noqa: BLE001  # it is examined later
            return b""

    def _receive_one(self, client: Any) -> Any:
        # Of what is published to all workers: events of others, and control commands.
        try:
            return super()._receive_one(client)  # type: ignore[misc]
        except (*REDIS_ERRORS, Empty):
            raise
        except Exception as exc:  # noqa: BLE001  # whatever came
            log.warning("left out what was published to workers", error=type(exc).__name__)
            return None


class Channel(_Careful, kombu_redis.Channel):  # type: ignore[misc]
    """One to Redis."""


class SentinelChannel(_Careful, kombu_redis.SentinelChannel):  # type: ignore[misc]
    """One to the Redis that Sentinels name."""


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """To Redis."""

    Channel = Channel


class SentinelTransport(kombu_redis.SentinelTransport):  # type: ignore[misc]
    """To the Redis that Sentinels name."""

    Channel = SentinelChannel


def install() -> None:
    """Take this way wherever this process connects, and unpack no more than `MOST_BYTES`."""
    ours = f"{__name__}:{Transport.__name__}"
    TRANSPORT_ALIASES.update(redis=ours, rediss=ours, sentinel=f"{__name__}:{SentinelTransport.__name__}")
    for kind in compression.encoders():
        pack, _ = compression.get_encoder(kind)
        compression.register(pack, partial(_unpack, UNPACKERS.get(kind)), kind)


def _unpack(begin: Callable[[], Any] | None, packed: bytes) -> bytes:
    if begin is None:
        msg = "no way to unpack it within bounds"
        raise ValueError(msg)
    unpacker = begin()
    text: bytes = unpacker.decompress(packed, MOST_BYTES)
    if not unpacker.eof:
        msg = "cut off, or too long when unpacked"
        raise ValueError(msg)
    return text
