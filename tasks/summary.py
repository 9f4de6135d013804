"""How an execution is described to Flower, events and logs: without a word of its code or data."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest
from tasks.models import ExecutionRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["describe", "is_summary", "summarize"]

_SUMMARY = re.compile(
    r"user_id=(?P<quote>['\"]).{0,1280}(?P=quote), code=sha256:[0-9a-f]{12} \(\d{1,6} bytes\), "
    r"(?:data=\d{1,8} bytes|dataset=sha256:[0-9a-f]{12}), timeout=(?:default|[\d.e-]{1,16} s)"
)


def summarize(request: ExecutionRequest) -> str:
    """Name the user of a request, the hash of its code, the size of its data or the hash of its data set."""
    code = request.code.encode()
    digest = hashlib.sha256(code).hexdigest()[:12]
    data = f"dataset=sha256:{request.dataset[:12]}" if request.dataset else f"data={len(request.data_json)} bytes"
    timeout = "default" if request.timeout is None else f"{request.timeout:g} s"
    return f"user_id={request.user_id!r}, code=sha256:{digest} ({len(code)} bytes), {data}, timeout={timeout}"


def is_summary(text: object) -> bool:
    """Whether a message's description is a summary; Celery's own shows the arguments themselves."""
    return isinstance(text, str) and _SUMMARY.fullmatch(text) is not None


def describe(fields: Mapping[str, Any]) -> str:
    """Summarize the fields of a message, whatever they are."""
    try:
        return summarize(ExecutionRequest.parse(fields))
    except InvalidRequest:
        return "not a valid request"
