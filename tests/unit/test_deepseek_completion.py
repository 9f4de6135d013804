"""One call to a model: over real HTTP, to a server that follows its script. Every failure is an error of ours."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import json
import logging
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from scripted_model import CHARS_PER_TOKEN, Reply, scripted_model

from tasks.deepseek import DeepSeekAgent, DeepSeekSettings, completion, wire
from tasks.deepseek.completion import MAX_REPLY_CHARS, Model
from tasks.errors import (
    ContentFiltered,
    InvalidRequest,
    KeyRefused,
    MalformedReply,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    NoCode,
    OutOfCredit,
    PromptRefused,
    RateLimited,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "sk-a-very-secret-key"
CONVERSATION = [{"role": "system", "content": "Write."}, {"role": "user", "content": "RSI"}]
GOOD = Reply("```python\nprint(1)\n```", reasoning="Let me think.")


def settings(url: str, **values: Any) -> DeepSeekSettings:
    """Return settings for a scripted model; one try for each call."""
    defaults = {"api_key": KEY, "base_url": url, "retries": 0, "timeout_seconds": 10}
    return DeepSeekSettings.model_validate(defaults | values)


def error(message: object) -> bytes:
    """Return the body of an error, as DeepSeek and OpenAI send it."""
    return json.dumps({"error": {"message": message, "type": "some_error", "code": "some_code"}}).encode()


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def stream(request: pytest.FixtureRequest) -> bool:
    """Both ways in which a reply comes."""
    return bool(request.param)


@pytest.fixture
def say(stream: bool) -> Callable[..., Any]:  # noqa: FBT001  # a fixture
    """Call a model that says this; gives the reply, or raises."""

    def call(*script: Reply, **values: Any) -> Any:
        with scripted_model(*script) as model:
            one = Model(settings(model.url, stream=stream, **values))
            return asyncio.run(one.complete(CONVERSATION, max_tokens=500)), model

    return call


def test_a_reply(say: Callable[..., Any], *, stream: bool) -> None:
    """Text without thoughts, whether it is whole, and the tokens that the endpoint counted."""
    reply, model = say(GOOD)
    assert (reply.text, reply.whole) == (GOOD.text, True)
    counted = len(GOOD.reasoning + GOOD.text) // CHARS_PER_TOKEN
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.estimated) == (2, counted, False)
    headers, asked = model.requests[0]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert asked["messages"] == CONVERSATION
    assert (asked["model"], asked["max_tokens"], asked.get("stream", False)) == ("deepseek-v4-flash", 500, stream)
    assert asked.get("stream_options") == ({"include_usage": True} if stream else None)


def test_tokens_that_nobody_counted_are_estimated(say: Callable[..., Any]) -> None:
    """From the length of the texts, thoughts included: rather too many."""
    reply, _ = say(Reply("x" * 30, reasoning="y" * 60, usage=False))
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.estimated) == (3, 30, True)


@pytest.mark.parametrize(
    "usage",
    [
        b"null",
        b"[]",
        b'{"prompt_tokens": 1}',
        b'{"prompt_tokens": -1, "completion_tokens": 1}',
        b'{"prompt_tokens": 1, "completion_tokens": -1}',
        b'{"prompt_tokens": 1, "completion_tokens": NaN}',
        b'{"prompt_tokens": 1, "completion_tokens": 0}',
        b'{"prompt_tokens": 0, "completion_tokens": 1}',
        b'{"prompt_tokens": 1, "completion_tokens": ' + b"9" * 4300 + b"}",
        b'{"prompt_tokens": null, "completion_tokens": "many"}',
    ],
)
def test_a_count_that_is_none_does_not_cost_the_reply(usage: bytes) -> None:
    """It was paid for; the tokens are estimated."""
    body = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": ' + usage + b"}"
    with scripted_model(Reply(body=body)) as model:
        reply = asyncio.run(Model(settings(model.url, stream=False)).complete(CONVERSATION, max_tokens=500))
    assert (reply.text, reply.usage.estimated, reply.usage.completion_tokens) == ("x", True, 1)


def test_tokens_of_other_scripts_are_estimated(say: Callable[..., Any]) -> None:
    """Of Chinese a token holds one character or two."""
    reply, _ = say(Reply("策略" * 10, usage=False))
    assert reply.usage.completion_tokens == 20


def test_a_reply_that_ran_out_of_tokens_is_not_whole(say: Callable[..., Any]) -> None:
    """The endpoint says so."""
    reply, _ = say(Reply("```python\nprint(", finish_reason="length"))
    assert not reply.whole


def test_a_reply_without_end_is_cut(say: Callable[..., Any], *, stream: bool) -> None:
    """Thoughts count, too; of what comes in pieces no more is read."""
    reply, _ = say(Reply("x", reasoning="y" * (MAX_REPLY_CHARS + 1)))
    assert not reply.whole
    reply, _ = say(Reply("x" * 3 * MAX_REPLY_CHARS))
    assert not reply.whole
    assert len(reply.text) < (1.1 if stream else 3.1) * MAX_REPLY_CHARS


def test_half_a_surrogate_is_replaced(say: Callable[..., Any]) -> None:
    """JSON can escape what no encoding can hold."""
    reply, _ = say(Reply("a\ud800b"))
    assert reply.text == "a\ufffdb"
    reply, _ = say(Reply("x" * 39 + "\ud83d\ude00"))  # in two pieces, where it is streamed
    assert reply.text == "x" * 39 + "😀"


def test_progress_is_told() -> None:
    """How many characters have come, each time some do."""
    counts: list[int] = []
    with scripted_model(Reply("x" * 100)) as model:
        asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500, observe=counts.append))
    assert counts == sorted(counts)
    assert {40, 80, 100} <= {*counts}


def test_an_observer_s_error_is_its_own() -> None:
    """A TimeoutError of his is none of the model's."""

    def fail(_: int) -> None:
        raise TimeoutError

    with scripted_model(GOOD) as model, pytest.raises(TimeoutError) as caught:
        asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500, observe=fail))
    assert not isinstance(caught.value, ModelTimeout)


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, PromptRefused, "STRATBOX_DEEPSEEK_MODEL"),
        (401, KeyRefused, "STRATBOX_DEEPSEEK_API_KEY"),
        (402, OutOfCredit, "top it up"),
        (403, KeyRefused, "STRATBOX_DEEPSEEK_API_KEY"),
        (404, PromptRefused, "STRATBOX_DEEPSEEK_MODEL and _BASE_URL"),
        (408, ModelUnavailable, "later"),
        (409, ModelUnavailable, "later"),
        (413, PromptRefused, "length of the prompt"),
        (422, PromptRefused, "STRATBOX_DEEPSEEK_MODEL"),
        (429, RateLimited, "later"),
        (500, ModelUnavailable, "later"),
        (502, ModelUnavailable, "later"),
        (503, ModelUnavailable, "later"),
        (529, ModelUnavailable, "later"),
    ],
)
@pytest.mark.parametrize("body", [error("it's so"), b"<html>", error({"not": "text"})])
def test_http_errors(say: Callable[..., Any], status: int, kind: type[ModelError], advice: str, body: bytes) -> None:
    """Each status is an error of its kind that says what to do, whatever the body is."""
    with pytest.raises(kind, match=f"{status}.*{advice}") as caught:
        say(Reply(status=status, body=body))
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    if body == error("it's so"):
        assert "it's so" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds", "told"),
    [
        ({"Retry-After": "30"}, 30.0, "in 30 s"),
        ({"Retry-After": "2.5"}, 2.5, "in 3 s"),
        ({"Retry-After": "-1"}, 0.0, "in 0 s"),
        ({"Retry-After": "soon"}, None, "later"),
        ({"Retry-After": "inf"}, None, "later"),
        ({"Retry-After": "nan"}, None, "later"),
        ({"Retry-After": "1e308"}, None, "later"),
        ({"Retry-After": "Fri, 31 Dec 999999 23:59:59 GMT"}, None, "later"),
        ({}, None, "later"),
    ],
)
def test_retry_after(say: Callable[..., Any], header: dict[str, str], seconds: float | None, told: str) -> None:
    """When to come again, where the endpoint says so."""
    with pytest.raises(RateLimited, match=f"try again {told}") as caught:
        say(Reply(status=429, headers=header, body=error("slow down")))
    assert caught.value.retry_after == seconds


