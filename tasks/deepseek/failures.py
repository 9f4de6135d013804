"""What an endpoint, or the way to it, does wrong, as errors of ours; of the API key nothing gets into their texts."""

from __future__ import annotations

import email.utils
import logging
import math
import time
import traceback
from typing import TYPE_CHECKING, Any

import httpx2
import openai

from tasks.errors import (
    KeyRefused,
    MalformedReply,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    OutOfCredit,
    PromptRefused,
    RateLimited,
)
from tasks.excerpt import excerpt

if TYPE_CHECKING:
    from tasks.deepseek.settings import DeepSeekSettings

__all__ = ["gave_up", "malformed", "no_authorities", "no_proxy", "overdue", "translate", "without_key"]

logger = logging.getLogger(__name__)

#: Of what an endpoint says so many characters are repeated.
MAX_REASON_CHARS = 200
#: Who asks for more patience, seconds, does not mean it.
MAX_PAUSE = 10**7
#: Local endpoints take any key, such as "none"; real ones are longer.
MIN_KEY_CHARS = 12

_KEY = (KeyRefused, "the endpoint refuses the API key", "check STRATBOX_DEEPSEEK_API_KEY")
_FAILS = (ModelUnavailable, "the endpoint fails", "try again later")
_REFUSES = (
    PromptRefused,
    "the endpoint refuses the request",
    "check STRATBOX_DEEPSEEK_MODEL and _BASE_URL, and the length of the prompt",
)
#: By HTTP status: the error, what happened, what to do.
_STATUSES: dict[int, tuple[type[ModelError], str, str]] = {
    401: _KEY,
    402: (OutOfCredit, "the account has no credit left", "top it up at the endpoint's provider"),
    403: _KEY,
    408: _FAILS,
    409: _FAILS,
}
_TOO_MANY, _SERVER = 429, 500


def translate(exc: Exception, settings: DeepSeekSettings) -> ModelError:
    """Return what to raise in place of an error of the SDK or its HTTP client, whose text may repeat the key."""
    if isinstance(exc, openai.APIStatusError):
        return _of_status(exc.response, f"{exc.status_code}{_reason(exc.body, settings)}")
    if isinstance(exc, openai.APITimeoutError | httpx2.TimeoutException):
        return overdue(settings)
    if isinstance(exc, openai.APIConnectionError):
        advice = "check STRATBOX_DEEPSEEK_BASE_URL, or try again later"
        return ModelUnavailable(f"{settings.base_url} cannot be reached, or hung up: {advice}")
    if not isinstance(exc, httpx2.HTTPError | OSError):
        # A mistake of a library, or of ours. Without its message, which may repeat the key.
        frames = "".join(traceback.format_tb(exc.__traceback__))
        logger.error("%s in a call of the model\n%s", type(exc).__name__, frames)
    return ModelUnavailable(f"the endpoint gave up within its reply ({type(exc).__name__}): try again later")


def gave_up(told: Any, settings: DeepSeekSettings) -> ModelUnavailable:
    """Return the error for one that comes in place of a reply, under a status that is none."""
    return ModelUnavailable(f"the endpoint gave up within its reply{_reason(told, settings)}: try again later")


def malformed(reason: str = "it is not JSON of the right shape") -> MalformedReply:
    """Return the error for what is no reply of the protocol."""
    advice = "check STRATBOX_DEEPSEEK_BASE_URL"
    return MalformedReply(f"what came is no reply of the chat-completions protocol ({reason}): {advice}")


def no_proxy() -> ModelUnavailable:
    """Return the error for a proxy that the HTTP client does not take; its address may hold a password."""
    advice = "give http:// or https:// in HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or the endpoint in NO_PROXY"
    return ModelUnavailable(f"a proxy that the environment names cannot be used: {advice}")


def no_authorities() -> ModelUnavailable:
    """Return the error for certificates that cannot be read."""
    advice = "set SSL_CERT_FILE and SSL_CERT_DIR to files that are there, or to nothing"
    return ModelUnavailable(f"the certificates of authorities cannot be read: {advice}")


def overdue(settings: DeepSeekSettings, refusal: httpx2.Response | None = None) -> ModelError:
    """Return the error for a reply that took too long; where the endpoint had refused it before, that is why."""
    if refusal is not None:
        return _of_status(refusal, str(refusal.status_code))
    advice = "try again, or raise STRATBOX_DEEPSEEK_TIMEOUT_SECONDS"
    return ModelTimeout(f"no whole reply within {settings.timeout_seconds:g} s: {advice}")


def without_key(text: str, settings: DeepSeekSettings) -> str:
    """Return a text without the key, should it repeat it; what is short is none, but a word that stands for one."""
    key = settings.api_key.get_secret_value()
    return text.replace(key, "***") if len(key) >= MIN_KEY_CHARS else text


def _of_status(response: httpx2.Response, told: str) -> ModelError:
    if response.status_code == _TOO_MANY:
        seconds = _retry_after(response.headers)
        when = "later" if seconds is None else f"in {math.ceil(seconds)} s"
        return RateLimited(f"the endpoint has been asked too much ({told}): try again {when}", seconds)
    status = response.status_code
    kind, happened, advice = _STATUSES.get(status, _FAILS if status >= _SERVER else _REFUSES)
    return kind(f"{happened} ({told}): {advice}")


def _reason(body: Any, settings: DeepSeekSettings) -> str:
    """Return what the endpoint said, one short line after a colon, the key cut out should it repeat it."""
    told = body.get("message") if isinstance(body, dict) else body
    if not isinstance(told, str) or not told.strip():
        return ""
    return f": {' '.join(excerpt(without_key(told, settings), MAX_REASON_CHARS).split())}"


def _retry_after(headers: Any) -> float | None:
    """Return what the header says, in seconds; it may be a number or a date."""
    told = headers.get("retry-after", "")
    try:
        seconds = float(told)
    except ValueError:
        try:
            date = email.utils.parsedate_tz(told)
            seconds = math.nan if date is None else email.utils.mktime_tz(date) - time.time()
        except (ValueError, OverflowError):  # a year that no calendar has
            return None
    return max(0.0, seconds) if seconds < MAX_PAUSE else None  # no NaN, either
