"""What a message has to say for its task to be run, and what of it Celery gets to see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from celery.app.task import Context

from tasks.app import STRATEGY_EXECUTION
from tasks.backend import FENCE, PAUSE
from tasks.errors import InvalidRequest
from tasks.message import TASK_ID

__all__ = ["Incoming", "examine", "id_of"]

#: Headers that mean something to Celery or to us, some of which end a worker if they are wrong: ours to say.
RESERVED = {*dir(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression", FENCE, PAUSE}
#: What Celery keeps beside the arguments. It would send other tasks by it, with a worker's rights.
FOLLOWING = {"callbacks", "errbacks", "chain", "chord"}

Scalar = str | int | float | None


class Incoming(NamedTuple):
    """What a message asks for."""

    task_id: str
    #: The request's fields, not checked.
    fields: dict[str, Any]
    #: For Celery; without a time to wait for, as that is up to the ledger, which is told how it ended in any case.
    headers: dict[str, Any]
    #: Earliest start, seconds since the epoch.
    due: float | None


def id_of(message: Any) -> str | None:
    """Return a message's id, if it is one."""
    task_id = message.headers.get("id")
    return task_id if isinstance(task_id, str) and TASK_ID.fullmatch(task_id) else None


def examine(message: Any) -> Incoming:
    """Return what a message asks for.

    Raises:
        InvalidRequest: Celery, or a pool process, could do nothing with it.
    """
    headers, task_id = message.headers, id_of(message)
    if not task_id:
        msg = "headers.id: it must be 1 to 255 printable ASCII characters without quotes and backslashes"
        raise InvalidRequest(msg)
    if headers.get("task") != STRATEGY_EXECUTION:
        msg = f"headers.task: it must be {STRATEGY_EXECUTION}"
        raise InvalidRequest(msg)
    due, expires = _moment(headers, "eta"), _moment(headers, "expires")
    own = {name: value for name, value in headers.items() if isinstance(value, Scalar) and name not in RESERVED}
    ours = {
        "task": STRATEGY_EXECUTION,
        "id": task_id,
        "root_id": task_id,
        "expires": expires.isoformat() if expires else None,
        "ignore_result": False,
        "argsrepr": "()",
        "kwargsrepr": headers.get("kwargsrepr"),
    }
    return Incoming(task_id, _fields(message), own | ours, due.timestamp() if due else None)


def _moment(headers: dict[str, Any], name: str) -> datetime | None:
    if not (text := headers.get(name)):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)  # as Celery reads it
    except (OverflowError, TypeError, ValueError):
        msg = f"headers.{name}: it must be a moment in ISO 8601"
        raise InvalidRequest(msg) from None


def _fields(message: Any) -> dict[str, Any]:
    """Return the arguments in a body that a pool process can take; in the ledger another would be tried for ever."""
    args, fields, embed = _unpacked(message)
    if not (isinstance(args, list) and isinstance(fields, dict) and isinstance(embed, dict | None)):
        msg = "body: it must be [[], {the request}, {}]"
        raise InvalidRequest(msg)
    if "self" in fields:  # Celery passes that itself
        msg = "self: Extra inputs are not permitted"
        raise InvalidRequest(msg)
    if any(value or name not in FOLLOWING for name, value in (embed or {}).items()):
        msg = "body: callbacks, chains and chords are not for strategies: send what follows when the result is there"
        raise InvalidRequest(msg)
    return fields


def _unpacked(message: Any) -> Any:
    try:
        args, fields, embed = message.payload
    except Exception:  # noqa: BLE001  # whatever kombu makes of what somebody has sent
        msg = "body: it must be JSON, [[], {the request}, {}], as it is or in base64, and not too long"
        raise InvalidRequest(msg) from None
    return args, fields, embed