def test_retry_after_as_a_date(say: Callable[..., Any]) -> None:
    """As HTTP allows."""
    when = email.utils.formatdate(time.time() + 90, usegmt=True)
    with pytest.raises(RateLimited) as caught:
        say(Reply(status=429, headers={"Retry-After": when}, body=b""))
    assert caught.value.retry_after == pytest.approx(90, abs=15)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(say: Callable[..., Any], status: int) -> None:
    """As often as the settings say, and not before the endpoint wants it."""
    began = time.monotonic()
    reply, model = say(Reply(status=status, headers={"Retry-After": "0.3"}, body=b""), GOOD, retries=1)
    assert reply.text == GOOD.text
    assert len(model.requests) == 2
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("status", [400, 401, 402, 404, 422])
def test_what_stays_wrong_is_not_tried_again(stream: bool, status: int) -> None:  # noqa: FBT001  # a fixture
    """A wrong key is asked for once, whatever the endpoint wants."""
    with scripted_model(Reply(status=status, body=b"", headers={"x-should-retry": "true"})) as model:
        with pytest.raises(ModelError):
            asyncio.run(Model(settings(model.url, stream=stream, retries=5)).complete(CONVERSATION, max_tokens=500))
        assert len(model.requests) == 1


def test_a_refusal_that_asks_for_more_patience_than_there_is(say: Callable[..., Any]) -> None:
    """Is what is told of it, with the time to come again; not that a reply took too long."""
    with pytest.raises(RateLimited, match=r"429.*in 30 s") as caught:
        say(Reply(status=429, headers={"Retry-After": "30"}, body=b""), retries=2, timeout_seconds=1)
    assert caught.value.retry_after == 30


