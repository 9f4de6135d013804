"""The worker's part of a trace: a span for the task, and within it one for the wait for a sandbox and one for the run.

On where OTEL_EXPORTER_OTLP_ENDPOINT says where to send spans; the other OTEL_* variables are the SDK's own. Needs
`stratbox[otel]`.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from worker import events

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from tasks.models import ExecutionResult
    from worker.sandbox.pool import Acquired

__all__ = ["start", "stop"]

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_provider: TracerProvider | None = None


def start() -> None:
    """Begin in a pool process: what sends the spans is a thread, which a fork would not take along."""
    global _provider  # noqa: PLW0603  # one for each pool process
    if not any(map(os.environ.get, ENDPOINTS)):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.instrumentation.celery import CeleryInstrumentor  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but there is no OpenTelemetry: install stratbox[otel]")
        return
    # OTEL_SERVICE_NAME, where it is set, goes before this one.
    _provider = TracerProvider(resource=Resource.create({"service.name": "stratbox-worker"}))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    CeleryInstrumentor().instrument(tracer_provider=_provider)  # type: ignore[no-untyped-call]
    events.sandbox_acquired.connect(_acquired)
    events.executed.connect(_executed)


def stop() -> None:
    """Send what is left; at the end of a pool process."""
    if _provider:
        _provider.shutdown()


def _acquired(acquired: Acquired, **_: Any) -> None:
    _span("acquire sandbox", acquired.wait_seconds, {"stratbox.warm": acquired.warm})


def _executed(result: ExecutionResult, **_: Any) -> None:
    measured = result.metrics
    attributes = {
        "stratbox.status": result.status.value,
        "stratbox.cpu_seconds": measured.cpu_seconds,
        "stratbox.peak_memory_bytes": measured.peak_memory_bytes,
    }
    _span("execute strategy", measured.wall_seconds, attributes)


def _span(name: str, seconds: float, attributes: dict[str, Any]) -> None:
    """Add a span that ends now, within the one of the task."""
    if _provider:
        now = time.time_ns()
        started = now - round(seconds * 1e9)
        _provider.get_tracer(__name__).start_span(name, start_time=started, attributes=attributes).end(now)
