"""What became of a sentence: every attempt at a strategy, with code, verdict and cost."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, computed_field

from tasks.models import ExecutionResult  # noqa: TC001  # pydantic needs it at run time

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Attempt", "Ended", "Outcome", "Usage", "Verdict"]


class Verdict(StrEnum):
    """What became of one attempt: the status of its execution, or why there is none, or none that is of use."""

    #: It ran to its end and printed a JSON object.
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    #: It ran to its end, but what it printed is no JSON object.
    NOT_JSON = "not_json"
    #: The reply holds no program, or half of one.
    NO_CODE = "no_code"
    #: There was no time left to run it, or to wait for its end.
    NOT_RUN = "not_run"


class Ended(StrEnum):
    """Why there was no further attempt."""

    SOLVED = "solved"
    #: As many were made as were allowed.
    ATTEMPTS = "attempts"
    #: Another would go over the budget of tokens.
    TOKENS = "tokens"
    #: The deadline has come.
    TIME = "time"
    #: Somebody cancelled what ran.
    CANCELLED = "cancelled"
    #: An error did; `solve` raises it, and gives no outcome.
    ERROR = "error"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Usage(_Record):
    """Tokens that were paid for."""

    prompt_tokens: int = 0
    #: Those of reasoning included.
    completion_tokens: int = 0
    #: Whether the endpoint did not count, and they are guessed from the length of the texts.
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Those of prompt and reply."""
        return self.prompt_tokens + self.completion_tokens


class Attempt(_Record):
    """One reply of the model, and what became of it."""

    #: 1 for the first.
    number: int
    verdict: Verdict
    #: The program; empty for `no_code`.
    code: str = ""
    #: None where nothing ran, but for `rejected`.
    result: ExecutionResult | None = None
    #: Of the submission in the queue; empty where there was none.
    submission_id: str = ""
    #: What the model was, or would have been, told of it; empty for `succeeded`.
    feedback: str = ""
    usage: Usage = Usage()
    #: From the question to the end of the reply.
    model_seconds: float = 0.0


class Outcome(_Record):
    """All attempts at one strategy."""

    model: str
    ended: Ended
    #: In their order; none where the budget did not allow a first.
    attempts: tuple[Attempt, ...]

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def success(self) -> bool:
        """Whether the last attempt succeeded."""
        return self.ended is Ended.SOLVED

    @computed_field  # type: ignore[prop-decorator]
    @property
    def code(self) -> str:
        """The last program there was; empty where there was none."""
        return next((attempt.code for attempt in reversed(self.attempts) if attempt.code), "")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def result(self) -> ExecutionResult | None:
        """The result of the last attempt."""
        return self.attempts[-1].result if self.attempts else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usage(self) -> Usage:
        """Of all attempts together."""
        return total(attempt.usage for attempt in self.attempts)


def total(usages: Iterable[Usage]) -> Usage:
    """Return their sum."""
    usages = list(usages)
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        estimated=any(usage.estimated for usage in usages),
    )