def test_an_endpoint_that_keeps_the_line_busy_is_given_up(say: Callable[..., Any]) -> None:
    """Blank lines, as DeepSeek sends them under load, do not reset the time."""
    began = time.monotonic()
    with pytest.raises(ModelTimeout, match=r"within 0.5 s.*STRATBOX_DEEPSEEK_TIMEOUT_SECONDS"):
        say(Reply("late", delay_seconds=20), timeout_seconds=0.5)
    assert time.monotonic() - began < 15


def test_busy_lines_before_a_reply_are_no_part_of_it(say: Callable[..., Any]) -> None:
    """Where it comes in time, all is well."""
    reply, _ = say(Reply(GOOD.text, delay_seconds=0.3))
    assert reply.text == GOOD.text


def test_nobody_there() -> None:
    """A closed port is one line with the address."""
    with scripted_model(GOOD) as model:
        url = model.url
    with pytest.raises(ModelUnavailable, match=f"{url} cannot be reached.*STRATBOX_DEEPSEEK_BASE_URL"):
        asyncio.run(Model(settings(url)).complete(CONVERSATION, max_tokens=500))


BODIES = [
    b"",
    b"not JSON",
    b'{"choices": ',
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"choices": null}',
    b'{"choices": {}}',
    b'{"choices": [1]}',
    b'{"choices": [{"message": "text"}]}',
    b'{"choices": [{"message": {"content": 7}}]}',
    b'{"choices": [{"message": {"content": ["text"]}, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": 3}]}',
    b'{"choices": [], "usage": null}',
    b'{"choices": [{"message": {"content": "\xff"}}]}',
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": ' + b"9" * 5000 + b"}]}",
]


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("body", BODIES)
def test_malformed_bodies(say: Callable[..., Any], body: bytes, kind: str) -> None:
    """What is no reply of the protocol is said to be none; never an error of the SDK or of Python."""
    with pytest.raises(MalformedReply) as caught:
        say(Reply(body=body, content_type=kind))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", BODIES)
def test_malformed_events(body: bytes) -> None:
    """The same in the middle of a stream."""
    with scripted_model(Reply(body=b"data: " + body + b"\n\n", content_type="text/event-stream")) as model:
        with pytest.raises(ModelError) as caught:
            asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500))
        assert isinstance(caught.value, MalformedReply | ModelUnavailable)
        assert "\n" not in str(caught.value)


