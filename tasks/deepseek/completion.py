"""One call of the chat-completions protocol: a conversation in, a bounded reply out, every failure an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any

import httpx2
import openai
from pydantic import BaseModel

from tasks.deepseek import failures, wire
from tasks.deepseek.outcome import Usage
from tasks.errors import ContentFiltered, KeyRefused, MalformedReply, ModelError, ModelUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable, Sequence

    from tasks.deepseek.settings import DeepSeekSettings
    from tasks.deepseek.wire import Counted, Piece

__all__ = ["Message", "Model", "Reply", "estimate_tokens"]

#: Role and content, as the protocol has them.
Message = dict[str, str]

#: Of a reply so many characters are read: a program may have 256 KiB, and models think aloud.
MAX_REPLY_CHARS = 2**20
#: Where an endpoint does not count: rather too many tokens. Code and English have three to four characters a token,
#: Chinese one or two, of three bytes each.
BYTES_PER_TOKEN = 3

#: After its end the count of tokens is waited for so long.
COUNT_SECONDS = 5.0

#: Ends of a reply that DeepSeek and others name, beside `stop`.
_OUT_OF_TOKENS, _FILTERED, _INTERRUPTED = "length", "content_filter", "insufficient_system_resource"


class Reply(BaseModel):
    """What a model has said."""

    text: str
    #: False where it ran out of tokens before it had finished.
    whole: bool
    usage: Usage


class _Collected:
    """What has come of a reply."""

    def __init__(self, settings: DeepSeekSettings) -> None:
        self._settings = settings
        self.pieces: list[str] = []
        self.characters = 0
        self.bytes = 0
        #: What the endpoint said in place of a reply.
        self.error: Any = None
        self.finish_reason: str | None = None
        self.usage: Counted | None = None
        self.choices = 0
        #: Some endpoints name an end with every piece.
        self._named_too_early = False

    def take(self, piece: Piece) -> None:
        """Take in a reply, or a piece of one."""
        self.error = piece.error
        self.usage = piece.usage or self.usage
        for choice in piece.choices:
            self.choices += 1
            before = self.characters
            for part in filter(None, (choice.message, choice.delta)):
                if part.content:
                    self.pieces.append(part.content)
                # Thoughts are no part of the answer, but they take time and tokens.
                for text in filter(None, (part.content, part.reasoning_content)):
                    self.characters += len(text)
                    self.bytes += _size(text)
            self._named_too_early |= self.finish_reason is not None and self.characters > before
            self.finish_reason = choice.finish_reason or self.finish_reason

    @property
    def ended(self) -> bool:
        """Whether there is an answer that has come to its end, for all that is known."""
        return self.finish_reason is not None and not self._named_too_early and bool(self.pieces)

    @property
    def full(self) -> bool:
        """Whether no more of it is taken."""
        return self.characters > MAX_REPLY_CHARS

    def reply(self, prompt_tokens: int) -> Reply:
        """Return it, where it has come to an end.

        Raises:
            ModelError: it has not, or to one that is of no use.
        """
        if self.error and not self.ended:
            raise failures.gave_up(self.error, self._settings)
        if not self.choices:
            msg = "the model's reply is empty (no choices): try again; should it stay so, check STRATBOX_DEEPSEEK_MODEL"
            raise MalformedReply(msg)
        if self.finish_reason is None and not self.full:
            msg = "the model's reply ended before it was finished: try again"
            raise MalformedReply(msg)
        if self.finish_reason == _FILTERED:
            msg = "the endpoint's content filter held the reply back: put the prompt in other words"
            raise ContentFiltered(msg)
        if self.finish_reason == _INTERRUPTED:
            msg = "the endpoint was too busy to finish the reply: try again later"
            raise ModelUnavailable(msg)
        usage = Usage(**self.usage.model_dump()) if self.usage else self._estimate(prompt_tokens)
        whole = not self.full and self.finish_reason != _OUT_OF_TOKENS
        # JSON can escape half a surrogate pair. Two halves, of two pieces, are a character; one alone would break every
        # later encoding.
        text = "".join(self.pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return Reply(text=failures.without_key(text, self._settings), whole=whole, usage=usage)

    def _estimate(self, prompt_tokens: int) -> Usage:
        return Usage(prompt_tokens=prompt_tokens, completion_tokens=_tokens(self.bytes), estimated=True)


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
        collected = _Collected(settings)
        call = _Call(settings)
        failure: ModelError | None = None
        try:
            # Endpoints under load send blank lines, so that no time limit of the HTTP client's ever strikes.
            async with asyncio.timeout(settings.timeout_seconds) as clock:
                limit = clock.when()
                async with contextlib.aclosing(call.pieces(conversation, max_tokens)) as pieces:
                    async for piece in pieces:
                        collected.take(piece)
                        if observe:
                            observe(collected.characters)
                        if collected.full or collected.error:
                            break
                        soon = asyncio.get_running_loop().time() + COUNT_SECONDS
                        clock.reschedule(min(limit, soon) if collected.ended and limit else limit)
        except ModelError as exc:
            failure = exc
        except TimeoutError:
            if not clock.expired():
                raise  # the observer's own
            failure = failures.overdue(settings, call.refusal)
        # What has come to its end was paid for, whatever follows, or does not.
        if failure and not collected.ended:
            raise failure
        return collected.reply(estimate_tokens(conversation))


class _Call:
    """One call over HTTP, tried again where that helps."""

    def __init__(self, settings: DeepSeekSettings) -> None:
        self._settings = settings
        #: The last answer, where it was an error.
        self.refusal: httpx2.Response | None = None

    async def pieces(self, conversation: Sequence[Message], max_tokens: int) -> AsyncGenerator[Piece, None]:
        """Yield the reply, in one piece or as it is written; errors of the SDK become ours."""
        settings = self._settings
        asked: dict[str, Any] = {"model": settings.model, "messages": list(conversation), "max_tokens": max_tokens}
        if settings.stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        failure: ModelError
        try:
            async with openai.AsyncOpenAI(
                api_key=settings.api_key.get_secret_value(),
                base_url=settings.base_url,
                timeout=settings.timeout_seconds,
                max_retries=settings.retries,
                http_client=self._http(),
            ) as client:
                # The SDK would decode whatever it is sent, however much that is.
                create = client.chat.completions.with_streaming_response.create
                async with create(**asked) as response:
                    async for piece in wire.pieces(response.http_response):
                        yield piece
                    return
        except asyncio.CancelledError as exc:
            exc.__context__ = None  # while it waits to try again that is the refusal
            raise
        except ModelError as exc:
            failure = exc
        except Exception as exc:  # noqa: BLE001  # of the SDK or a library below, or Python's own in one of them
            failure = failures.translate(exc, settings)
        # Nothing may refer to what the endpoint or a library said: it may repeat the key.
        failure.__context__ = None
        raise failure

    def _http(self) -> httpx2.AsyncClient:
        try:
            authorities = _authorities()
        except OSError:
            raise failures.no_authorities() from None
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [self._undress], "response": [self._note]}
        try:
            # Nowhere else: with a redirect the prompt would go where the settings do not say.
            return openai.DefaultAsyncHttpxClient(verify=authorities, follow_redirects=False, event_hooks=hooks)
        except (ValueError, ImportError, httpx2.InvalidURL):
            raise failures.no_proxy() from None

    async def _undress(self, request: httpx2.Request) -> None:
        await wire.undress(request, self._settings.api_key.get_secret_value())

    async def _note(self, response: httpx2.Response) -> None:
        self.refusal = None if response.is_success else response
        await wire.tame(response)


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Return whom to believe that a host is itself; to read them takes as long as all else of a call."""
    return httpx2.create_ssl_context()


def estimate_tokens(conversation: Sequence[Message]) -> int:
    """Return how many tokens a conversation may have, rather too many."""
    return _tokens(sum(_size(message["content"]) for message in conversation))


def _tokens(size: int) -> int:
    return math.ceil(size / BYTES_PER_TOKEN)


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))
