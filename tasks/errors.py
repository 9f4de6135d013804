"""What can go wrong on the producer's side. The worker's own errors continue this tree in `worker.errors`.

StratboxError
├── InvalidRequest        a field of the request is wrong: fix it, sending it again is no use
├── BrokerUnavailable     Redis does not answer: whether it took the submission is not known, see `key`
├── Backpressure          there is no room for another submission now; the text and `retry_after` say when to come again
│   ├── QueueFull         the queue's own bounds, or Redis' memory
│   ├── TenantLimit       this user_id has too many that have not ended
│   └── DatasetsFull      the bound for all data sets, or Redis' memory
├── UnknownSubmission     no such id: mistyped, or its result has expired
├── UnknownDataset        no such data set: mistyped, or it has expired; put it again
├── ResultTimeout         not finished in the time the caller was willing to wait; it still may
├── ExecutionLost         the workers gave up on it (infrastructure), after their retries
├── UnreadableResult      a newer worker's result: update this side
├── OutputNotJSON         the strategy's output is not the JSON the caller asked for
├── ModelError            the model that writes strategies gave no reply that is of use
│   ├── KeyRefused        401, 403: there is no key, or it is wrong
│   ├── OutOfCredit       402: the account has to be paid for
│   ├── RateLimited       429: too much was asked for; `retry_after` says when to come again
│   ├── ModelUnavailable  5xx, or no connection: ask again later
│   ├── ModelTimeout      no whole reply in time
│   ├── PromptRefused     400, 404, 422: the request, or the model's name, is wrong; asking again is no use
│   ├── ContentFiltered   the endpoint's own filter held the reply back
│   ├── MalformedReply    what came is no reply of the chat-completions protocol
│   └── NoCode            a reply, but without a program in it, or with half of one
└── SandboxError …        worker side
"""

from __future__ import annotations

__all__ = [
    "Backpressure",
    "BrokerUnavailable",
    "ContentFiltered",
    "DatasetsFull",
    "ExecutionLost",
    "InvalidRequest",
    "KeyRefused",
    "MalformedReply",
    "ModelError",
    "ModelTimeout",
    "ModelUnavailable",
    "NoCode",
    "OutOfCredit",
    "OutputNotJSON",
    "PromptRefused",
    "QueueFull",
    "RateLimited",
    "ResultTimeout",
    "StratboxError",
    "TenantLimit",
    "UnknownDataset",
    "UnknownSubmission",
    "UnreadableResult",
]


class StratboxError(Exception):
    """Root of every error Stratbox raises on purpose; its text is one line that says what to do."""


class InvalidRequest(StratboxError, ValueError):
    """The request breaks the contract; the text names the field and why."""


class BrokerUnavailable(StratboxError):
    """Redis does not answer."""


class Backpressure(StratboxError):
    """There is no room for a submission, or a data set, now; nothing was taken in."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        #: Seconds until there may be room, from how often submissions have ended lately.
        self.retry_after = retry_after


class QueueFull(Backpressure):
    """The queue is as long as it may be, or Redis has no memory left."""


class TenantLimit(Backpressure):
    """This user has as many submissions that have not ended as one may have."""


class DatasetsFull(Backpressure):
    """All data sets together are as large as they may be, or Redis has no memory left."""


class UnknownSubmission(StratboxError, KeyError):
    """No submission with this id is known."""

    __str__ = Exception.__str__  # KeyError's would print the quoted repr of the message


class UnknownDataset(StratboxError, KeyError):
    """No data set with this hash is in Redis."""

    __str__ = Exception.__str__


class ResultTimeout(StratboxError, TimeoutError):
    """The execution did not end within the time the caller gave."""


class ExecutionLost(StratboxError):
    """The infrastructure failed and the retries are used up."""


class UnreadableResult(StratboxError):
    """The result is of a kind that this version does not know."""


class OutputNotJSON(StratboxError, ValueError):
    """The strategy's output does not hold the JSON asked for."""


class ModelError(StratboxError):
    """The model that writes strategies gave no reply that is of use."""


class KeyRefused(ModelError):
    """There is no API key, or the endpoint does not accept it."""


class OutOfCredit(ModelError):
    """The account behind the API key has no money left."""


class RateLimited(ModelError):
    """The endpoint has been asked too much."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        #: Seconds, as the endpoint has said; None when it did not.
        self.retry_after = retry_after


class ModelUnavailable(ModelError):
    """The endpoint cannot be reached, or fails by itself."""


class ModelTimeout(ModelError, TimeoutError):
    """No whole reply came in time."""


class PromptRefused(ModelError):
    """The endpoint refuses the request as it is."""


class ContentFiltered(ModelError):
    """The endpoint's own filter held the reply back."""


class MalformedReply(ModelError):
    """What came is no reply of the chat-completions protocol."""


class NoCode(ModelError):
    """The reply holds no whole program."""
