"""The producer's part of a trace: a span for each submission, and its context in the message's headers.

With OpenTelemetry's API installed (`stratbox[otel]`) the span goes to whatever provider the producer has set up;
without one, or without the API, nothing happens. Not left to the instrumentation of Celery: it never ends the span of a
task that the producer has no code of.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    from opentelemetry import propagate, trace
except ImportError:  # the extra is not installed
    trace = None  # type: ignore[assignment]

__all__ = ["submission_headers"]


@contextlib.contextmanager
def submission_headers(task_id: str) -> Iterator[dict[str, str]]:
    """Give the headers that make the worker's spans part of the trace around; publish within."""
    headers: dict[str, str] = {}
    if trace is None:
        yield headers
        return
    tracer = trace.get_tracer(__name__)
    attributes = {"messaging.system": "celery", "messaging.message.id": task_id}
    with tracer.start_as_current_span("submit", kind=trace.SpanKind.PRODUCER, attributes=attributes):
        propagate.inject(headers)
        yield headers
