"""Producers that lose track of nothing: each of their submissions is accepted under its key, and its verdict read."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from tasks import ExecutionStatus, Settings, StrategyClient
from tasks.errors import Backpressure, BrokerUnavailable, ExecutionLost, ResultTimeout, UnknownSubmission

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks import ExecutionResult, Submission
    from tests.chaos.work import Piece

#: A producer has at most this part of its submissions under way: submitting goes on while faults occur.
IN_FLIGHT = 1 / 12
#: Between two looks at what is under way.
LOOK_SECONDS = 1.0
PAUSE_SECONDS = 0.5

T = TypeVar("T")


class Producer(threading.Thread):
    """Submits its share and reads the verdicts, whatever happens to Redis meanwhile."""

    def __init__(self, url: str, pieces: list[Piece]) -> None:
        super().__init__(name="producer")
        self._client = StrategyClient(Settings(redis_url=url))
        self._pieces = pieces
        self._over = threading.Event()
        self._under_way: dict[str, Submission] = {}
        #: Id of each accepted submission, by its piece.
        self.accepted: dict[Piece, str] = {}
        #: By id: the verdict, or what stands in its place.
        self.verdicts: dict[str, ExecutionResult | ExecutionLost | UnknownSubmission] = {}
        #: What kept a submission from being accepted at the first attempt.
        self.refusals: Counter[str] = Counter()
        #: What no producer should ever see.
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Submit all, then wait for all."""
        most = max(2, int(len(self._pieces) * IN_FLIGHT))
        try:
            for piece in self._pieces:
                self._make_room(most)
                self._submit(piece)
            self._make_room(1)
        except Stopped:
            pass
        except BaseException as exc:  # noqa: BLE001  # told by the main thread
            self.failure = exc

    def stop(self) -> None:
        """Give up what has no verdict yet."""
        self._over.set()

    def close(self) -> None:
        """Close the connections to Redis, when it has ended."""
        self.join()
        self._client.close()

    def replaced(self) -> list[str]:
        """Return the ids whose verdict is not the one that was read first."""
        return [task_id for task_id, verdict in self.verdicts.items() if not _same(verdict, self._read_again(task_id))]

    def _read_again(self, task_id: str) -> ExecutionResult | ExecutionLost | UnknownSubmission | None:
        try:
            return self._client.submission(task_id).result(timeout=0)
        except ResultTimeout:
            return None
        except (ExecutionLost, UnknownSubmission) as exc:
            return exc

    def _submit(self, piece: Piece) -> None:
        submission = self._insist(lambda: self._client.submit(**piece.request()))
        self.accepted[piece] = submission.id
        self._under_way[submission.id] = submission
        if piece.kind == "cancelled":
            self._insist(submission.cancel)

    def _insist(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except Backpressure as exc:
                pause, name = exc.retry_after, type(exc).__name__
            except BrokerUnavailable as exc:
                pause, name = PAUSE_SECONDS, type(exc).__name__
            self.refusals[name] += 1
            self._pause(pause)

    def _make_room(self, least: int) -> None:
        while len(self._under_way) >= least:
            started = time.monotonic()
            for number, submission in enumerate(list(self._under_way.values())):
                self._look(submission, wait=number == 0)
            self._pause(LOOK_SECONDS - (time.monotonic() - started))

    def _look(self, submission: Submission, *, wait: bool) -> None:
        """Take the verdict down, if it is there; waiting for it listens to Redis, asking does not."""
        try:
            if not wait and not isinstance(submission.status(), ExecutionStatus):
                return
            self.verdicts[submission.id] = submission.result(timeout=LOOK_SECONDS)
        except ResultTimeout:
            return
        except (ExecutionLost, UnknownSubmission) as exc:
            self.verdicts[submission.id] = exc
        except BrokerUnavailable:
            self._pause(PAUSE_SECONDS)
            return
        del self._under_way[submission.id]

    def _pause(self, seconds: float) -> None:
        if self._over.wait(max(0.0, seconds)):
            raise Stopped


class Stopped(Exception):
    """Somebody has had enough."""


def _same(first: object, now: object) -> bool:
    if isinstance(first, Exception):
        return type(first) is type(now) and str(first) == str(now)
    return first == now
