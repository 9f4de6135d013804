"""What the worker tells whoever listens: the code that runs strategies does not know who counts.

Celery's own signals carry it. With nobody connected, sending costs less than a microsecond; what a listener raises is
logged, and does not reach the sender. Each is sent in the process, and the thread, in which it happened.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

__all__ = [
    "containers_reaped",
    "engine_failed",
    "executed",
    "sandbox_acquired",
    "sandbox_destroyed",
    "sandbox_kept",
    "sandbox_released",
    "sandbox_started",
]

#: A request has its result: `user_id`, `result`.
executed = Signal(name="executed", providing_args={"user_id", "result"})
#: The machinery failed, for an execution or ahead of demand: `error`, a `SandboxError`.
engine_failed = Signal(name="engine_failed", providing_args={"error"})
#: A sandbox is warm: `seconds` it took.
sandbox_started = Signal(name="sandbox_started", providing_args={"seconds"})
#: An execution has its sandbox: `acquired`, with whether it was warm and how long the execution waited.
sandbox_acquired = Signal(name="sandbox_acquired", providing_args={"acquired"})
#: A sandbox is no longer of use: `used`, whether an execution had it.
sandbox_released = Signal(name="sandbox_released", providing_args={"used"})
#: A sandbox that has run waits for its tenant's next strategy.
sandbox_kept = Signal(name="sandbox_kept")
#: Its container is gone: `seconds` that took.
sandbox_destroyed = Signal(name="sandbox_destroyed", providing_args={"seconds"})
#: The reaper removed what dead owners left: `count`, never 0.
containers_reaped = Signal(name="containers_reaped", providing_args={"count"})
