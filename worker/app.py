"""Composition root of a worker: `celery -A worker.app worker`."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import redis
from celery.signals import (
    setup_logging,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
    worker_shutting_down,
)

from tasks.app import create_app
from worker import consumer, datasets, execution, health, logs, metrics, reaper, tracing, transport
from worker.settings import WorkerSettings

__all__ = ["app"]

settings = WorkerSettings()  # a wrong one ends the worker here, instead of every task in its pool processes
transport.install()
app = create_app()
app.conf.worker_consumer = "worker.consumer:ExecutionConsumer"
app.steps["consumer"].add(health.Pulse)
app.steps["consumer"].add(consumer.Steward)
execution.register(app)


@setup_logging.connect
def _log_as_we_do(loglevel: int | str | None = None, **_: Any) -> None:
    logs.configure(loglevel)


@worker_init.connect
def _measure(**_: Any) -> None:
    # Before the fork and the reaper: all of them count.
    metrics.start(settings.metrics, app)


@worker_init.connect
def _share_datasets(**_: Any) -> None:
    # Before the fork and the reaper: all of them know the folder.
    datasets.start()


@worker_init.connect
def _watch(**_: Any) -> None:
    # Before the fork: the pool processes hold the pipe's end, too. Nobody closes it; the kernel does.
    reaper.start()


@worker_process_init.connect
def _warm_up(**_: Any) -> None:
    # After the fork: the engine's client does not survive one.
    health.note_starts()
    tracing.start()
    execution.open_executor()


@worker_process_shutdown.connect
def _drain(**_: Any) -> None:
    execution.close_executor()
    tracing.stop()


@worker_shutdown.connect
def _release(**_: Any) -> None:
    # After a warm shutdown there is nothing; after a cold one, what it cut off need not be missed first.
    with contextlib.suppress(redis.RedisError):
        app.backend.ledger.release()


@worker_shutting_down.connect
def _next_one_is_cold(sig: str, **_: Any) -> None:
    # Celery takes a second SIGTERM as it took the first: somebody who sends two means it.
    if sig == "SIGTERM":
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGQUIT))
