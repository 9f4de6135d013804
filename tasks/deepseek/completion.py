"""One call of the chat-completions protocol: a conversation in, a bounded reply out, every failure an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any

import httpx2
import openai
from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from tasks.deepseek import failures
from tasks.deepseek.outcome import Usage
from tasks.errors import ContentFiltered, KeyRefused, MalformedReply, ModelUnavailable
from tasks.models import one_line

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable, Sequence

    from tasks.deepseek.settings import DeepSeekSettings

__all__ = ["Message", "Model", "Reply", "estimate_tokens"]

#: Role and content, as the protocol has them.
Message = dict[str, str]

#: Of a reply so many characters are read: a program may have 256 KiB, and models think aloud.
MAX_REPLY_CHARS = 2**20
#: Where an endpoint does not count. Code and English have three to four characters a token: rather too many tokens.
CHARS_PER_TOKEN = 3

#: Ends of a reply that DeepSeek and others name, beside `stop`.
_OUT_OF_TOKENS, _FILTERED, _INTERRUPTED = "length", "content_filter", "insufficient_system_resource"


class Reply(BaseModel):
    """What a model has said."""

    text: str
    #: False where it ran out of tokens before it had finished.
    whole: bool
    usage: Usage


class _Part(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    message: _Part = _Part()  # of a reply in one piece
    delta: _Part = _Part()  # of a piece of a reply
    finish_reason: str | None = None


class _Counted(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Body(BaseModel):
    choices: list[_Choice]
    usage: _Counted | None = None

    @field_validator("usage", mode="wrap")
    @classmethod
    def _if_it_is_one(cls, usage: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Take a count that is none for one that is not there: the reply has been paid for."""
        try:
            return validate(usage)
        except ValidationError:
            return None


class _Collected:
    """What has come of a reply."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.characters = 0
        self.finish_reason: str | None = None
        self.usage: _Counted | None = None
        self.choices = 0

    def take(self, raw: Any) -> None:
        """Take in a body, or a piece of one.

        Raises:
            MalformedReply: it is none.
        """
        body = _parse(raw)
        self.usage = body.usage or self.usage
        for choice in body.choices[:1]:
            self.choices += 1
            self.finish_reason = choice.finish_reason or self.finish_reason
            for part in (choice.message, choice.delta):
                self.pieces.append(part.content or "")
                # Thoughts are no part of the answer, but they take time and tokens.
                self.characters += len(part.content or "") + len(part.reasoning_content or "")

    def reply(self, prompt_tokens: int) -> Reply:
        """Return it, where it has come to an end.

        Raises:
            ModelError: it has not, or to one that is of no use.
        """
        if not self.choices:
            msg = "the model's reply is empty (no choices): try again; should it stay so, check STRATBOX_DEEPSEEK_MODEL"
            raise MalformedReply(msg)
        full = self.characters > MAX_REPLY_CHARS
        if self.finish_reason is None and not full:
            msg = "the model's reply ended before it was finished: try again"
            raise MalformedReply(msg)
        if self.finish_reason == _FILTERED:
            msg = "the endpoint's content filter held the reply back: put the prompt in other words"
            raise ContentFiltered(msg)
        if self.finish_reason == _INTERRUPTED:
            msg = "the endpoint was too busy to finish the reply: try again later"
            raise ModelUnavailable(msg)
        usage = Usage(**self.usage.model_dump()) if self.usage else self._estimate(prompt_tokens)
        whole = not full and self.finish_reason != _OUT_OF_TOKENS
        # Half a surrogate pair, which JSON can escape, would break every later encoding.
        text = "".join(self.pieces).encode(errors="replace").decode()
        return Reply(text=text, whole=whole, usage=usage)

    def _estimate(self, prompt_tokens: int) -> Usage:
        return Usage(prompt_tokens=prompt_tokens, completion_tokens=_tokens(self.characters), estimated=True)


class Model:
    """A model behind an endpoint; holds no connection between calls.

    Args:
        settings: which one, and what a call may cost.
    """

    def __init__(self, settings: DeepSeekSettings) -> None:
        self._settings = settings

    async def complete(
        self, conversation: Sequence[Message], *, max_tokens: int, observe: Callable[[int], None] | None = None
    ) -> Reply:
        """Return what the model says next.

        Args:
            conversation: what was said so far.
            max_tokens: of the reply, its reasoning included.
            observe: told how many characters have come, each time some do.

        Raises:
            ModelError: one of its kinds; nothing of the key is in its text.
        """
        settings = self._settings
        if not settings.api_key.get_secret_value():
            msg = "no API key: set STRATBOX_DEEPSEEK_API_KEY (or DEEPSEEK_API_KEY)"
            raise KeyRefused(msg)
        collected = _Collected()
        try:
            # Endpoints under load send blank lines, so that no time limit of the HTTP client's ever strikes.
            async with asyncio.timeout(settings.timeout_seconds) as clock:
                async with contextlib.aclosing(self._pieces(conversation, max_tokens)) as pieces:
                    async for piece in pieces:
                        collected.take(piece)
                        if observe:
                            observe(collected.characters)
                        if collected.characters > MAX_REPLY_CHARS:
                            break
        except TimeoutError:
            if clock.expired():
                raise failures.overdue(settings) from None
            raise
        return collected.reply(estimate_tokens(conversation))

    async def _pieces(self, conversation: Sequence[Message], max_tokens: int) -> AsyncGenerator[Any, None]:
        """Yield the reply, in one piece or as it is written; errors of the SDK become ours."""
        settings = self._settings
        asked: dict[str, Any] = {"model": settings.model, "messages": list(conversation), "max_tokens": max_tokens}
        try:
            async with openai.AsyncOpenAI(
                api_key=settings.api_key.get_secret_value(),
                base_url=settings.base_url,
                timeout=settings.timeout_seconds,
                max_retries=settings.retries,
                # Nowhere else: with a redirect the prompt would go where the settings do not say.
                http_client=openai.DefaultAsyncHttpxClient(verify=_authorities(), follow_redirects=False),
            ) as client:
                # What the environment says of accounts at OpenAI is not for another endpoint.
                client.organization = client.project = None
                create = client.chat.completions.create
                if not settings.stream:
                    yield await create(**asked)
                    return
                async with await create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
                    async for piece in stream:
                        yield piece
        except (openai.OpenAIError, httpx2.HTTPError) as exc:  # the latter where an error's own body breaks off
            # Not chained: what the endpoint or a library says may repeat the key.
            raise failures.translate(exc, settings) from None
        except (ValueError, TypeError, AttributeError, RecursionError):
            # The SDK decodes what it is sent without looking at it first.
            raise failures.malformed() from None


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Return whom to believe that a host is itself; to read them takes as long as all else of a call."""
    return httpx2.create_ssl_context()


def estimate_tokens(conversation: Sequence[Message]) -> int:
    """Return how many tokens a conversation may have, rather too many."""
    return _tokens(sum(len(message["content"]) for message in conversation))


def _tokens(characters: int) -> int:
    return math.ceil(characters / CHARS_PER_TOKEN)


def _parse(raw: Any) -> _Body:
    # The SDK makes objects of whatever it was sent, unchecked, and leaves what it can make none of.
    try:
        return _Body.model_validate(raw.to_dict(warnings=False) if isinstance(raw, openai.BaseModel) else raw)
    except ValidationError as exc:
        raise failures.malformed(one_line(exc)) from None