FLOOD = b"x" * 2**16


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=FLOOD, endless=True),
        Reply(body=FLOOD, endless=True, content_type="text/event-stream"),
        Reply(body=b": busy\n" * 10_000, endless=True, content_type="text/event-stream"),
        Reply(body=b'data: {"choices": []}\n\n' * 1000, endless=True, content_type="text/event-stream"),
        Reply(body=b" " * 2**16, endless=True),
    ],
    ids=["body", "line", "comments", "empty events", "blanks"],
)
def test_a_flood_is_bounded(say: Callable[..., Any], reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends without end is hung up on."""
    monkeypatch.setattr(wire, "MAX_EVENTS", 10_000)
    monkeypatch.setattr(wire, "MAX_STREAM_BYTES", 4 * 2**20)
    with pytest.raises(MalformedReply, match="longer than any"):
        say(reply, timeout_seconds=60)


@pytest.mark.parametrize("status", [307, 401, 500])
@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_the_flood_of_a_refusal_is_cut(say: Callable[..., Any], status: int, headers: dict[str, str]) -> None:
    """The SDK would read all of it."""
    with pytest.raises(ModelError, match=str(status)):
        say(Reply(status=status, headers=headers, body=FLOOD, endless=True))


def test_a_bomb_is_not_unpacked(say: Callable[..., Any]) -> None:
    """A gigabyte of blanks in a megabyte: compressed replies are not asked for, and not taken."""
    with pytest.raises(MalformedReply, match="compressed, though that was not asked for"):
        say(Reply(body=gzip.compress(b" " * 2**20), headers={"Content-Encoding": "gzip"}, endless=True))


def test_many_choices_cost_little(say: Callable[..., Any]) -> None:
    """The first counts; the others keep nobody busy, as they would as objects of the SDK."""
    one = '{"message": {"content": "%s"}, "finish_reason": "stop"}'
    body = f'{{"choices": [{one % "first"}{(", " + one % "x") * 60_000}]}}'.encode()
    began = time.thread_time()
    reply, _ = say(Reply(body=body))
    assert reply.text == "first"
    assert time.thread_time() - began < 1  # 0.2 s; as objects of the SDK 5


def test_many_ends_of_nothing_cost_little() -> None:
    """Each piece is looked at once, whatever it names."""
    event = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    reply = Reply(body=event * 50_000, content_type="text/event-stream")
    with scripted_model(reply) as model:
        began = time.thread_time()
        said = asyncio.run(Model(settings(model.url, timeout_seconds=60)).complete(CONVERSATION, max_tokens=500))
        assert time.thread_time() - began < 5  # 1 s; to look at all of them each time took minutes
    assert said.text == ""


def test_an_error_under_a_status_that_is_none(say: Callable[..., Any]) -> None:
    """What the endpoint says is told, as text or as it should be."""
    for told in ({"message": "overloaded"}, "overloaded"):
        with pytest.raises(ModelUnavailable, match=r"gave up.*: overloaded: try again later"):
            say(Reply(body=json.dumps({"error": told}).encode()))


def test_an_endpoint_that_does_not_stream() -> None:
    """Though it was asked to: its reply is taken as it comes."""
    body = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'
    with scripted_model(Reply(body=body)) as model:
        reply = asyncio.run(Model(settings(model.url, stream=True)).complete(CONVERSATION, max_tokens=500))
    assert reply.text == "x"


def test_an_end_is_not_forgotten() -> None:
    """Though pieces follow that name none."""
    events = (
        b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "length"}]}\r\n\r\n'
        b'data:{"choices": [{"delta": {}, "finish_reason": null}]}\n\n'
        b"data: [DONE]\n\ndata: nothing of this is read\n\n"
    )
    with scripted_model(Reply(body=events, content_type="text/event-stream")) as model:
        reply = asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500))
    assert (reply.text, reply.whole) == ("x", False)


def test_only_the_first_choice_is_taken(say: Callable[..., Any]) -> None:
    """Whatever others there are."""
    body = (
        b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"},'
        b' {"message": {"content": "b"}, "finish_reason": "length"}]}'
    )
    reply, _ = say(Reply(body=body))
    assert (reply.text, reply.whole) == ("a", True)


def test_an_error_in_the_middle_of_a_stream() -> None:
    """With what the endpoint says."""
    body = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: ' + error("overloaded") + b"\n\n"
    with (
        scripted_model(Reply(body=body, content_type="text/event-stream")) as model,
        pytest.raises(ModelUnavailable, match=r"within its reply.*overloaded"),
    ):
        asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500))


END = b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\n'


@pytest.mark.parametrize(
    "after",
    [
        b"",
        b"data: {broken\n\n",
        b'data: {"choices": null, "usage": {"prompt_tokens": 2, "completion_tokens": 7}}\n\n',
        b'data: {"choices": [{"delta": null, "finish_reason": null}]}\n\n',
        b'data: {"choices": [{"message": 7}]}\n\n',
        b"data: " + b"x" * (wire.MAX_EVENT_BYTES + 1),
    ],
)
def test_what_has_come_to_its_end_counts(after: bytes) -> None:
    """Whatever follows, the reply was paid for; the tokens are estimated where the count does not come."""
    reply = Reply(body=END + after, content_type="text/event-stream", headers={"Content-Length": "99999999"})
    with scripted_model(reply) as model:
        said = asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500))
    assert (said.text, said.whole) == ("x", True)
    assert said.usage.estimated == (b"usage" not in after)


def test_an_error_after_the_end_costs_nothing() -> None:
    """The reply has come."""
    reply = Reply(body=END + b"data: " + error("no count today") + b"\n\n", content_type="text/event-stream")
    with scripted_model(reply) as model:
        assert asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500)).text == "x"


def test_an_end_that_is_named_with_every_piece_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that comes with the thoughts: what follows is waited for, and missed where it does not come."""
    monkeypatch.setattr(completion, "COUNT_SECONDS", 1.0)
    with scripted_model(Reply("y" * 400, delay_each_seconds=0.2, ends_each=True)) as model:
        said = asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500))
    assert (said.text, said.whole) == ("y" * 400, True)
    thought = b'data: {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": "stop"}]}\n\n'
    cut = Reply(body=thought + END + END, content_type="text/event-stream", headers={"Content-Length": "9999"})
    with scripted_model(cut) as model, pytest.raises(ModelUnavailable):
        asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500))


