"""Metrics without a worker: settings, classes of tenants, listeners, and when nothing is served."""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery.signals import task_failure, task_retry
from pydantic import ValidationError

from tasks import policy
from tasks.app import create_app
from tasks.models import ExecutionMetrics, ExecutionResult, ExecutionStatus, Violation
from tasks.settings import Settings
from worker import events, metrics
from worker.errors import EngineUnavailable
from worker.instruments import LOST, OTHER, RULES, Instruments
from worker.metrics import MetricsSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (*(getattr(events, name) for name in events.__all__), task_failure, task_retry)


@pytest.fixture
def instruments() -> Iterator[Instruments]:
    """Instruments that listen until the test is over."""
    before = [list(signal.receivers) for signal in SIGNALS]
    made = Instruments({"fund-*": "fund", "fund-x": "never"})
    made.connect()
    yield made
    for signal, receivers in zip(SIGNALS, before, strict=True):
        signal.receivers[:] = receivers
        signal.sender_receivers_cache.clear()


def value(metric: Any, name: str, **labels: str) -> float:
    """Return a sample of a metric."""
    samples = [sample for family in metric.collect() for sample in family.samples]
    (found,) = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
    return float(found)


def test_classes_are_read_from_the_environment_s_json() -> None:
    """Patterns keep their order."""
    settings = MetricsSettings(tenant_classes='{"b*": "second", "a*": "first"}')  # type: ignore[arg-type]
    assert list(settings.tenant_classes.items()) == [("b*", "second"), ("a*", "first")]


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ("{", "not JSON like"),
        ("[" * 100_000, "not JSON like"),
        ('["fund"]', "dictionary"),
        ('{"*": "Fund of Funds"}', "pattern"),
        ({str(number): f"class-{number}" for number in range(21)}, "more than 20 classes"),
    ],
)
def test_wrong_classes_are_refused(classes: Any, reason: str) -> None:
    """What is not JSON, no label, or without bound ends a worker before it starts."""
    with pytest.raises(ValidationError, match=reason):
        MetricsSettings(tenant_classes=classes)


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [("fund-7", "fund"), ("fund-x", "fund"), ("FUND-7", "default"), ("", "default"), ("a fund-7", "default")],
)
def test_tenant_class(instruments: Instruments, user_id: str, expected: str) -> None:
    """The first pattern that fits the whole id counts, in its own case."""
    assert instruments.tenant_class(user_id) == expected


def test_rules_are_those_of_the_policy() -> None:
    """Every rule has its series, and no other has."""
    assert set(RULES) == {hint for hint in policy._HINTS if re.fullmatch(r"R\d+", hint)}


def test_a_rule_that_is_none_makes_no_series(instruments: Instruments) -> None:
    """Violations may come out of a container: what it makes up is counted as one thing."""
    made_up = [Violation(rule, 1, 1, "", "", "") for rule in ("R6", "R99", "x" * 1000)]
    result = ExecutionResult(status=ExecutionStatus.REJECTED, violations=tuple(made_up))
    events.executed.send(sender=None, user_id="", result=result)
    assert value(instruments.violations, "stratbox_violations_total", rule="R6") == 1
    assert value(instruments.violations, "stratbox_violations_total", rule=OTHER) == 2


def test_what_did_not_happen_is_not_measured(instruments: Instruments) -> None:
    """A strategy that was refused has no run, and one whose producer kept no time no wait."""
    refused = ExecutionResult(status=ExecutionStatus.REJECTED, metrics=ExecutionMetrics(queue_seconds=None))
    events.executed.send(sender=None, user_id="", result=refused)
    assert value(instruments.total, "stratbox_total_seconds_count") == 1
    assert value(instruments.run, "stratbox_run_seconds_count") == 0
    assert value(instruments.memory, "stratbox_peak_memory_bytes_count") == 0
    assert value(instruments.queue, "stratbox_queue_seconds_count") == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"user_id": "fund-1"}, "fund"), ({"user_id": 7}, "default"), ({}, "default"), (None, "default")],
)
def test_a_task_given_up_is_lost(instruments: Instruments, arguments: Any, expected: str) -> None:
    """Celery says so with arguments nobody has checked."""
    task_failure.send(sender=None, kwargs=arguments, exception=EngineUnavailable("away"))
    assert value(instruments.executions, "stratbox_executions_total", status=LOST, tenant_class=expected) == 1


def test_a_listener_that_fails_does_not_reach_the_sender(
    instruments: Instruments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Strategies are worth more than numbers."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(instruments.reaped, "inc", fail)
    events.containers_reaped.send(sender=None, count=1)
    assert "No space left" in caplog.text


def folders() -> set[Path]:
    """Return the folders of values there are."""
    return set(Path(tempfile.gettempdir()).glob("stratbox-metrics-*"))


def test_port_0_is_no_metrics() -> None:
    """Nothing listens, nothing is written, nobody is told where to write."""
    existing = folders()
    metrics.start(MetricsSettings(port=0), create_app(Settings()))
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert folders() == existing
    assert not events.executed.receivers


def test_taken_port_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A second worker on a host goes on without metrics, and says what to set."""
    existing = folders()
    with socket.create_server(("127.0.0.1", 0)) as other:
        metrics.start(MetricsSettings(port=other.getsockname()[1]), create_app(Settings()))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "STRATBOX_METRICS_PORT" in record.getMessage()
    assert folders() == existing
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert not events.executed.receivers


def test_nowhere_to_write_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a read-only root without a place for temporary files, a worker works without metrics."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    metrics.start(MetricsSettings(port=1), create_app(Settings()))
    (record,) = caplog.records
    assert "No such file" in record.getMessage()
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_a_folder_of_somebody_else_s_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may have set the variable for another program: nothing is counted there, nothing removed."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics.join()
    metrics.FOLDER.remove()
    assert tmp_path.is_dir()
    assert list(tmp_path.iterdir()) == []
    assert not events.executed.receivers
