"""The one Celery configuration, for producers and workers alike."""

from __future__ import annotations

from typing import Any

from celery import Celery

from tasks.connection import connection_options, sentinel_options
from tasks.settings import Settings

__all__ = [
    "HARD_LIMIT_SECONDS",
    "READY_PRIORITY",
    "SOFT_LIMIT_SECONDS",
    "STRATEGY_EXECUTION",
    "StratboxApp",
    "create_app",
]

#: The task every producer names and every worker registers.
STRATEGY_EXECUTION = "STRATEGY_EXECUTION"

#: Priority, for Celery, of what the ledger hands over: the lowest, in a list of its own. What comes by another way is
#: in a list before it, so workers take it into the ledger first; there its own priority counts.
READY_PRIORITY = 9
#: Of kombu's lists: `celery`, `celery:3`, `celery:6`, `celery:9`.
LIST_SEPARATOR = ":"

#: Deadlines nest: strategy (60 s) < soft < hard < visibility timeout (180 s at least). Between the strategy's and the
#: soft limit lies the start of a sandbox, 35 s at most.
SOFT_LIMIT_SECONDS = 100
HARD_LIMIT_SECONDS = 120

CONNECTIONS = {
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # A Redis without memory refuses kombu's notes; the worker connects again until it does not.
    "broker_channel_error_retry": True,
    # A producer would otherwise wait for ever.
    "broker_pool_acquire_timeout": 10,
}


class StratboxApp(Celery):
    """A Celery app that knows the settings it was made from; in its configuration, `inspect conf` would tell them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("stratbox", set_as_current=False)
        self.settings = settings


def create_app(settings: Settings | None = None) -> StratboxApp:
    """Return a Celery app on Redis with the settings that lose and duplicate nothing.

    Args:
        settings: where Redis is; by default what the `STRATBOX_*` variables say.
    """
    settings = settings or Settings()
    app = StratboxApp(settings)
    app.conf.update(_delivery(settings), **_results(settings), **connection_options(settings), **CONNECTIONS)
    return app


def _delivery(settings: Settings) -> dict[str, Any]:
    return {
        "task_default_queue": settings.queue,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        # A task is acknowledged when its result is stored, and comes back when its worker dies: three times at most.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_soft_time_limit": SOFT_LIMIT_SECONDS,
        "task_time_limit": HARD_LIMIT_SECONDS,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # The ledger stores STARTED when it lets a run begin.
        "task_track_started": False,
        "worker_send_task_events": True,
        # Of the client's own messages the ledger tells, when it has accepted them.
        "task_send_sent_event": False,
        # 10,000 runs keep a child's memory bounded whatever a library leaks.
        "worker_max_tasks_per_child": 10_000,
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_seconds,
            # Look for what a dead worker left every 5 s; the default sweep comes every 100 s or so.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # Whoever dies with it in hand keeps all others from that for so long; by default 300 s.
            "unacked_mutex_expire": 10,
            # On Redis 0 is the highest priority; one list for each step.
            "queue_order_strategy": "priority",
            "sep": LIST_SEPARATOR,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            **sentinel_options(settings),
        },
    }


def _results(settings: Settings) -> dict[str, Any]:
    return {
        "result_expires": settings.result_expires_seconds,
        "result_failure_expires": settings.result_expires_seconds,
        # Without it, a task that ends while Redis is away is stored as a failure of the connection.
        "result_backend_always_retry": True,
        "redis_socket_timeout": 30,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 25,
        "redis_retry_on_timeout": True,
    }