def test_a_line_that_stays_busy_after_the_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is waited for, but not for long."""
    monkeypatch.setattr(completion, "COUNT_SECONDS", 0.3)
    reply = Reply(body=END, content_type="text/event-stream", stays_seconds=30)
    with scripted_model(reply) as model:
        began = time.monotonic()
        said = asyncio.run(Model(settings(model.url, timeout_seconds=60)).complete(CONVERSATION, max_tokens=500))
        assert (said.text, said.usage.estimated) == ("x", True)
        assert time.monotonic() - began < 15


def test_null_stands_for_nothing(say: Callable[..., Any]) -> None:
    """In place of what a reply in another form would have."""
    body = b'{"choices": [{"message": {"content": "x"}, "delta": null, "finish_reason": "stop"}], "error": null}'
    assert say(Reply(body=body))[0].text == "x"


@pytest.mark.parametrize("kind", ["text/plain; charset=hex", "text/plain; charset=idna", "x" * 1000, ""])
def test_a_refusal_of_an_odd_kind(say: Callable[..., Any], kind: str) -> None:
    """Is the refusal that it is."""
    with pytest.raises(PromptRefused, match="400: no such model"):
        say(Reply(status=400, body=error("no such model"), content_type=kind))


def test_a_reply_that_breaks_off(say: Callable[..., Any]) -> None:
    """A connection that is closed before the reply says that it is finished."""
    with pytest.raises(MalformedReply, match="before it was finished"):
        say(Reply("```python\nprint(1)\n", finish_reason=None))


@pytest.mark.parametrize("headers", [{"Content-Length": "100"}, {"Content-Encoding": "gzip"}])
def test_an_error_whose_body_is_broken(say: Callable[..., Any], headers: dict[str, str]) -> None:
    """As behind proxies: it breaks off, or is not what it says; an error of ours all the same."""
    with pytest.raises(ModelUnavailable):
        say(Reply(status=502, headers=headers, body=b"x"))


def test_deep_nesting_is_malformed(say: Callable[..., Any]) -> None:
    """And no RecursionError."""
    with pytest.raises(ModelError):
        say(Reply(body=b'{"choices": ' + b"[" * 100_000, content_type="application/json"))


def test_content_filter(say: Callable[..., Any]) -> None:
    """Is said to be one."""
    with pytest.raises(ContentFiltered, match="other words"):
        say(Reply("", finish_reason="content_filter"))


def test_an_endpoint_that_is_too_busy_to_finish(say: Callable[..., Any]) -> None:
    """DeepSeek has a reason of its own for it."""
    with pytest.raises(ModelUnavailable, match="too busy"):
        say(Reply("half", finish_reason="insufficient_system_resource"))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(say: Callable[..., Any], status: int) -> None:
    """Prompt and key go to the address in the settings, and nowhere else."""
    with scripted_model(GOOD) as elsewhere:
        with pytest.raises(PromptRefused, match=f"{status}.*_BASE_URL"):
            say(Reply(status=status, headers={"Location": f"{elsewhere.url}/chat/completions"}, body=b""))
        assert elsewhere.requests == []


def test_no_key_is_told_before_anything_is_sent() -> None:
    """With the name of the variable."""
    with scripted_model(GOOD) as model:
        with pytest.raises(KeyRefused, match="set STRATBOX_DEEPSEEK_API_KEY"):
            asyncio.run(Model(settings(model.url, api_key="")).complete(CONVERSATION, max_tokens=500))
        assert model.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=401, body=error(f"Incorrect API key provided: {KEY}. You can find your key elsewhere.")),
        Reply(status=500, body=error(f"Authorization: Bearer {KEY}")),
        Reply(status=429, body=error(KEY)),
        Reply(status=400, body=f"<html>{KEY}</html>".encode()),
        Reply(body=b'data: {"error": {"message": "' + KEY.encode() + b'"}}\n\n', content_type="text/event-stream"),
        Reply(body=f"{KEY}".encode()),
        Reply(body=json.dumps({"choices": [{"message": {"content": {KEY: 1}}}]}).encode()),
    ],
)
def test_the_key_is_nowhere(say: Callable[..., Any], caplog: pytest.LogCaptureFixture, reply: Reply) -> None:
    """Not in an error, its traceback or its log, though the endpoint repeats it and every logger says all it can."""
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelError) as caught:
        say(reply)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown + repr(caught.value) + caplog.text
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_key_in_a_reply_is_cut_out(say: Callable[..., Any]) -> None:
    """It would get into the code, and with it into tasks and results; what is no secret stays."""
    reply, _ = say(Reply(f"key = '{KEY}'"))
    assert reply.text == "key = '***'"
    reply, _ = say(Reply("none of it"), api_key="none")
    assert reply.text == "none of it"


def test_the_key_is_in_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    """Nor in what is logged of a call that succeeds."""
    with scripted_model(GOOD) as model:
        known = settings(model.url)
        agent = DeepSeekAgent(known)
        with caplog.at_level(logging.DEBUG):
            assert asyncio.run(agent.generate_strategy(prompt="RSI", user_id="user_123")) == "print(1)\n"
        assert model.requests[0][1]["max_tokens"] == known.max_tokens
        assert KEY not in "".join([repr(agent), repr(known), str(known), known.model_dump_json(), repr(vars(agent))])
    assert KEY not in caplog.text


def test_accounts_at_openai_are_not_told_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK would read from the environment goes nowhere."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "org-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: org-mine\nAuthorization: Bearer org-mine")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    with scripted_model(GOOD) as model:
        asyncio.run(Model(settings(model.url)).complete(CONVERSATION, max_tokens=500))
        headers, _ = model.requests[0]
    assert "org-mine" not in repr(headers)
    assert headers.keys() == {*wire.SENT, "accept-encoding", "authorization"}
    assert headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("api.deepseek.com", "not an address"),
        ("ftp://api.deepseek.com", "not an address"),
        ("http://", "not an address"),
        ("http://127.0.0.1:99999", "not an address"),
        ("http://127.0.0.1:0", "not an address"),
        ("http://127.0.0.1:-1", "not an address"),
        ("http://127.0.0.1:port", "not an address"),
        ("http://[::1", "not an address"),
        ("http://a..b", "not an address"),
        ("http://a b", "not an address"),
        (f"http://{'a' * 70}.com", "not an address"),
        (f"http://{'ä' * 70}.com", "not an address"),
        ("https://\x00", "not an address"),
        ("https://x/\ud800", "not an address"),
        ("https://x/v1?", "give the key as"),
        ("https://x/v1#secret", "give the key as"),
        ("https://@x/v1", "give the key as"),
        ("https://x/v1;key=secret", "give the key as"),
        ("https://user:secret@api.deepseek.com", "give the key as"),
        ("https://api.deepseek.com?key=secret", "give the key as"),
    ],
)
def test_a_wrong_address_is_refused(url: str, reason: str) -> None:
    """A login in it would get into logs."""
    with pytest.raises(ValueError, match=reason) as caught:
        settings(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1]:8000/v1", "http://bücher.example", "http://model_1.internal.:80/v1/"])
def test_unusual_addresses_are_taken(url: str) -> None:
    """As they are."""
    assert settings(url).base_url == url


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:9", "ftp://secret@127.0.0.1", "://secret", "http://127.0.0.1:secret"]
)
def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """One line that says where it is named, without what may be a password."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ModelUnavailable, match="ALL_PROXY") as caught:
        asyncio.run(Model(settings("http://model.example/v1")).complete(CONVERSATION, max_tokens=500))
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_authorities_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, and to try again is of no use."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    completion._authorities.cache_clear()
    with pytest.raises(ModelUnavailable, match="SSL_CERT_FILE"):
        asyncio.run(Model(settings("http://127.0.0.1:9/v1")).complete(CONVERSATION, max_tokens=500))


