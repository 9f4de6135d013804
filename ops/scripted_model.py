"""A server on loopback that speaks the chat-completions protocol and says what it was told to say, in that order.

For the tests and for `make agent-demo`: what asks it is the real client, over real HTTP.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reply", "ScriptedModel", "scripted_model"]

#: Of a reply that is streamed, each piece has so many characters, or a hundredth of all.
PIECE_CHARS = 40
CHARS_PER_TOKEN = 4
BLANK_LINE_SECONDS = 0.1
ENDLESS_BYTES = 2**30


@dataclass(frozen=True)
class Reply:
    """What the server says to one request."""

    text: str = ""
    #: Thoughts that come before, in a field of their own.
    reasoning: str = ""
    #: None breaks off: the connection is closed before the reply says that it is at its end.
    finish_reason: str | None = "stop"
    #: Whether the tokens are counted.
    usage: bool = True
    #: So long only blank lines are sent, as endpoints do under load, seconds.
    delay_seconds: float = 0.0
    status: int = 200
    #: In the status line; None for HTTP's own.
    reason: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: In place of a completion.
    body: bytes | None = None
    #: The body again and again, until who asked hangs up, or a gigabyte has gone out.
    endless: bool = False
    content_type: str = "application/json"
    #: A pause after each piece, seconds, and whether each names the end.
    delay_each_seconds: float = 0.0
    ends_each: bool = False
    #: So long the line is kept busy after the body, seconds.
    stays_seconds: float = 0.0


@dataclass
class ScriptedModel:
    """The server, while it runs."""

    url: str
    #: In the order in which they are said; the last one again and again.
    script: list[Reply]
    #: Headers, by lower-case name, and body of each request there was.
    requests: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def conversation(self, request: int = -1) -> list[dict[str, str]]:
        """Return the messages of a request, by default of the last."""
        messages: list[dict[str, str]] = self.requests[request][1]["messages"]
        return messages


@contextlib.contextmanager
def scripted_model(*script: Reply) -> Iterator[ScriptedModel]:
    """Serve a script on a free port."""
    model = ScriptedModel("", list(script))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Answer by the script."""
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = model.script[min(len(model.requests), len(model.script) - 1)]
            model.requests.append(({name.lower(): value for name, value in self.headers.items()}, asked))
            with contextlib.suppress(ConnectionError):  # who asked has given up
                _say(self, reply, asked)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _say(handler: BaseHTTPRequestHandler, reply: Reply, asked: dict[str, Any]) -> None:
    if reply.body is not None or reply.status != 200:  # noqa: PLR2004  # of HTTP
        _send(handler, reply, reply.body or b"")
    elif asked.get("stream"):
        _stream(handler, reply, asked)
    else:
        _send(handler, reply, json.dumps(_whole(reply, asked)).encode())


def _send(handler: BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
    handler.send_response(reply.status, reply.reason)
    for name, value in {"Content-Type": reply.content_type, "Connection": "close", **reply.headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    _wait(handler, reply.delay_seconds, b"\n")
    for _ in range(ENDLESS_BYTES // len(body) if reply.endless else 1):
        handler.wfile.write(body)
    _wait(handler, reply.stays_seconds, b": keep-alive\n\n")
    handler.close_connection = True


def _stream(handler: BaseHTTPRequestHandler, reply: Reply, asked: dict[str, Any]) -> None:
    handler.send_response(reply.status)
    for name, value in {"Content-Type": "text/event-stream", "Connection": "close", **reply.headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    _wait(handler, reply.delay_seconds, b": keep-alive\n\n")
    for name, text in (("reasoning_content", reply.reasoning), ("content", reply.text)):
        size = max(PIECE_CHARS, len(text) // 100)
        for start in range(0, len(text), size):
            end = reply.finish_reason if reply.ends_each else None
            _event(handler, _chunk(asked, {"delta": {name: text[start : start + size]}, "finish_reason": end}))
            time.sleep(reply.delay_each_seconds)
    if reply.finish_reason is not None:
        _event(handler, _chunk(asked, {"delta": {}, "finish_reason": reply.finish_reason}))
        if reply.usage:
            _event(handler, _chunk(asked) | {"usage": _usage(reply, asked)})
        handler.wfile.write(b"data: [DONE]\n\n")
    handler.close_connection = True


def _event(handler: BaseHTTPRequestHandler, content: dict[str, Any]) -> None:
    handler.wfile.write(f"data: {json.dumps(content)}\n\n".encode())


def _wait(handler: BaseHTTPRequestHandler, seconds: float, line: bytes) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        handler.wfile.write(line)
        time.sleep(BLANK_LINE_SECONDS)


def _chunk(asked: dict[str, Any], *choices: dict[str, Any]) -> dict[str, Any]:
    listed = [{"index": index, **choice} for index, choice in enumerate(choices)]
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], "choices": listed}


def _whole(reply: Reply, asked: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text, "reasoning_content": reply.reasoning}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    whole = _chunk(asked, choice) | {"object": "chat.completion"}
    return whole | {"usage": _usage(reply, asked)} if reply.usage else whole


def _usage(reply: Reply, asked: dict[str, Any]) -> dict[str, int]:
    prompt = sum(len(message["content"]) for message in asked["messages"]) // CHARS_PER_TOKEN
    completion = len(reply.reasoning + reply.text) // CHARS_PER_TOKEN
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
