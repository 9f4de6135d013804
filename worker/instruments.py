"""What is counted and measured, and the listeners that do it.

No label has a value that a producer or a strategy could choose freely.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from celery.signals import task_failure, task_retry
from prometheus_client import Counter, Gauge, Histogram

from tasks.models import MIB, ExecutionStatus
from worker import events
from worker.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.models import ExecutionResult
    from worker.sandbox.pool import Acquired

__all__ = ["DEFAULT_CLASS", "LOST", "RULES", "Instruments"]

#: The class of whoever no pattern of the operator's names.
DEFAULT_CLASS = "default"
#: The status of a submission that the infrastructure failed for good: it has no result.
LOST = "lost"
#: The rules of the code policy.
RULES = tuple(f"R{number}" for number in range(12))
#: A rule that is none of them can only come from a sandbox that lies.
OTHER = "other"

# Buckets. Each set starts below what was measured on an idle machine and ends at the limit that cuts it off, with a
# step of two to three between: enough for a percentile that is right within a factor of two.
#: From submit to start: 4 ms through an idle queue. Its end is an operator's patience.
QUEUE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
#: 0.6 to 0.8 s in a small virtual machine, 0.2 s on bare metal; the operator's ceiling is 35 s. Closest around 1 s.
STARTUP_BUCKETS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 35)
#: Under 1 ms for a warm sandbox, else up to a start.
ACQUIRE_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 5, 10, 35)
#: 10 ms for a small strategy in a warm sandbox; 60 s is the contract's ceiling, and a kill comes a little after it.
RUN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 65)
#: 0.1 to 0.3 s; the engine's client gives up after 30 s.
TEARDOWN_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
#: All of it, up to the soft limit.
TOTAL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 100)
#: Up to 60 s on half a core by default, on several where the operator allows it.
CPU_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 240)
#: 46 MiB are there before a strategy's first line, so closest there; 256 MiB is the default ceiling.
MEMORY_BUCKETS = tuple(mib * MIB for mib in (40, 48, 56, 64, 96, 128, 160, 192, 224, 256, 384, 512, 1024, 4096))


class Instruments:
    """The metrics of one process, and the listeners that keep them.

    Args:
        tenant_classes: from patterns of user ids, as in a shell, to classes; the first that fits counts.
    """

    def __init__(self, tenant_classes: Mapping[str, str]) -> None:
        self._tenant_classes = tenant_classes
        self.executions = _counter("stratbox_executions_total", "Executions that have ended.", "status", "tenant_class")
        self.violations = _counter("stratbox_violations_total", "Violations of the code policy, by rule.", "rule")
        self.acquisitions = _counter(
            "stratbox_acquisitions_total", "Sandboxes given out, by whether one was warm.", "warm"
        )
        self.engine_errors = _counter(
            "stratbox_engine_errors_total", "Failures of the infrastructure, by kind.", "kind"
        )
        self.retries = _counter("stratbox_retries_total", "Executions put back into the queue after such a failure.")
        self.reaped = _counter("stratbox_reaped_containers_total", "Containers of dead owners that the reaper removed.")
        self.sandboxes = Gauge(
            "stratbox_sandboxes", "Sandboxes alive.", ["state"], multiprocess_mode="livesum", registry=None
        )
        self.queue = _histogram("stratbox_queue_seconds", "From submission to the task's start.", QUEUE_BUCKETS)
        self.startup = _histogram("stratbox_startup_seconds", "Making a sandbox, until it is warm.", STARTUP_BUCKETS)
        self.acquire = _histogram("stratbox_acquire_seconds", "An execution's wait for its sandbox.", ACQUIRE_BUCKETS)
        self.run = _histogram("stratbox_run_seconds", "The strategy's own run.", RUN_BUCKETS)
        self.teardown = _histogram("stratbox_teardown_seconds", "Removing a sandbox.", TEARDOWN_BUCKETS)
        self.total = _histogram("stratbox_total_seconds", "From the task's start to its result.", TOTAL_BUCKETS)
        self.cpu = _histogram("stratbox_cpu_seconds", "Processor time of a run.", CPU_BUCKETS)
        self.memory = _histogram("stratbox_peak_memory_bytes", "Peak memory of a run.", MEMORY_BUCKETS)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """Make every series now: the increase to a first 1 is one that Prometheus sees only after a 0."""
        for tenant_class in {DEFAULT_CLASS, *self._tenant_classes.values()}:
            for status in (*ExecutionStatus, LOST):
                self.executions.labels(status, tenant_class)
        for rule in (*RULES, OTHER):
            self.violations.labels(rule)
        for warm in ("true", "false"):
            self.acquisitions.labels(warm)
        for kind in SandboxError.__subclasses__():
            self.engine_errors.labels(kind.__name__)
        for state in ("warm", "running"):
            self.sandboxes.labels(state)

    def connect(self) -> None:
        """Listen, in this process and in those that it forks."""
        for signal, listener in (
            (events.executed, self._executed),
            (events.engine_failed, self._engine_failed),
            (events.sandbox_started, self._started),
            (events.sandbox_acquired, self._acquired),
            (events.sandbox_kept, self._kept),
            (events.sandbox_released, self._released),
            (events.sandbox_destroyed, self._destroyed),
            (events.containers_reaped, self._reaped),
            (task_retry, self._retried),
            (task_failure, self._lost),
        ):
            signal.connect(listener, weak=False)

    def tenant_class(self, user_id: str) -> str:
        """Return the class of a user."""
        fitting = (name for pattern, name in self._tenant_classes.items() if fnmatchcase(user_id, pattern))
        return next(fitting, DEFAULT_CLASS)

    def _executed(self, user_id: str, result: ExecutionResult, **_: Any) -> None:
        self.executions.labels(result.status, self.tenant_class(user_id)).inc()
        for violation in result.violations:
            self.violations.labels(violation.rule if violation.rule in RULES else OTHER).inc()
        metrics = result.metrics
        self.total.observe(metrics.total_seconds)
        if metrics.queue_seconds is not None:
            self.queue.observe(metrics.queue_seconds)
        # Zeros stand for what did not happen: no run, or no report of it.
        if metrics.wall_seconds:
            self.run.observe(metrics.wall_seconds)
        if metrics.peak_memory_bytes:
            self.memory.observe(metrics.peak_memory_bytes)
            self.cpu.observe(metrics.cpu_seconds)

    def _engine_failed(self, error: SandboxError, **_: Any) -> None:
        self.engine_errors.labels(type(error).__name__).inc()

    def _started(self, seconds: float, **_: Any) -> None:
        self.startup.observe(seconds)
        self.sandboxes.labels("warm").inc()

    def _acquired(self, acquired: Acquired, **_: Any) -> None:
        self.acquisitions.labels(str(acquired.warm).lower()).inc()
        self.acquire.observe(acquired.wait_seconds)
        self.sandboxes.labels("warm").dec()
        self.sandboxes.labels("running").inc()

    def _kept(self, **_: Any) -> None:
        self.sandboxes.labels("running").dec()
        self.sandboxes.labels("warm").inc()

    def _released(self, *, used: bool, **_: Any) -> None:
        self.sandboxes.labels("running" if used else "warm").dec()

    def _destroyed(self, seconds: float, **_: Any) -> None:
        self.teardown.observe(seconds)

    def _reaped(self, count: int, **_: Any) -> None:
        self.reaped.inc(count)

    def _retried(self, **_: Any) -> None:
        self.retries.inc()

    def _lost(self, kwargs: Any = None, **_: Any) -> None:
        # Sent by Celery with the task's own arguments, which nobody has checked.
        user_id = kwargs.get("user_id") if isinstance(kwargs, dict) else None
        self.executions.labels(LOST, self.tenant_class(user_id if isinstance(user_id, str) else "")).inc()


# Of no registry: what is served is read from the files of all processes.


def _counter(name: str, documentation: str, *labels: str) -> Counter:
    return Counter(name, documentation, labels, registry=None)


def _histogram(name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, documentation, buckets=buckets, registry=None)
