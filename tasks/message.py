"""The messages of a submission as they lie in Redis: the task itself, and the event that it was sent.

Celery's protocol 2 in kombu's envelope. Celery's own producer would write them one by one; here they go to Redis
together with the record of the submission, as arguments of one script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.events import Event
from celery.utils.nodenames import anon_nodename
from celery.utils.time import utcoffset
from kombu.compression import compress
from kombu.utils.json import dumps

from tasks.app import READY_PRIORITY, STRATEGY_EXECUTION
from tasks.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from tasks.models import ExecutionRequest

__all__ = ["SUBMITTED_AT", "TASK_ID", "Message", "encode", "event", "readdress"]

#: Message header with the producer's clock (seconds since the epoch), from which workers tell the wait in the queue.
SUBMITTED_AT = "stratbox_submitted_at"
#: What may be an id: text that JSON leaves as it is, so that the ledger finds it in a message.
TASK_ID = re.compile(r"[ !#-\[\]-~]{1,255}")
#: Bodies from this size on are compressed. Below it little is won; code and prices shrink to a third or less.
COMPRESS_FROM_BYTES = 4096
EVENTS_EXCHANGE = "celeryev"


class Message(NamedTuple):
    """What the ledger stores for a submission."""

    #: As it is put into the queue.
    text: str
    #: SHA-256 of what was asked for; the same for the same request.
    digest: str
    #: Channel and event that say so.
    sent: tuple[str, str]


def encode(app: Celery, task_id: str, request: ExecutionRequest, headers: Mapping[str, Any]) -> Message:
    """Return the messages for a request.

    Args:
        app: whose queue and protocol they are for.
        task_id: of the submission; it is the delivery tag, too, so that the ledger can tell whether a worker has it.
        request: what to run.
        headers: to add to Celery's own.
    """
    queue = app.conf.task_default_queue
    task = app.amqp.as_task_v2(
        task_id,
        STRATEGY_EXECUTION,
        argsrepr="()",
        kwargsrepr=summarize(request),
        create_sent_event=True,
    )
    body = _body(request, task.body[2])
    text = _envelope(
        body, {**task.headers, SUBMITTED_AT: time.time(), **headers}, task.properties, _address(task_id, queue)
    )
    sent = event(app, "task-sent", queue=queue, exchange="", routing_key=queue, **task.sent_event)
    return Message(text, hashlib.sha256(body).hexdigest(), sent)


def _body(request: ExecutionRequest, embed: Any) -> bytes:
    """Return a task's arguments as Celery would write them; the data, megabytes maybe, as the request has them."""
    data = request.data_json  # with its parameters, unless it is a data set
    fields = request.model_dump(mode="json", exclude_defaults=True, exclude={"data", "params"} if data else {"data"})
    kwargs = dumps(fields).encode()
    if data not in (b"", b"{}"):
        kwargs = b'%b, "data": %b}' % (kwargs[:-1], data)
    return b"[[], %b, %b]" % (kwargs, dumps(embed).encode())


def event(app: Celery, kind: str, **fields: Any) -> tuple[str, str]:
    """Return channel and text of an event for Flower, as Celery would send it."""
    node = anon_nodename()
    origin = {"hostname": node, "pid": os.getpid(), "utcoffset": utcoffset(), "clock": app.clock.forward()}
    topic = kind.replace("-", ".")
    delivery = {"exchange": EVENTS_EXCHANGE, "routing_key": topic}
    body = json.dumps(Event(kind, **origin, **fields)).encode()
    text = _envelope(body, {"hostname": node}, {}, {"delivery_info": delivery, "delivery_tag": str(uuid.uuid4())})
    return f"/{app.backend.connparams['db']}.{EVENTS_EXCHANGE}/{topic}", text


def readdress(task_id: str, body: bytes, headers: Mapping[str, Any], queue: str) -> str:
    """Return a message that came by another way as if a client of ours had sent it."""
    return _envelope(body, headers, {"correlation_id": task_id, "reply_to": ""}, _address(task_id, queue))


def _address(task_id: str, queue: str) -> dict[str, Any]:
    delivery = {"exchange": "", "routing_key": queue}
    return {"delivery_tag": task_id, "delivery_info": delivery, "priority": READY_PRIORITY}


def _envelope(
    body: bytes, headers: Mapping[str, Any], properties: Mapping[str, Any], address: Mapping[str, Any]
) -> str:
    headers = dict(headers)
    if len(body) >= COMPRESS_FROM_BYTES:
        body, headers["compression"] = compress(body, "zlib")
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {**properties, "body_encoding": "base64", "delivery_mode": 2, **address},
        }
    )
