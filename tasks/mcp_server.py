"""Stratbox for hosts that speak the Model Context Protocol, over any transport. Needs `stratbox[mcp]`.

The SDK's lower level: its upper one ignores arguments it does not know, answers wrong ones with several lines of
pydantic's, and reads a string as JSON where it can.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from importlib.metadata import version
from inspect import getdoc
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from mcp import types
from mcp.server import Server
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import InvalidRequest, ResultTimeout, StratboxError
from tasks.excerpt import excerpt
from tasks.models import ExecutionLimits, ExecutionRequest, ExecutionStatus, Violation, one_line
from tasks.submission import SubmissionState, submitted
from tasks.threads import LEAVING_SECONDS, in_own_thread
from tasks.tool import (
    WORD_CHARACTERS,
    Answer,
    contract,
    error_line,
    excerpts,
    request_of,
    run,
    run_strategy_tool,
    schema,
)
from tasks.validator import ASTValidator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tasks.client import StrategyClient

__all__ = ["StrategyTools", "server"]

logger = logging.getLogger(__name__)

INSTRUCTIONS = """\
Runs trading strategies, Python programs, each in a sandbox of its own. run_strategy runs one and waits for its result.
For several at once: submit each, then ask for each result. policy says which names a strategy may import."""
MAX_WAIT_SECONDS = 60.0

READS = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
RUNS = types.ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
ENDS = types.ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Nothing(_Form):
    """No arguments."""


class Source(_Form):
    """A program."""

    code: Annotated[str, ExecutionRequest.model_fields["code"]]


class Handle(_Form):
    """A submission."""

    # A random one, as only who submitted knows it. Those that a key makes may be computed by whoever can guess the key.
    submission_id: str = Field(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$",
        description="As `submit` has returned it.",
    )


class Wait(Handle):
    """A submission, and patience."""

    wait_seconds: float = Field(
        default=0, ge=0, le=MAX_WAIT_SECONDS, description="How long to wait for it to end, seconds."
    )


class Checked(_Form):
    """What the code policy says of a program."""

    clean: bool = Field(description="Whether it may be run.")
    violations: tuple[Violation, ...] = Field(description="What to change in it; the first 20.")


class Standing(_Form):
    """Where a submission stands."""

    status: SubmissionState | ExecutionStatus
    answer: Answer | None = Field(description="What came of it; null while it has not ended.")


class Cancelled(_Form):
    """What came of a cancel."""

    cancelled: bool = Field(description="False where it had ended already.")


class Rules(_Form):
    """What holds for every strategy."""

    contract: str = Field(description="What to know before one is written.")
    modules: dict[str, tuple[str, ...]] = Field(description="What may be imported: each module, and its names.")
    limits: ExecutionLimits


class _Tool(NamedTuple):
    call: Callable[[Any], Awaitable[BaseModel]]
    takes: type[BaseModel]
    gives: type[BaseModel]
    hints: types.ToolAnnotations


class StrategyTools:
    """The tools of one user.

    Args:
        client: a producer.
        user_id: whose strategies they are; no model has a say in it.
        limits: of the workers.

    Raises:
        InvalidRequest: this is no name of a user.
    """

    def __init__(self, client: StrategyClient, user_id: str, limits: ExecutionLimits) -> None:
        ExecutionRequest.build("#", user_id=user_id)
        self._client = client
        self._user_id = user_id
        self._limits = limits
        self._policy = client.settings.policy()
        self._validator = ASTValidator(self._policy)
        self._calls: set[asyncio.Task[types.CallToolResult]] = set()
        self._tools = {
            "validate": _Tool(self.validate, Source, Checked, READS),
            "run_strategy": _Tool(self.run_strategy, ExecutionRequest, Answer, RUNS),
            "submit": _Tool(self.submit, ExecutionRequest, Handle, RUNS),
            "result": _Tool(self.result, Wait, Standing, READS),
            "cancel": _Tool(self.cancel, Handle, Cancelled, ENDS),
            "policy": _Tool(self.policy, Nothing, Rules, READS),
        }

    async def validate(self, asked: Source) -> Checked:
        """Check a strategy against the code policy, without running it."""
        report = await asyncio.to_thread(self._validator.validate, asked.code)
        return Checked(clean=bool(report), violations=excerpts(report.violations))

    async def run_strategy(self, asked: ExecutionRequest) -> Answer:
        """Run it and wait; when the call is cancelled, so is the strategy."""
        return Answer.of(await run(self._client, asked))

    async def submit(self, asked: ExecutionRequest) -> Handle:
        """Send a strategy, as for run_strategy, without waiting for it."""
        async with submitted(self._client, asked) as submission:  # who has given up by then never learns its id
            return Handle(submission_id=submission.id)

    async def result(self, asked: Wait) -> Standing:
        """Return what came of a submission, or where it stands; results are kept for a time."""
        submission = self._client.submission(asked.submission_id)
        try:
            ended = await submission.result_async(asked.wait_seconds)
        except ResultTimeout:
            where = await in_own_thread(submission.status)
            if isinstance(where, SubmissionState):
                return Standing(status=where, answer=None)
            ended = await submission.result_async(0)  # it has ended in this moment
        return Standing(status=ended.status, answer=Answer.of(ended))

    async def cancel(self, asked: Handle) -> Cancelled:
        """End a submission, queued or running; what it has printed by then is kept."""
        return Cancelled(cancelled=await in_own_thread(self._client.cancel, asked.submission_id))

    async def policy(self, _: Nothing) -> Rules:
        """Return what a strategy may import, which limits it runs under, and how it gets data and answers."""
        modules = {module: tuple(sorted(names)) for module, names in sorted(self._policy.modules.items())}
        return Rules(contract=contract(self._policy, self._limits), modules=modules, limits=self._limits)

    async def abandon(self) -> None:
        """Cancel the calls that are being answered, and with them what they run; wait for some seconds."""
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=2 * LEAVING_SECONDS)

    def listed(self) -> list[types.Tool]:
        """Return the tools as hosts list them."""
        whole = run_strategy_tool(self._policy, self._limits)["function"]
        return [
            types.Tool(
                name=name,
                description=whole["description"] if name == whole["name"] else getdoc(tool.call),
                input_schema=whole["parameters"] if tool.takes is ExecutionRequest else schema(tool.takes),
                output_schema=schema(tool.gives),
                annotations=tool.hints,
            )
            for name, tool in self._tools.items()
        ]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Do what a model asks for; whatever is wrong is one line for it to read."""
        answering = asyncio.create_task(self._answer(name, arguments))
        self._calls.add(answering)
        answering.add_done_callback(self._calls.discard)
        return await answering

    async def _answer(self, name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        try:
            tool = self._tool(name)
            asked = await asyncio.to_thread(self._read, tool.takes, arguments)
            given = (await tool.call(asked)).model_dump(mode="json")
        except StratboxError as exc:
            return _failure(error_line(exc))
        except Exception as exc:  # noqa: BLE001  # it ends one call, not the server
            # Without its message, which may hold code.
            frames = "".join(traceback.format_tb(exc.__traceback__))
            logger.error("%s in the tool %s\n%s", type(exc).__name__, name, frames)
            return _failure("the server has failed, its log says where: this is not the strategy's fault")
        return types.CallToolResult(content=[_text(json.dumps(given, ensure_ascii=False))], structured_content=given)

    def _tool(self, name: str) -> _Tool:
        if name not in self._tools:
            msg = f"no tool {excerpt(name, WORD_CHARACTERS)!r}: there are {', '.join(self._tools)}"
            raise InvalidRequest(msg)
        return self._tools[name]

    def _read(self, form: type[BaseModel], arguments: Mapping[str, Any]) -> BaseModel:
        if form is ExecutionRequest:
            return request_of(arguments, self._user_id)
        try:
            return form.model_validate(arguments)
        except ValidationError as exc:
            raise InvalidRequest(one_line(exc)) from None


def _failure(line: str) -> types.CallToolResult:
    return types.CallToolResult(content=[_text(line)], is_error=True)


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def server(tools: StrategyTools) -> Server:
    """Return a server of these tools, for any transport."""

    async def list_tools(*_: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools.listed())

    async def call_tool(_: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await tools.call(params.name, params.arguments or {})

    return Server(
        "stratbox",
        version=version("stratbox"),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
