"""The ledger of what was accepted: a submission is in it until its verdict is stored, whatever happens to messages.

A submission waits in the lane of its tenant and is handed to Celery's queue when its turn comes. All changes are
one script in Redis (ledger.lua), so that none is ever half done, and producers and workers need no clock in common.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import states
from kombu.utils.json import dumps
from redis.exceptions import OutOfMemoryError

from tasks.datasets import unknown_dataset
from tasks.errors import InvalidRequest, QueueFull, TenantLimit, UnknownSubmission
from tasks.script import FULL_PAUSE_SECONDS, RESULT_PREFIX, Script

if TYPE_CHECKING:
    import redis

    from tasks.message import Message
    from tasks.settings import Settings

__all__ = ["QUEUED", "WORKER", "Beginning", "DeadSubmission", "Ledger"]

#: State of a submission before its first start; Celery has none for it, so an unknown id looks queued there.
QUEUED = "QUEUED"
#: This worker, for the ledger: a pool process inherits it from the main one.
WORKER = uuid.uuid4().hex


@dataclass(frozen=True)
class Beginning:
    """What the ledger says to a worker that is about to run a submission."""

    #: `run`, `ended` (has a verdict), `busy` (another message is at it, or was, until it was given up), `cancelled`, or
    #: `dead` (its worker died each time).
    word: str
    #: Celery's record of the verdict, as JSON text, when it has ended.
    verdict: bytes = b""
    #: The token without which nothing this run says is taken down.
    fence: int = 0
    #: How often the infrastructure has failed it.
    tries: int = 0


@dataclass(frozen=True)
class DeadSubmission:
    """One that the workers gave up on, kept for 7 days."""

    id: str
    tenant: str
    #: Seconds since the epoch.
    since: float
    reason: str
    bytes: int


class Ledger:
    """Accepted submissions in Redis. Every method lets Redis' own exceptions through.

    Args:
        settings: the queue, its bounds, and how long results are kept.
        client: of Redis; it returns bytes.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client: Any = client  # redis-py's annotations cover its asyncio form, too
        self._script = Script(settings, client)
        self._prefix = self._script.prefix

    def submit(  # noqa: PLR0913  # what there is to say of a submission
        self, task_id: str, message: Message, *, tenant: str, priority: int, keyed: bool, dataset: str | None = None
    ) -> None:
        """Accept a submission, which holds the data set it refers to; one that is known already stays as it is.

        Raises:
            InvalidRequest: the caller's key has been used for another request.
            UnknownDataset: what it refers to is not there.
            QueueFull, TenantLimit: there is no room for it now.
        """
        limits = self._settings
        bounds = [limits.max_queued, limits.max_queued_bytes, limits.max_per_tenant]
        queued = _meta(task_id, QUEUED)
        digest = message.digest if keyed else ""
        arguments = [task_id, message.text, queued, tenant, priority, digest, *bounds, *message.sent]
        try:
            word, *pause = self._script.accept("submit", *arguments, dataset or "", limits.dataset_expires_seconds)
        except OutOfMemoryError:
            word, pause = b"memory", [FULL_PAUSE_SECONDS]
        if word == b"conflict":
            msg = "key: it was used for another request before; use one key for each strategy"
            raise InvalidRequest(msg)
        if word == b"dataset":
            raise unknown_dataset(dataset or "")
        if word == b"never":
            msg = f"larger than all that may wait, {limits.max_queued_bytes:,} bytes (STRATBOX_MAX_QUEUED_BYTES)"
            raise InvalidRequest(msg)
        if pause:
            raise _no_room(word.decode(), float(pause[0]), tenant, limits)

    def cancel(self, task_id: str, verdict: dict[str, Any], event: tuple[str, str]) -> str:
        """End a submission that no worker runs, with this result and event; leave word for the one that does.

        Returns:
            "cancelled"; "running", which its worker is to end; or "ended": it had ended already.

        Raises:
            UnknownSubmission: no such id.
        """
        expires = self._settings.result_expires_seconds
        meta = _meta(task_id, states.SUCCESS, verdict)
        word = self._script.change("cancel", task_id, meta, expires, *event)
        if word == b"unknown":
            msg = f"no submission {task_id!r}: check the id; results expire after {expires} s"
            raise UnknownSubmission(msg)
        return str(word.decode())

    def adopt(  # noqa: PLR0913  # what there is to say of a submission
        self,
        task_id: str,
        message: str,
        *,
        tenant: str,
        priority: int,
        due: float | None = None,
        dataset: str | None = None,
    ) -> None:
        """Take in a message that came by another way, unless the submission is known.

        `due` is its earliest start. A `dataset` that is not there is no reason to leave it out: its run says so.
        """
        earliest, keep_seconds = "" if due is None else due, self._settings.dataset_expires_seconds
        queued = _meta(task_id, QUEUED)
        self._script.change("adopt", task_id, message, queued, tenant, priority, earliest, dataset or "", keep_seconds)

    def knows(self, task_id: str) -> bool:
        """Whether there is a submission with this id: one that has not ended, is dead, or has a result."""
        return bool(self._client.exists(f"{self._prefix}task:{task_id}", f"{RESULT_PREFIX}{task_id}"))

    def refuse(self, task_id: str, state: str, result: Any, reason: str) -> None:
        """End what this worker cannot run, unless it has ended or another worker runs it."""
        self.record(task_id, state, _meta(task_id, state, result), fence=None, reason=reason)

    def begin(self, task_id: str, attempt: str, started: dict[str, Any]) -> Beginning:
        """Ask whether to run a submission; if so, it counts as started, by this worker, with these details.

        The same attempt may ask again when the answer was lost.
        """
        meta, expires = _meta(task_id, states.STARTED, started), self._settings.result_expires_seconds
        word, *rest = self._script.change("begin", task_id, WORKER, attempt, meta, expires)
        if word == b"ended":
            return Beginning("ended", verdict=rest[0])
        return Beginning("busy") if word == b"busy" else Beginning(word.decode(), fence=rest[0], tries=rest[1])

    def record(  # noqa: PLR0913  # what there is to say of a state
        self,
        task_id: str,
        state: str,
        meta: str | bytes,
        *,
        fence: int | None,
        pause_seconds: float | None = None,
        reason: str = "",
    ) -> bool:
        """Store a state of Celery's; return False when it came too late to count.

        Args:
            task_id: of the submission.
            state: of Celery's.
            meta: Celery's record of it.
            fence: of the run that says so; None for the main process of its worker.
            pause_seconds: until the next try, for RETRY; None when the message goes back into the queue by itself.
            reason: for FAILURE.
        """
        arguments = [task_id, state, meta, self._settings.result_expires_seconds, WORKER]
        optional = ("" if one is None else one for one in (fence, pause_seconds))
        return bool(self._script.change("record", *arguments, *optional, reason))

    def release(self) -> None:
        """Give back what this worker ran when its connection was lost, or at its end."""
        self._script.change("release", WORKER)

    def died(self, task_id: str) -> None:
        """Count a death: of the pool process of this worker that ran it."""
        self._script.change("died", task_id, WORKER)

    def refill(self) -> None:
        """Hand over to Celery's queue what is due and has room."""
        self._script.change("refill")

    def reconcile(self, *, unless_within_seconds: float | None = None) -> list[str]:
        """Bring back what is neither queued nor with a worker nor ended; return the ids. Forget expired data sets.

        What is missing for the first time is only noted, and brought back by a call 5 s later or more.

        Args:
            unless_within_seconds: leave it at the last call with this argument, anybody's, when it was so lately.
        """
        pause = "" if unless_within_seconds is None else int(unless_within_seconds * 1000)
        found = self._script.change("reconcile", self._settings.result_expires_seconds, pause)
        return [task_id.decode() for task_id in found]

    def waiting(self) -> tuple[int, float | None]:
        """Return how many wait, and since when the oldest does (seconds since the epoch)."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zcard(f"{self._prefix}waiting").zrange(f"{self._prefix}waiting", 0, 0, withscores=True)
            count, oldest = pipe.execute()
        return count, float(oldest[0][1]) if oldest else None

    def dead(self) -> list[DeadSubmission]:
        """Return what the workers gave up on, the latest first."""
        found = self._client.zrange(f"{self._prefix}dead", 0, -1, desc=True, withscores=True)
        with self._client.pipeline(transaction=False) as pipe:
            for task_id, _ in found:
                pipe.hmget(f"{self._prefix}task:{task_id.decode()}", "tenant", "reason", "bytes")
            records = pipe.execute()
        return [
            DeadSubmission(task_id.decode(), tenant.decode(), float(since), (reason or b"").decode(), int(size))
            for (task_id, since), (tenant, reason, size) in zip(found, records, strict=True)
            if tenant is not None  # it has expired meanwhile
        ]

    def message(self, task_id: str) -> bytes | None:
        """Return the message of a submission that has not ended, or is dead."""
        text: bytes | None = self._client.hget(f"{self._prefix}task:{task_id}", "message")
        return text

    def requeue(self, task_id: str) -> bool:
        """Put a dead submission into the queue again; False when there is none with this id.

        Raises:
            UnknownDataset: what it refers to was removed.
        """
        keep_seconds = self._settings.dataset_expires_seconds
        word = self._script.change("requeue", task_id, _meta(task_id, QUEUED), keep_seconds)
        if word == b"dataset":
            digest = self._client.hget(f"{self._prefix}task:{task_id}", "dataset")
            raise unknown_dataset((digest or b"").decode())
        return bool(word == b"queued")

    def drop(self, task_id: str) -> bool:
        """Forget a dead submission; False when there is none with this id."""
        return bool(self._script.change("drop", task_id))


def _meta(task_id: str, state: str, result: Any = None) -> str:
    # The script finds the state at the beginning.
    meta = {"status": state, "result": result, "traceback": None, "children": [], "task_id": task_id}
    text: str = dumps(meta)
    return text


def _no_room(word: str, pause: float, tenant: str, limits: Settings) -> QueueFull | TenantLimit:
    again = f"submit again in {pause:g} s"
    match word:
        case "tenant":
            what = f"{limits.max_per_tenant:,} submissions of user_id {tenant!r}"
            return TenantLimit(f"{what} have not ended yet (STRATBOX_MAX_PER_TENANT): {again}", pause)
        case "queue":
            what = f"{limits.max_queued:,} submissions have not ended yet (STRATBOX_MAX_QUEUED)"
        case "bytes":
            what = f"what waits fills {limits.max_queued_bytes:,} bytes (STRATBOX_MAX_QUEUED_BYTES)"
        case _:
            what = "Redis has no memory left for more"
    return QueueFull(f"{what}: {again}", pause)
