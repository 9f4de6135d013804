"""One trace from the producer's call to the strategy's run: the producer's spans in memory, the worker's over OTLP."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from local import private_redis, private_worker
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tasks import Settings, StrategyClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(ThreadingHTTPServer):
    """Takes what a worker exports, as an OpenTelemetry collector would."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        super().__init__(("127.0.0.1", 0), Receiver)


class Receiver(BaseHTTPRequestHandler):
    """One export."""

    server: Collector

    def do_POST(self) -> None:
        """Keep its spans."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def produced(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the producer's own provider has seen."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_one_trace_from_submit_to_container(collector: Collector, produced: InMemorySpanExporter) -> None:
    """Submission, task, wait for the sandbox and run hang together, and tell nothing of code or output."""
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    with (
        private_redis() as url,
        StrategyClient(Settings(redis_url=url)) as client,
        private_worker(url, concurrency=1, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="100"),
    ):
        with trace.get_tracer("agent").start_as_current_span("decide"):
            submission = client.submit("marker = 'secret'\nprint(marker * 2)", user_id="alice")
        assert submission.result(timeout=30).success
        deadline = time.monotonic() + 10
        while len(collector.spans) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    submit, decide = produced.get_finished_spans()
    assert (submit.name, decide.name) == ("submit", "decide")
    assert submit.parent is not None
    assert submit.parent.span_id == decide.context.span_id
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"run/STRATEGY_EXECUTION", "acquire sandbox", "execute strategy"}
    task = spans["run/STRATEGY_EXECUTION"]
    trace_id = decide.context.trace_id.to_bytes(16, "big")
    assert {span.trace_id for span in spans.values()} == {trace_id}
    assert int.from_bytes(task.parent_span_id, "big") == submit.context.span_id
    assert spans["acquire sandbox"].parent_span_id == spans["execute strategy"].parent_span_id == task.span_id
    run = spans["execute strategy"]
    assert task.start_time_unix_nano <= run.start_time_unix_nano < run.end_time_unix_nano <= task.end_time_unix_nano
    assert "succeeded" in {attribute.value.string_value for attribute in run.attributes}
    assert "secret" not in str(collector.spans)