def test_a_key_in_a_status_line_stays_there() -> None:
    """Neither error nor cancel refers to it, though the SDK waits to try again."""

    async def give_up(model: Model) -> BaseException:
        asking = asyncio.ensure_future(model.complete(CONVERSATION, max_tokens=500))
        await asyncio.sleep(0.5)
        asking.cancel()
        (ended,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(ended, BaseException)
        return ended

    refusal = Reply(status=503, reason=KEY, headers={"Retry-After": "30"}, body=b"")
    with scripted_model(refusal) as server:
        patient = settings(server.url, retries=2, timeout_seconds=1)
        with pytest.raises(ModelUnavailable, match="503") as caught:
            asyncio.run(Model(patient).complete(CONVERSATION, max_tokens=500))
        cancelled = asyncio.run(give_up(Model(patient)))
    for ended in (caught.value, cancelled):
        assert ended.__cause__ is ended.__context__ is None
        assert KEY not in "".join(traceback.format_exception(ended))


@pytest.mark.parametrize("key", ["sk a", "sk-ä", "sk\n", "sk-\x00"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """No HTTP library gets to complain about it, and to repeat it."""
    with pytest.raises(ValueError, match="no key has") as caught:
        DeepSeekSettings(api_key=key)  # type: ignore[arg-type]  # pydantic makes a secret of it
    assert key not in str(caught.value)


def test_the_key_has_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours goes before DeepSeek's own, unless it is empty."""
    monkeypatch.setenv("STRATBOX_DEEPSEEK_API_KEY", "")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-theirs")
    assert DeepSeekSettings().api_key.get_secret_value() == "sk-theirs"
    monkeypatch.setenv("STRATBOX_DEEPSEEK_API_KEY", "sk-ours")
    assert DeepSeekSettings().api_key.get_secret_value() == "sk-ours"


@pytest.mark.parametrize("prompt", ["", "  \n", "x" * 40_000])
def test_a_prompt_that_is_none(prompt: str) -> None:
    """Nothing is paid for it."""
    with scripted_model(GOOD) as model:
        with pytest.raises(InvalidRequest, match="prompt"):
            asyncio.run(DeepSeekAgent(settings(model.url)).generate_strategy(prompt=prompt))
        assert model.requests == []


def test_a_reply_without_code() -> None:
    """Nothing to give back is an error, for who asked for a strategy only."""
    with scripted_model(Reply("I would rather not.")) as model, pytest.raises(NoCode, match="no block of Python"):
        asyncio.run(DeepSeekAgent(settings(model.url)).generate_strategy(prompt="RSI"))


def test_half_a_strategy_is_not_given_away() -> None:
    """Where the model ran out of tokens within it."""
    half = Reply("```python\nprint(", finish_reason="length")
    with scripted_model(half) as model, pytest.raises(NoCode, match="broke off within"):
        asyncio.run(DeepSeekAgent(settings(model.url)).generate_strategy(prompt="RSI"))


@pytest.mark.parametrize("fields", [{"user_id": "a\nb"}, {"data": float("nan")}])
def test_a_wrong_request_is_not_paid_for(fields: dict[str, Any]) -> None:
    """Though nothing is submitted yet."""
    with scripted_model(GOOD) as model:
        with pytest.raises(InvalidRequest):
            asyncio.run(DeepSeekAgent(settings(model.url)).generate_strategy(prompt="RSI", **fields))
        assert model.requests == []


def test_the_operator_s_policy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What STRATBOX_POLICY_EXTRA_MODULES adds is in the contract."""
    monkeypatch.setenv("STRATBOX_POLICY_EXTRA_MODULES", '{"cmath": ["phase"]}')
    with scripted_model(GOOD) as model:
        asyncio.run(DeepSeekAgent(settings(model.url)).generate_strategy(prompt="RSI"))
        assert "  cmath: phase\n" in model.conversation()[0]["content"]
