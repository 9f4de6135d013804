"""Stratbox as a tool of a language model: how it is described to one, what it may ask for, and what it gets back.

For every model that calls functions; `tasks.mcp_server` has the same for hosts that speak MCP. What a model sends is
trusted no more than what a strategy prints.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import InvalidRequest, ResultTimeout, StratboxError
from tasks.excerpt import excerpt, printable
from tasks.models import ErrorDetail, ExecutionRequest, ExecutionResult, ExecutionStatus, Violation
from tasks.settings import LimitSettings, Settings
from tasks.submission import submitted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tasks.client import StrategyClient
    from tasks.models import ExecutionLimits
    from tasks.policy import Policy

__all__ = [
    "PATIENCE_SECONDS",
    "Answer",
    "answer",
    "call_run_strategy",
    "contract",
    "error_line",
    "excerpts",
    "request_of",
    "run",
    "run_strategy_tool",
    "schema",
]

#: A minute for the strategy, and another for those before it.
PATIENCE_SECONDS = 120.0

#: Of each text, so many characters go to a model. A traceback and the end of an output are what it repairs by.
OUTPUT_CHARACTERS = 6000
STDERR_CHARACTERS = 2000
TRACEBACK_CHARACTERS = 3000
MESSAGE_CHARACTERS = 1000
WORD_CHARACTERS = 100
MAX_VIOLATIONS = 20
#: An error is one line.
LINE_CHARACTERS = 500
#: No number of an honest result comes near it.
LARGEST = 10**15

_Number = TypeVar("_Number", int, float)


class Cost(BaseModel):
    """What an execution took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


class Answer(BaseModel):
    """What a model gets back. All text is of untrusted origin: printable, and only so much of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: ExecutionStatus
    output: str = Field(description="Beginning and end of what the strategy printed.")
    stderr: str = Field(description="Likewise, of its standard error.")
    truncated: bool = Field(description="Whether it printed more than the limit, so that the end was dropped.")
    error: ErrorDetail | None = Field(description="Why it did not succeed; null when it did.")
    violations: tuple[Violation, ...] = Field(description="What to change in code that was rejected; the first 20.")
    metrics: Cost

    @classmethod
    def of(cls, result: ExecutionResult) -> Self:
        """Return what a model gets back of a result."""
        metrics = result.metrics
        return cls(
            status=result.status,
            output=excerpt(result.output, OUTPUT_CHARACTERS),
            stderr=excerpt(result.stderr, STDERR_CHARACTERS),
            truncated=result.truncated,
            error=result.error and _shortened(result.error),
            violations=excerpts(result.violations),
            metrics=Cost(
                wall_seconds=_bounded(metrics.wall_seconds),
                cpu_seconds=_bounded(metrics.cpu_seconds),
                peak_memory_bytes=_bounded(metrics.peak_memory_bytes),
            ),
        )


def run_strategy_tool(policy: Policy | None = None, limits: ExecutionLimits | None = None) -> dict[str, Any]:
    """Return the tool `run_strategy`, as chat completions take it among their `tools`.

    Args:
        policy: the code policy in force; by default what the `STRATBOX_*` variables say.
        limits: of the workers; likewise.
    """
    function = {
        "name": "run_strategy",
        "description": "Run a trading strategy, a Python program, in a sandbox of its own; return what it printed.\n"
        + contract(policy or Settings().policy(), limits or LimitSettings().limits),
        "parameters": schema(ExecutionRequest, without={"user_id"}),
    }
    return {"type": "function", "function": function}


def contract(policy: Policy, limits: ExecutionLimits) -> str:
    """Return what who writes a strategy has to know."""
    return f"""\
