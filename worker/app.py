"""Composition root of a worker: `celery -A worker.app worker`."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_init, worker_process_init, worker_process_shutdown

from tasks.app import create_app
from worker import execution, reaper
from worker.settings import WorkerSettings

__all__ = ["app"]

WorkerSettings()  # a wrong one ends the worker here, instead of every task in its pool processes
app = create_app()
execution.register(app)


@worker_init.connect
def _watch(**_: Any) -> None:
    # Before the fork: the pool processes hold the pipe's end, too. Nobody closes it; the kernel does.
    reaper.start()


@worker_process_init.connect
def _warm_up(**_: Any) -> None:
    # After the fork: the engine's client does not survive one.
    execution.open_executor()


@worker_process_shutdown.connect
def _drain(**_: Any) -> None:
    execution.close_executor()
