"""What an endpoint sends, decoded here and bounded: it may be wrong, or hostile, and there may be no end to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from tasks.deepseek import failures
from tasks.models import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    from tasks.errors import MalformedReply

__all__ = ["Counted", "Piece", "pieces", "tame", "undress"]

#: What a request is made of. The SDK adds what describes this machine, and what the environment says of OpenAI.
SENT = {
    *("accept", "connection", "content-length", "content-type", "host", "user-agent"),
    "x-stainless-raw-response",  # by which the SDK knows later that the response is ours to read
}
#: Of one reply, or of one event of it: a program may have 256 KiB, and models think aloud.
MAX_EVENT_BYTES = 4 * 2**20
#: Of all events: one for a token, some 300 bytes each.
MAX_EVENTS, MAX_STREAM_BYTES = 2**18, 64 * 2**20
#: Of a refusal: it is a line or two.
MAX_REFUSAL_BYTES = 64 * 2**10
#: Of a call: more is no count.
MAX_TOKENS = 10**9


class _Part(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    message: _Part | None = None  # of a reply in one piece
    delta: _Part | None = None  # of a piece of a reply
    finish_reason: str | None = None


class Counted(BaseModel):
    """Tokens as the endpoint counted them; no call has none."""

    prompt_tokens: int = Field(ge=1, le=MAX_TOKENS)
    completion_tokens: int = Field(ge=1, le=MAX_TOKENS)


class Piece(BaseModel):
    """A reply, or a piece of one."""

    #: The first, if there is one.
    choices: list[_Choice] = []
    usage: Counted | None = None
    #: In place of the rest.
    error: Any = None

    @field_validator("choices", mode="before")
    @classmethod
    def _first(cls, choices: Any) -> Any:
        # One was asked for. To look at many more would take seconds, in which nothing else is done.
        return choices[:1] if isinstance(choices, list) else choices or []

    @field_validator("usage", mode="wrap")
    @classmethod
    def _if_it_is_one(cls, usage: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Take a count that is none for one that is not there: the reply has been paid for."""
        try:
            return validate(usage)
        except ValidationError:
            return None


async def pieces(response: httpx2.Response) -> AsyncIterator[Piece]:
    """Yield what comes of a reply: in pieces, or in one where the endpoint does not stream.

    Raises:
        MalformedReply: it is none, or too long for one.
    """
    if "content-encoding" in response.headers:
        reason = "it is compressed, though that was not asked for"
        raise failures.malformed(reason)
    streamed = response.headers.get("content-type", "").startswith("text/event-stream")
    chunks = response.aiter_raw()
    async for event in _events(chunks) if streamed else _whole(chunks):
        yield _piece(event)


async def undress(request: httpx2.Request, key: str) -> None:
    """Leave of a request's headers what the endpoint needs, for the hook of httpx2.

    Bytes are asked for as they are: a few compressed ones may stand for gigabytes.
    """
    request.headers = httpx2.Headers({name: value for name, value in request.headers.items() if name in SENT})
    request.headers |= {"Accept-Encoding": "identity", "Authorization": f"Bearer {key}"}


async def tame(response: httpx2.Response) -> None:
    """Cut off what comes with a status that is an error, for the hook of httpx2.

    The SDK reads, unpacks and decodes all there is, and does as its headers say.
    """
    if not response.is_success:
        kept = {name: value for name, value in response.headers.items() if name == "retry-after"}
        response.headers = httpx2.Headers(kept | {"Content-Type": "application/json"})
        response.stream = _Head(response.stream)


def _piece(event: bytes) -> Piece:
    try:
        # Not by pydantic's own parser: it refuses half a surrogate pair, and with it a reply that was paid for.
        return Piece.model_validate(json.loads(event))
    except ValidationError as exc:
        raise failures.malformed(one_line(exc)) from None
    except (ValueError, RecursionError):
        raise failures.malformed() from None


class _Head(httpx2.AsyncByteStream):
    """The beginning of a body."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = MAX_REFUSAL_BYTES
        async for chunk in self._stream:
            yield chunk[:room]
            room -= len(chunk)
            if room <= 0:
                break

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _whole(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_EVENT_BYTES:
            raise _too_long()
    yield bytes(body)


async def _events(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield what follows `data:` on each line; the protocol has one such line in an event, and says when it ends."""
    room, events, unfinished = MAX_STREAM_BYTES, 0, bytearray()
    async for chunk in chunks:
        room -= len(chunk)
        if room < 0 or len(unfinished) + len(chunk) > MAX_EVENT_BYTES:
            raise _too_long()
        unfinished += chunk
        if b"\n" not in chunk:
            continue
        *lines, rest = unfinished.split(b"\n")
        unfinished = rest
        for line in lines:
            name, _, value = line.partition(b":")
            if name != b"data":
                continue  # a comment, sent to keep the line busy
            if (value := value.strip()) == b"[DONE]":
                return
            if (events := events + 1) > MAX_EVENTS:
                raise _too_long()
            yield bytes(value)


def _too_long() -> MalformedReply:
    return failures.malformed("it is longer than any")
