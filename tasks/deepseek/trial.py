"""The attempts at one strategy: what is asked, what is run, what is said of it, and when there is no further one."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tasks.deepseek.completion import estimate_tokens
from tasks.deepseek.extraction import extract
from tasks.deepseek.outcome import Attempt, Ended, Verdict, total
from tasks.deepseek.prompt import feedback
from tasks.errors import Backpressure, NoCode, OutputNotJSON
from tasks.excerpt import excerpt
from tasks.models import ExecutionRequest, ExecutionStatus
from tasks.refusal import policy_refusal
from tasks.submission import submitted
from tasks.validator import ASTValidator

if TYPE_CHECKING:
    from tasks.client import StrategyClient
    from tasks.deepseek.completion import Message, Model, Reply
    from tasks.deepseek.settings import DeepSeekSettings
    from tasks.models import ExecutionResult

__all__ = ["Observer", "Trial"]

#: With fewer tokens left for a reply, none that holds a strategy would come.
LEAST_REPLY_TOKENS = 256
#: Of a reply without code the model is shown so many characters again.
MAX_ECHO_CHARS = 2_000


class Observer(Protocol):
    """Who wants to know what is being done; called on the event loop."""

    def asking(self, number: int, characters: int) -> None:
        """The model writes the strategy of this number; so many characters of its reply have come."""

    def running(self, attempt: Attempt) -> None:
        """An attempt, its verdict still `not_run`, is with the workers."""

    def ended(self, attempt: Attempt) -> None:
        """An attempt has ended."""


class Trial:
    """One conversation about one strategy.

    Args:
        model: writes.
        client: submits.
        settings: bound it.
        observer: told what is being done, if there is one.
    """

    def __init__(
        self,
        model: Model,
        client: StrategyClient,
        settings: DeepSeekSettings,
        observer: Observer | None,
    ) -> None:
        #: Those that have ended.
        self.attempts: list[Attempt] = []
        self._model, self._client, self._settings, self._observer = model, client, settings, observer
        self._validator = ASTValidator(client.settings.policy())
        #: Written, and with the workers.
        self._pending: Attempt | None = None

    async def run(self, conversation: list[Message], fields: dict[str, Any], attempts: int) -> Ended:
        """Make attempts until one succeeds; return why there is no further one.

        Args:
            conversation: what the model is told at first; what follows is added.
            fields: of the request, all but the code.
            attempts: how many at most.
        """
        try:
            async with asyncio.timeout(self._settings.deadline_seconds) as clock:
                return await self._until_solved(conversation, fields, attempts)
        except TimeoutError:
            if not clock.expired():  # ours to tell apart: the model's own has the same base
                raise
            return Ended.TIME
        finally:
            if self._pending:  # it was paid for
                self._end(self._pending)

    async def _until_solved(self, conversation: list[Message], fields: dict[str, Any], attempts: int) -> Ended:
        for number in range(1, attempts + 1):
            spent = total(attempt.usage for attempt in self.attempts).total_tokens
            room = self._settings.token_budget - spent - estimate_tokens(conversation)
            if room < LEAST_REPLY_TOKENS:
                return Ended.TOKENS
            began = time.monotonic()
            reply = await self._model.complete(
                conversation,
                max_tokens=min(room, self._settings.max_tokens),
                observe=partial(self._observer.asking, number) if self._observer else None,
            )
            written = Attempt(
                number=number,
                verdict=Verdict.NOT_RUN,
                usage=reply.usage,
                model_seconds=round(time.monotonic() - began, 3),
            )
            attempt = await self._judge(written, reply, fields)
            self._end(attempt)
            if attempt.verdict is Verdict.SUCCEEDED:
                return Ended.SOLVED
            if attempt.verdict is Verdict.CANCELLED:
                return Ended.CANCELLED
            said = f"```python\n{attempt.code}```" if attempt.code else excerpt(reply.text, MAX_ECHO_CHARS) or "…"
            conversation += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": attempt.feedback},
            ]
        return Ended.ATTEMPTS

    def _end(self, attempt: Attempt) -> None:
        self._pending = None
        self.attempts.append(attempt)
        if self._observer:
            self._observer.ended(attempt)

    async def _judge(self, written: Attempt, reply: Reply, fields: dict[str, Any]) -> Attempt:
        """Return what becomes of a reply."""
        try:
            found = extract(reply.text, whole=reply.whole)
        except NoCode as exc:
            told = feedback(Verdict.NO_CODE, problem=str(exc))
            return written.model_copy(update={"verdict": Verdict.NO_CODE, "feedback": told})
        self._pending = written = written.model_copy(update={"code": found.code})
        report = await asyncio.to_thread(self._validator.validate, found.code)
        if report:
            request = await asyncio.to_thread(ExecutionRequest.build, found.code, **fields)
            written, result = await self._execute(written, request)
        else:
            result = policy_refusal(report.violations)
        verdict, problem = _verdict(result)
        told = "" if verdict is Verdict.SUCCEEDED else feedback(verdict, result, found, problem)
        return written.model_copy(update={"verdict": verdict, "result": result, "feedback": told})

    async def _execute(self, written: Attempt, request: ExecutionRequest) -> tuple[Attempt, ExecutionResult]:
        """Run it; without room in the queue wait for some, for it has been paid for."""
        while True:
            try:
                async with submitted(self._client, request) as submission:
                    self._pending = running = written.model_copy(update={"submission_id": submission.id})
                    if self._observer:
                        self._observer.running(running)
                    return running, await submission.result_async()
            except Backpressure as full:
                await asyncio.sleep(full.retry_after)


def _verdict(result: ExecutionResult) -> tuple[Verdict, str]:
    """Return what a result is worth, and what is wrong where the result itself does not say it."""
    if result.status is not ExecutionStatus.SUCCEEDED:
        return Verdict(result.status), ""
    try:
        printed = result.json()
    except OutputNotJSON as exc:
        return Verdict.NOT_JSON, str(exc)
    if not isinstance(printed, dict):
        return Verdict.NOT_JSON, "it is JSON, but no object with keys"
    return Verdict.SUCCEEDED, ""
