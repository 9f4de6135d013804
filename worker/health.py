"""Can this worker run strategies now, and does its main process still do its rounds? `python -m worker.health`.

The pool processes note, in memory they share with the main one, whether sandboxes start. The main process writes what
it knows into STRATBOX_HEALTH_FILE every few seconds; the command reads it, so that a health check needs neither Redis
nor the engine.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps
from pydantic import ValidationError

from worker import events
from worker.sandbox.pool import SandboxPool
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from celery.worker.consumer import Consumer

__all__ = ["Pulse", "check", "note_starts"]

PULSE_SECONDS = 2.0
#: A main process that has not written for this long hangs, seconds.
STALE_SECONDS = 30.0
READY = "ready"
WAITING_FOR_REDIS = "waiting for Redis"

log = structlog.get_logger(__name__)

# Written by every process without a lock: one that is killed must not hold it for good. At worst a line comes twice.
_started = multiprocessing.RawValue("d")
_failing_since = multiprocessing.RawValue("d")


def note_starts() -> None:
    """In a pool process: note, and log when it changes, whether sandboxes can be started."""
    events.sandbox_started.connect(_on_started, sender=SandboxPool)
    events.engine_failed.connect(_on_failed, sender=SandboxPool)


def _on_started(seconds: float, **_: Any) -> None:
    since = _failing_since.value
    if since > time.time() - seconds:
        return  # it was on its way already when the engine went
    _failing_since.value = 0.0
    _started.value = time.time()
    if since:
        log.info("sandboxes start again", after_seconds=round(time.time() - since, 1))


def _on_failed(error: Exception, **_: Any) -> None:
    if not _failing_since.value:
        _failing_since.value = time.time()
        log.warning("no sandbox can be started, strategies wait", error=str(error))


def state() -> str:
    """Return `READY`, or what is missing: engine, image and the first warm sandbox are there, or they are not."""
    if _failing_since.value:
        return f"no sandbox can be started for {time.time() - _failing_since.value:.0f} s: see the log"
    return READY if _started.value else "the first sandbox is being started"


class Pulse(bootsteps.StartStopStep):
    """Writes the health file while the worker's event loop turns; it stops when the connection to Redis does."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Consumer, **_: Any) -> None:
        self._file = WorkerSettings().health_file
        self._timer: Any = None
        super().__init__(consumer)

    def start(self, consumer: Consumer) -> None:
        """Connected, or connected again."""
        self._write(state())
        self._timer = consumer.timer.call_repeatedly(PULSE_SECONDS, lambda: self._write(state()))

    def stop(self, consumer: Consumer) -> None:
        """Disconnected, for a while or for good."""
        del consumer
        if self._timer:
            self._timer.cancel()
        self._write(WAITING_FOR_REDIS)

    def _write(self, what: str) -> None:
        if self._file is None:
            return
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"pid": os.getpid(), "state": what}))
        partial.replace(self._file)


def check(file: Path, *, alive_only: bool) -> str | None:
    """Return what is wrong with the worker that writes this file; None when it is ready, or at least alive.

    While it waits for Redis it is not ready, but alive: to start it again would not bring Redis back.
    """
    try:
        written = json.loads(file.read_text())
        age = time.time() - file.stat().st_mtime
        os.kill(written["pid"], 0)
    except ProcessLookupError:
        return "the worker has ended"
    except PermissionError:
        pass  # it lives, as somebody else
    except (OSError, ValueError, KeyError, TypeError):
        return f"no worker has written {file} yet"
    waiting = written["state"] == WAITING_FOR_REDIS
    if age > STALE_SECONDS and not waiting:
        return f"the worker hangs: nothing from it for {age:.0f} s"
    if alive_only or written["state"] == READY:
        return None
    return f"not ready: {written['state']}"


def main() -> None:
    """Exit with 0 when the worker is ready (`--alive`: when it is alive), else with 1 and one line on stderr."""
    try:
        file = WorkerSettings().health_file
    except ValidationError as exc:
        sys.exit(f"health: {exc.errors()[0]['msg'].removeprefix('Value error, ')}")
    if file is None:
        sys.exit("health: set STRATBOX_HEALTH_FILE to the same path for the worker and for this check")
    if problem := check(file, alive_only="--alive" in sys.argv[1:]):
        sys.exit(f"health: {problem}")


if __name__ == "__main__":
    main()