The program reads its data with json.load(open('/workspace/data.json')) and prints one JSON object as its last line. \
There is no network and no other file, and nothing can be written.
It may import: {", ".join(sorted(policy.modules))}.
Limits: {limits.timeout_seconds:g} s, {limits.memory_bytes // 2**20} MiB of memory, {limits.cpus:g} of a core, \
{limits.pids} processes and threads, {limits.output_bytes // 2**10} KiB of output.
A program that is 'rejected' was not run: each violation has a hint how to write it instead. One that 'failed' has a \
traceback."""


def schema(model: type[BaseModel], without: Collection[str] = ()) -> dict[str, Any]:
    """Return the JSON schema of a model, with no titles and no references.

    Args:
        model: one that does not contain itself.
        without: fields to leave out.
    """
    full = model.model_json_schema()
    definitions = full.pop("$defs", {})
    full["properties"] = {name: field for name, field in full["properties"].items() if name not in without}
    # What it says of the model is for who reads Python.
    plain: dict[str, Any] = _plain({key: value for key, value in full.items() if key != "description"}, definitions)
    return plain


def _plain(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    referred = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    merged = {key: value for key, value in (referred | node).items() if key != "$ref"}
    # A property of that name would be no string.
    return {k: _plain(v, definitions) for k, v in merged.items() if not (k == "title" and isinstance(v, str))}


def request_of(arguments: Mapping[str, Any], user_id: str) -> ExecutionRequest:
    """Return the request in what a model has sent as arguments of `run_strategy`.

    Args:
        arguments: of any content; null stands for an argument that is not given.
        user_id: whose strategy it is, which is not the model's to say.

    Raises:
        InvalidRequest: one line that names every wrong argument and why.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if "user_id" in given:
        msg = "user_id: it is set already, leave it out"
        raise InvalidRequest(msg)
    return ExecutionRequest.parse({**given, "user_id": user_id})


async def run(client: StrategyClient, request: ExecutionRequest, patience: float = PATIENCE_SECONDS) -> ExecutionResult:
    """Submit a request and wait for its result; when nobody waits any more, it is cancelled.

    Raises:
        ResultTimeout: it had not ended after `patience` seconds.
        StratboxError: as `StrategyClient.submit` and `Submission.result`. Only where Redis is away it may run on.
    """
    try:
        async with submitted(client, request) as submission:
            return await submission.result_async(patience)
    except ResultTimeout:
        msg = f"it had not ended after {patience:g} s and was cancelled: try again later"
        raise ResultTimeout(msg) from None


def answer(result: ExecutionResult) -> dict[str, Any]:
    """Return what a model gets back of a result, as JSON has it; see `Answer`."""
    return Answer.of(result).model_dump(mode="json")


def excerpts(violations: Sequence[Violation]) -> tuple[Violation, ...]:
    """Return the first violations, each as short as a model needs it."""
    return tuple(
        replace(
            one,
            rule=excerpt(one.rule, WORD_CHARACTERS),
            line=_bounded(one.line),
            column=_bounded(one.column),
            text=excerpt(one.text, WORD_CHARACTERS),
            message=excerpt(one.message, LINE_CHARACTERS),
            hint=excerpt(one.hint, LINE_CHARACTERS),
        )
        for one in violations[:MAX_VIOLATIONS]
    )


def _shortened(error: ErrorDetail) -> ErrorDetail:
    return ErrorDetail(
        type=excerpt(error.type, WORD_CHARACTERS),
        message=excerpt(error.message, MESSAGE_CHARACTERS),
        line=None if error.line is None else _bounded(error.line),
        traceback=excerpt(error.traceback, TRACEBACK_CHARACTERS),
    )


def _bounded(number: _Number) -> _Number:
    # In this order, NaN is 0.
    return min(max(type(number)(0), number), type(number)(LARGEST))


def error_line(error: StratboxError) -> str:
    """Return what a model is told of an error: one line of printable text."""
    return printable(" ".join(str(error).split())[:LINE_CHARACTERS])


async def call_run_strategy(
    client: StrategyClient, arguments: str, *, user_id: str, patience: float = PATIENCE_SECONDS
) -> str:
    """Run what a model has asked for with `run_strategy`, and return what to tell it.

    That is an answer as JSON text, or one line that begins with `error:`. Nothing of ours is raised: wrong arguments
    are for the model to repair, and of a Redis that is away it should know. With the client of openai::

        for call in reply.choices[0].message.tool_calls or ():
            told = await call_run_strategy(client, call.function.arguments, user_id="alice")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})

    Args:
        client: a producer.
        arguments: JSON text, as the model has sent it.
        user_id: whose strategy it is.
        patience: how long to wait for the result, seconds; then the strategy is cancelled.
    """
    try:
        request = await asyncio.to_thread(lambda: request_of(_object(arguments), user_id))
        return json.dumps(answer(await run(client, request, patience)), ensure_ascii=False)
    except StratboxError as exc:
        return f"error: {error_line(exc)}"


def _object(arguments: str) -> dict[str, Any]:
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError, TypeError) as exc:  # some endpoints send null
        msg = f"the arguments are not JSON: {exc}"
        raise InvalidRequest(msg) from None
    if not isinstance(parsed, dict):
        msg = 'the arguments must be an object, such as {"code": "…"}'
        raise InvalidRequest(msg)
    return parsed
