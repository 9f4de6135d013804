"""`stratbox generate`: from a sentence to a tested strategy, shown as it comes about."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.document import DatasetRef
from tasks.errors import InvalidRequest, OutputNotJSON
from tasks.excerpt import excerpt, printable
from worker import display, files
from worker.interrupt import ending_signals_interrupt
from worker.options import Dataset, Seed, Timeout, User  # noqa: TC001  # typer needs them at run time

if TYPE_CHECKING:
    from pydantic import JsonValue

    from tasks.deepseek import Attempt, Outcome

__all__ = ["generate"]

SUCCEEDED, NO_SUCCESS = range(2)
#: Of what the model was told so many lines are shown; `--json` has all of it.
SHOWN_LINES = 8
MAX_HEADLINE_CHARS = 120

Prompt = Annotated[
    str, typer.Argument(help="What the strategy is to do, in your words; - reads it from standard input.")
]
Data = Annotated[Path | None, typer.Option(help="JSON file the strategy finds; the model is told its outline.")]
Attempts = Annotated[int, typer.Option(min=1, max=20, help="How many strategies are written at most.")]
Output = Annotated[Path | None, typer.Option("--out", help="Write the strategy to this file, not to stdout.")]
Params = Annotated[str | None, typer.Option(help="JSON object; the strategy finds it in its data, as `params`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print all attempts, with code, verdict and usage, as JSON.")]


def generate(
    prompt: Prompt,
    data: Data = None,
    dataset: Dataset = None,
    params: Params = None,
    attempts: Attempts = 3,
    out: Output = None,
    timeout: Timeout = None,
    seed: Seed = None,
    user: User = "",
    as_json: AsJson = False,
) -> None:
    """Have a model write a strategy, run it through Redis, and have it repaired until it succeeds."""
    files.check_source(data, dataset)
    content: JsonValue | DatasetRef = None
    if dataset is not None:
        content = DatasetRef(dataset, 0)
    elif data is not None:
        content = files.read_json(data)
    files.check_outputs(filter(None, (out,)), filter(None, (data,)))
    if out is None or as_json:
        display.check_output()
    options = {
        "params": None if params is None else files.parse_object(params, "--params"),
        "user_id": user,
        "attempts": attempts,
        "timeout": timeout,
        "seed": seed,
    }
    text = files.read_input() if prompt == "-" else prompt
    progress = _Progress()
    with ending_signals_interrupt():
        try:
            outcome = asyncio.run(_solve(text, content, progress, options))
        except BaseException as exc:
            if progress.attempts:  # they were paid for
                _give(progress.outcome(interrupted=isinstance(exc, KeyboardInterrupt)), out, as_json=as_json)
            raise
        given = _give(outcome, out, as_json=as_json)
    raise typer.Exit(SUCCEEDED if outcome.success and given else NO_SUCCESS)


async def _solve(prompt: str, data: JsonValue | DatasetRef, progress: _Progress, options: dict[str, Any]) -> Outcome:
    try:
        from tasks.deepseek import DeepSeekAgent  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as exc:
        msg = f"generate: {exc}"
        raise InvalidRequest(msg) from exc
    agent = DeepSeekAgent()
    progress.model = agent.settings.model
    with progress:
        return await agent.solve(prompt, data, observer=progress, **options)


class _Progress:
    """What is shown on stderr while it comes about: on a terminal a line that moves, and each attempt as it ends."""

    def __init__(self) -> None:
        #: Those that have ended.
        self.attempts: list[Attempt] = []
        self.model = ""
        self._status = display.err.status("asking the model")

    def outcome(self, *, interrupted: bool) -> Outcome:
        """Return what there is where an error or an interrupt leaves no outcome."""
        from tasks.deepseek import Ended, Outcome  # noqa: PLC0415  # an extra

        ended = Ended.CANCELLED if interrupted else Ended.ERROR
        return Outcome(model=self.model, ended=ended, attempts=tuple(self.attempts))

    def __enter__(self) -> None:
        self._status.start()

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def asking(self, number: int, characters: int) -> None:
        """Say how much the model has written."""
        self._status.update(f"attempt {number}: the model writes, {characters:,} characters so far")

    def running(self, attempt: Attempt) -> None:
        """Say which submission it is."""
        self._status.update(f"attempt {attempt.number}: with the workers as {attempt.submission_id}")

    def ended(self, attempt: Attempt) -> None:
        """Say what became of an attempt."""
        self.attempts.append(attempt)
        _show_attempt(attempt)


def _show_attempt(attempt: Attempt) -> None:
    """Say what became of an attempt, and what the model was told."""
    cost = f"{attempt.usage.total_tokens:,} tokens, the model took {attempt.model_seconds:.1f} s"
    text = " · ".join(filter(None, (f"attempt {attempt.number}", _gist(attempt), cost)))
    display.show_line(attempt.verdict, text)
    lines = attempt.feedback.splitlines()
    if len(lines) > SHOWN_LINES:
        lines = [*lines[: SHOWN_LINES - 1], f"… and {len(lines) - SHOWN_LINES + 1} more lines"]
    for line in lines:
        display.err.print(f"    > {printable(line)}", style="dim", markup=False)


def _gist(attempt: Attempt) -> str:
    """Return the line that matters: what went wrong, or the strategy's own headline."""
    if attempt.result is None:
        return ""
    if attempt.result.error:
        return str(attempt.result.error)
    if attempt.verdict != "succeeded":
        return ""
    # Parsed once before, in another place: here the stack may be too deep for what it nests.
    with contextlib.suppress(OutputNotJSON):
        return excerpt(str(attempt.result.json().get("headline", "")), MAX_HEADLINE_CHARS)
    return ""


def _give(outcome: Outcome, out: Path | None, *, as_json: bool) -> bool:
    """Give what was asked for, and say in a line how it ended; return whether it went where it was to go."""
    failure = None
    if out and outcome.code:
        try:
            files.write(out, outcome.code.encode())
        except InvalidRequest as exc:
            failure = str(exc)
            display.show_line("not written", failure)
    written = out is not None and failure is None
    if as_json:
        display.write(outcome.model_dump_json())
    elif outcome.code and not written:
        # As it is, unless it could steer a terminal.
        display.write((printable(outcome.code) if display.out.is_terminal else outcome.code).removesuffix("\n"))
    made = "1 attempt" if len(outcome.attempts) == 1 else f"{len(outcome.attempts)} attempts"
    where = f"; the last strategy is in {out}" if written and outcome.code else ""
    line = f"{made}, {outcome.usage.total_tokens:,} tokens of {outcome.model}: {_ENDS[outcome.ended]}{where}"
    display.err.print(printable(line), markup=False)
    return failure is None


_ENDS = {
    "solved": "solved",
    "attempts": "none succeeded; --attempts allows more",
    "tokens": "the tokens are used up; STRATBOX_DEEPSEEK_TOKEN_BUDGET allows more",
    "time": "out of time; STRATBOX_DEEPSEEK_DEADLINE_SECONDS allows more. Is a worker there (stratbox doctor)?",
    "cancelled": "cancelled",
    "error": "cut off by an error",
}
