"""Celery's result backend, which takes down a state only where the ledger lets it count."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend

from tasks.ledger import Ledger
from tasks.message import event

if TYPE_CHECKING:
    from tasks.app import StratboxApp

__all__ = ["LedgerBackend", "LedgerSentinelBackend"]

#: Attributes of Celery's request that the task sets: the token of its start, and how long to wait before the next.
FENCE, PAUSE = "stratbox_fence", "stratbox_pause_seconds"
#: What Celery itself writes for a task. Whatever else comes (Flower's Abort writes ABORTED) is nothing we know.
KNOWN_STATES = {states.STARTED, states.RETRY, states.SUCCESS, states.FAILURE, states.REVOKED}


class LedgerBackend(RedisBackend):
    """Stores through the ledger: one round trip, the first verdict stays, and whoever was replaced is not heard."""

    app: StratboxApp

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger in the same Redis."""
        return Ledger(self.app.settings, self.client)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        if state in KNOWN_STATES:
            meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
            reason = f"{result['exc_type']}: {result['exc_message']}" if state == states.FAILURE else ""
            counts = self.ledger.record(
                task_id,
                state,
                self.encode({**meta, "task_id": task_id}),
                fence=getattr(request, FENCE, None),
                pause_seconds=getattr(request, PAUSE, None),
                reason=reason,
            )
            if counts and state == states.REVOKED and request is None:
                # From Flower, for what no worker has yet: Celery would tell nobody but the result.
                self.client.publish(*event(self.app, "task-revoked", uuid=task_id, terminated=False, signum=None))
        return result


class LedgerSentinelBackend(LedgerBackend, SentinelBackend):
    """The same, where Sentinels say which Redis is the master."""
