"""The MCP server on stdin and stdout: a host's lines are all answered, signals end what runs. Needs `stratbox[mcp]`."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any, cast

import anyio
from mcp import types
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from tasks.client import StrategyClient
from tasks.errors import InvalidRequest
from tasks.mcp_server import StrategyTools, server
from tasks.models import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    from tasks.models import ExecutionLimits
    from tasks.settings import Settings

__all__ = ["serve"]

logger = logging.getLogger(__name__)

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: More have no number that a host gives its requests.
MAX_DIGITS = 18


def serve(settings: Settings, user_id: str, limits: ExecutionLimits) -> None:
    """Serve one host on stdin and stdout until it hangs up; Redis may come later.

    Args:
        settings: where Redis is, and the code policy.
        user_id: whose strategies they are.
        limits: of the workers.

    Raises:
        InvalidRequest: this is no name of a user, or there is no host.
    """
    if sys.stdin is None or sys.stdout is None:
        msg = "standard input or output is closed: a host that speaks MCP has to start this"
        raise InvalidRequest(msg)
    with StrategyClient(settings) as client:
        asyncio.run(_serve(StrategyTools(client, user_id, limits)))


async def _serve(tools: StrategyTools) -> None:
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []

    def end(number: signal.Signals) -> None:
        ending.append(loop.create_task(_end(tools, number)))

    for one in ENDING_SIGNALS:
        if signal.getsignal(one) is not signal.SIG_IGN:  # as `nohup` has it
            loop.add_signal_handler(one, end, one)
    serving = server(tools)
    answers: asyncio.Future[Any] = loop.create_future()
    stdin = anyio.wrap_file(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace"))
    try:
        async with stdio_server(stdin=cast("Any", _readable(stdin, answers))) as (incoming, outgoing):
            answers.set_result(outgoing)
            await serving.run(incoming, outgoing, serving.create_initialization_options())
    except* OSError:
        logger.info("the host reads no more")


async def _readable(lines: AsyncIterable[str], answers: asyncio.Future[Any]) -> AsyncIterator[str]:
    """Yield the lines that are messages. The SDK drops others in silence, and their host would wait for its timeout."""
    async for line in lines:
        if not line.strip():
            continue
        try:
            types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError as exc:
            logger.warning("a line that is no message was refused")  # without it: it may hold code
            kind = exc.errors(include_url=False, include_input=False)[0]["type"]
            code = types.PARSE_ERROR if kind == "json_invalid" else types.INVALID_REQUEST
            error = types.ErrorData(code=code, message=f"no message that can be read: {one_line(exc)}")
            number, asks = _asked(line)
            if asks:
                refusal = types.JSONRPCError(jsonrpc="2.0", id=number, error=error)
                await (await answers).send(SessionMessage(refusal))
        else:
            yield line


def _asked(line: str) -> tuple[int | str | None, bool]:
    """Return the id of a message that cannot be read, as far as Python's own parser finds one, and whether it asks."""
    try:
        message = json.loads(line, parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else None)
    except (ValueError, RecursionError):
        return None, True
    if not isinstance(message, dict):
        return None, True
    number = message.get("id")
    sound = type(number) is int or (isinstance(number, str) and number.isprintable())  # half an emoji is not
    # What answers us is answered by nothing: to its host that would be the answer to a question of its own.
    return number if sound else None, not {"result", "error"} & message.keys()


async def _end(tools: StrategyTools, number: signal.Signals) -> None:
    """Cancel what the host waits for, and end as this signal ends a process.

    The SDK reads stdin in a thread that nothing interrupts: Python's own way out would wait for the next line.
    """
    try:
        await tools.abandon()
    finally:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
