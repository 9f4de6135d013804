"""From a sentence to a tested strategy: generate, validate, execute, and have the model repair what failed."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from tasks.client import StrategyClient
from tasks.connection import redis_errors
from tasks.deepseek.completion import Model
from tasks.deepseek.extraction import extract
from tasks.deepseek.outcome import Outcome
from tasks.deepseek.prompt import contract, task
from tasks.deepseek.settings import DeepSeekSettings
from tasks.deepseek.trial import Trial
from tasks.document import DatasetRef
from tasks.errors import InvalidRequest
from tasks.models import ExecutionRequest
from tasks.settings import LimitSettings

if TYPE_CHECKING:
    from pydantic import JsonValue

    from tasks.deepseek.completion import Message
    from tasks.deepseek.trial import Observer
    from tasks.models import ExecutionLimits

__all__ = ["DeepSeekAgent"]

logger = logging.getLogger(__name__)

MAX_PROMPT_CHARS = 32_768
MAX_ATTEMPTS = 20
_PROMPT = TypeAdapter(
    Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_PROMPT_CHARS)]
)
_ATTEMPTS = TypeAdapter(Annotated[int, Field(strict=True, ge=1, le=MAX_ATTEMPTS)])


class DeepSeekAgent:
    """Has a model write strategies, and tries them out.

    Args:
        settings: which model, and what it may cost; by default what the `STRATBOX_DEEPSEEK_*` variables say.
        client: by which strategies are submitted; by default one of its own.
        limits: what the workers allow, for the model to know; by default what the `STRATBOX_LIMITS_*` variables say.
    """

    def __init__(
        self,
        settings: DeepSeekSettings | None = None,
        *,
        client: StrategyClient | None = None,
        limits: ExecutionLimits | None = None,
    ) -> None:
        self.settings = settings or DeepSeekSettings()
        self._client = client or StrategyClient()
        self._policy = self._client.settings.policy()
        self._limits = limits or LimitSettings().limits
        self._model = Model(self.settings)

    async def generate_strategy(self, prompt: str, *, data: JsonValue | DatasetRef = None, user_id: str = "") -> str:
        """Return a strategy as the model wrote it. It was not checked, let alone run.

        Redis is asked for nothing but the data of a `DatasetRef`.

        Args:
            prompt: what the strategy is to do, at most 32,768 characters.
            data: what it will find; the model is told their outline.
            user_id: for whom.

        Raises:
            InvalidRequest: an argument breaks the contract.
            UnknownDataset, BrokerUnavailable: the data are not to be had.
            ModelError: the model gave no reply that is of use; NoCode where there is no program in it.
        """
        conversation = await self._opening(prompt, data, {"user_id": user_id})
        reply = await self._model.complete(conversation, max_tokens=self.settings.max_tokens)
        logger.info("strategy written for %r: %d tokens", user_id, reply.usage.total_tokens)
        return extract(reply.text, whole=reply.whole).code

    async def solve(  # noqa: PLR0913  # the fields of a request, named as such
        self,
        prompt: str,
        data: JsonValue | DatasetRef = None,
        *,
        user_id: str = "",
        attempts: int = 3,
        params: dict[str, JsonValue] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of the strategy
        seed: int | None = None,
        observer: Observer | None = None,
    ) -> Outcome:
        """Have a strategy written, run it, and have it repaired until one succeeds and prints a JSON object.

        Whatever the model writes is data here: an outcome without success says why there was no further attempt.
        Cancelling it, an error and the deadline cancel what runs.

        Args:
            prompt: what the strategy is to do, at most 32,768 characters.
            data: what it finds, any JSON value or what `datasets.put` has returned. The model is told their outline:
                keys, types, lengths, first and last values.
            user_id: whose strategy it is.
            attempts: how many strategies are written at most, 1 to 20. The settings bound tokens and time.
            params: as for `StrategyClient.submit`.
            timeout: wall clock of each run, seconds, at most 60.
            seed: as for `StrategyClient.submit`.
            observer: told what is being done, and of each attempt when it has ended. An error, a cancel and the
                deadline end one, too: what was paid for is not lost.

        Raises:
            InvalidRequest: an argument breaks the contract.
            ModelError: the model's endpoint gave no reply that is of use.
            BrokerUnavailable, UnknownDataset: Redis does not answer, or has no such data; the model was not asked yet.
            ExecutionLost, UnreadableResult: as `Submission.result`.
        """
        _require(_ATTEMPTS, attempts, f"attempts: {attempts!r} is not a whole number from 1 to {MAX_ATTEMPTS}")
        fields = {"params": params, "timeout": timeout, "user_id": user_id, "seed": seed}
        conversation = await self._opening(prompt, data, fields)
        await self._client.reach()
        trial = Trial(self._model, self._client, self.settings, observer)
        ended = await trial.run(conversation, {"data": data, **fields}, attempts)
        outcome = Outcome(model=self.settings.model, ended=ended, attempts=tuple(trial.attempts))
        logger.info(
            "strategy for %r: %s after %d attempts, %d tokens",
            user_id,
            ended,
            len(outcome.attempts),
            outcome.usage.total_tokens,
        )
        return outcome

    async def _opening(self, prompt: str, data: JsonValue | DatasetRef, fields: dict[str, Any]) -> list[Message]:
        """Return what the model is told at first; what is wrong with it is found before anything is paid for."""
        request = await asyncio.to_thread(_checked, prompt, data=data, **fields)
        if isinstance(data, DatasetRef):
            await self._client.reach()
            data = await asyncio.to_thread(self._data_of, request)
        seconds = min(request.timeout or self._limits.timeout_seconds, self._limits.timeout_seconds)
        limits = self._limits.model_copy(update={"timeout_seconds": seconds})
        return [
            {"role": "system", "content": contract(self._policy, limits)},
            {"role": "user", "content": task(prompt, data, request.params)},
        ]

    def _data_of(self, request: ExecutionRequest) -> JsonValue:
        """Return what a strategy finds that refers to a data set."""
        with redis_errors():
            text = self._client.datasets.read(request.dataset or "")
        data: JsonValue = json.loads(request.with_dataset(text).data_json)
        return data


def _checked(prompt: str, **fields: Any) -> ExecutionRequest:
    """Return a request with these fields and a program that stands for the one to come."""
    _require(_PROMPT, prompt, f"prompt: say in 1 to {MAX_PROMPT_CHARS:,} characters of text what the strategy is to do")
    return ExecutionRequest.build("pass", **fields)


def _require(kind: TypeAdapter[Any], value: object, refusal: str) -> None:
    try:
        kind.validate_python(value)
    except ValidationError:
        raise InvalidRequest(refusal) from None
