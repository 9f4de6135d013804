"""The `stratbox` command.

Exit codes: 0 succeeded; 1 ended otherwise; 2 refused by policy or usage; 3 the infrastructure failed; 4 no room now.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from tasks.client import StrategyClient
from tasks.errors import (
    Backpressure,
    BrokerUnavailable,
    ContentFiltered,
    ExecutionLost,
    InvalidRequest,
    KeyRefused,
    ModelError,
    PromptRefused,
    RateLimited,
    StratboxError,
    UnknownDataset,
    UnknownSubmission,
)
from tasks.excerpt import printable
from tasks.models import ExecutionRequest, ExecutionResult, ExecutionStatus
from tasks.settings import LimitSettings, Settings
from tasks.submission import Submission, SubmissionState
from tasks.validator import ASTValidator
from worker import display, doctor, files, recovery
from worker.errors import SandboxError
from worker.executor import CodeExecutor
from worker.generate import generate
from worker.options import AsJson, Dataset, Seed, Timeout, User
from worker.report.command import report
from worker.settings import WorkerSettings
from worker.sweep.command import sweep

SUCCEEDED, ENDED_OTHERWISE, REFUSED, INFRASTRUCTURE, NO_ROOM = range(5)
POLL_SECONDS = 0.5
#: Every setting of Flower's is a variable FLOWER_*; these hold where the operator says nothing else.
FLOWER_DEFAULTS = {
    "FLOWER_ADDRESS": "127.0.0.1",
    "FLOWER_MAX_TASKS": "10000",
    # Where FLOWER_PERSISTENT is set, what it knows is written this often, ms: a kill -9 loses no more.
    "FLOWER_STATE_SAVE_INTERVAL": "30000",
    "FLOWER_PURGE_OFFLINE_WORKERS": "300",
    # Summary and outcome first; without `received` the newest would not come on top.
    "FLOWER_TASKS_COLUMNS": "uuid,state,kwargs,result,runtime,worker,received,name",
}

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Run untrusted trading strategies, each in a container of its own. "
    "Exit codes: 0 succeeded, 1 ended otherwise, 2 refused by policy or usage, 3 infrastructure, 4 no room now.",
)


class LogLevel(StrEnum):
    """How much a worker says."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


File = Annotated[Path, typer.Argument(help="The strategy, a Python file.")]
Data = Annotated[Path | None, typer.Option(help="JSON file the strategy finds as /workspace/data.json.")]
Params = Annotated[str | None, typer.Option(help="JSON object: the data get it as their key `params`.", metavar="JSON")]
SubmissionId = Annotated[str, typer.Argument(help="The id that `submit` printed.")]


@app.command()
def run(
    file: File,
    data: Data = None,
    params: Params = None,
    timeout: Timeout = None,
    seed: Seed = None,
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="Run it this often, each in a fresh sandbox.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run one strategy on this machine, without Redis."""
    request = _request(file, data, params, timeout=timeout, seed=seed)
    worst = ExecutionStatus.SUCCEEDED
    # A single run needs no second sandbox warming behind it.
    with CodeExecutor(warm=1 if repeat > 1 else 0) as executor:
        for number in range(repeat):
            result = executor.execute(request)
            _show(result, file, as_json=as_json)
            worst = worst if result.success else result.status
            if number + 1 < repeat:
                executor.wait_until_warm()
    raise typer.Exit(_exit_code(worst))


@app.command()
def submit(
    file: File,
    data: Data = None,
    dataset: Dataset = None,
    params: Params = None,
    timeout: Timeout = None,
    seed: Seed = None,
    user: User = "",
    priority: Annotated[int, typer.Option(help="0 (first) to 9 (last).")] = 0,
    key: Annotated[str | None, typer.Option(help="Of your choice: the same key, the same submission.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it and print its result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send one strategy through Redis; prints its id."""
    request = _request(file, data, params, dataset=dataset, timeout=timeout, seed=seed, user_id=user)
    with StrategyClient() as client:
        submission = client.submit_request(request, priority=priority, key=key)
        if wait:
            _finish(_follow(submission), file, as_json=as_json)
        display.write(submission.id)


@app.command()
def result(
    submission_id: SubmissionId,
    timeout: Annotated[float, typer.Option(min=0, help="Wait for it this long, seconds.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the result of a submission."""
    with StrategyClient() as client:
        _finish(client.submission(submission_id).result(timeout), Path("strategy.py"), as_json=as_json)


@app.command()
def status(submission_id: SubmissionId) -> None:
    """Say where a submission stands."""
    with StrategyClient() as client:
        display.out.print(str(client.submission(submission_id).status()))


@app.command()
def cancel(submission_id: SubmissionId) -> None:
    """End a submission, queued or running."""
    with StrategyClient() as client:
        submission = client.submission(submission_id)
        if not submission.cancel():
            display.err.print(f"it had already ended: {submission.status()}")
            raise typer.Exit(ENDED_OTHERWISE)
        display.out.print("cancelled")


@app.command()
def validate(file: File, as_json: AsJson = False) -> None:
    """Check a strategy against the code policy, without running it."""
    report = ASTValidator(Settings().policy()).validate(files.read(file))
    if as_json:
        outcome = ExecutionResult(
            status=ExecutionStatus.SUCCEEDED if report else ExecutionStatus.REJECTED, violations=report.violations
        )
        display.write(json.dumps(outcome.model_dump(mode="json")["violations"]))
    else:
        display.show_violations(str(file), report.violations)
        display.err.print("[green]clean[/]" if report else f"[magenta]{len(report.violations)} violations[/]")
    raise typer.Exit(SUCCEEDED if report else REFUSED)


@app.command()
def worker(
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Pool processes; each runs one at a time.")] = 2,
    loglevel: Annotated[LogLevel, typer.Option(help="How much it says.")] = LogLevel.INFO,
) -> NoReturn:
    """Start a worker: it takes strategies from Redis until it gets SIGTERM."""
    # Asked here, a wrong setting is one line; asked in the pool processes, it would cost every task.
    Settings()
    WorkerSettings()
    # Prefork is the only pool in which time limits and termination work.
    flags = ["--pool", "prefork", "--concurrency", str(concurrency), "--loglevel", loglevel]
    # What workers would tell each other, we keep in Redis; it costs a second at each start and each reconnect.
    flags += ["--without-gossip", "--without-mingle"]
    # Celery's banner is for people; where nobody watches, every line is a record.
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    os.execv(sys.executable, [sys.executable, "-m", "celery", *quiet, "-A", "worker.app", "worker", *flags])


@app.command()
def flower() -> NoReturn:
    """Start Flower, the queue's web page, with the settings in FLOWER_*: FLOWER_BASIC_AUTH=name:password at least."""
    Settings()
    # Without, everybody could read the pages.
    if not (os.environ.get("FLOWER_BASIC_AUTH") or os.environ.get("FLOWER_AUTH")):
        msg = "Flower needs a password: set FLOWER_BASIC_AUTH=name:password"
        raise InvalidRequest(msg)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower"]
    os.execve(sys.executable, command, FLOWER_DEFAULTS | os.environ)


@app.command()
def mcp(user: User) -> None:
    """Serve an agent's host by the Model Context Protocol, on stdin and stdout; needs stratbox[mcp]."""
    if importlib.util.find_spec("mcp") is None:
        msg = "mcp is not installed: pip install 'stratbox[mcp]'"
        raise InvalidRequest(msg)
    from tasks.mcp_stdio import serve  # noqa: PLC0415  # only who serves hosts needs it

    serve(Settings(), user, LimitSettings().limits)


@app.command(name="doctor")
def examine() -> None:
    """Check engine, image, every limit (by a real run), Redis and workers."""
    raise typer.Exit(SUCCEEDED if doctor.examine(display.out) else ENDED_OTHERWISE)


dataset_app = typer.Typer(rich_markup_mode=None, help="Data that many submissions share.")


@dataset_app.command()
def put(file: Annotated[Path, typer.Argument(help="JSON file.")]) -> None:
    """Put data into Redis, once, for `submit --dataset`; prints the reference."""
    with StrategyClient() as client:
        ref = client.datasets.put(files.read_json(file))
    display.write(str(ref))


app.command()(report)
app.command()(generate)
app.command()(sweep)
app.add_typer(dataset_app, name="dataset")
app.add_typer(recovery.dead, name="dead")
app.command()(recovery.reconcile)


def main() -> None:
    """Run the command line; every error ends in one line on stderr and a documented exit code."""
    os.environ["MPLBACKEND"] = "agg"  # only files are drawn, and a notebook's own may not be here
    if isinstance(sys.stdout, io.TextIOWrapper):  # and not closed
        sys.stdout.reconfigure(encoding="utf-8")  # what strategies are written in, and print
    try:
        sys.exit(app(standalone_mode=False) or SUCCEEDED)
    except TyperException as exc:
        _fail(f"{exc.format_message()} (see stratbox --help)", REFUSED)
    except ValidationError as exc:
        where = "_".join(map(str, exc.errors()[0]["loc"])).upper()
        # DEEPSEEK_API_KEY has no name of ours.
        where = where if where.startswith("STRATBOX_") or where in os.environ else f"STRATBOX_{where}"
        reason = exc.errors()[0]["msg"].removeprefix("Value error, ")
        # What concerns two settings names them itself.
        _fail(f"{where}: {reason}" if exc.errors()[0]["loc"] else reason, REFUSED)
    except (InvalidRequest, UnknownSubmission, UnknownDataset, KeyRefused, PromptRefused, ContentFiltered) as exc:
        _fail(str(exc), REFUSED)
    except (Backpressure, RateLimited) as exc:
        _fail(str(exc), NO_ROOM)
    except (BrokerUnavailable, ExecutionLost, SandboxError, ModelError) as exc:
        _fail(str(exc), INFRASTRUCTURE)
    except StratboxError as exc:
        _fail(str(exc), ENDED_OTHERWISE)
    except OSError as exc:
        # What is read or written by name has its own error. The interpreter must not try the rest on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(exc, BrokenPipeError):  # the reader has left (`| head`): so do we
            sys.exit(ENDED_OTHERWISE)
        _fail(f"{exc.filename or 'standard output'}: {(exc.strerror or str(exc)).lower()}", ENDED_OTHERWISE)


def _fail(message: str, code: int) -> NoReturn:
    display.err.print(f"stratbox: {printable(message)}", markup=False)
    sys.exit(code)


def _request(
    file: Path, data: Path | None, params: str | None, dataset: str | None = None, **fields: object
) -> ExecutionRequest:
    files.check_source(data, dataset)
    content = {} if data is None else {"data": files.read_json(data)}
    if params is not None:
        content["params"] = files.parse_object(params, "--params")
    return ExecutionRequest.parse({"code": files.read(file), "dataset": dataset, **content, **fields})


def _follow(submission: Submission) -> ExecutionResult:
    """Wait for a result and say where it stands meanwhile; Ctrl-C leaves it running."""
    started = time.monotonic()
    with display.err.status("submitted") as spinner:
        while isinstance(where := submission.status(), SubmissionState) and where is not SubmissionState.LOST:
            spinner.update(f"{submission.id} {where}, {time.monotonic() - started:.0f} s")
            if submission.ended_within(POLL_SECONDS):
                break
    return submission.result(timeout=0)


def _finish(outcome: ExecutionResult, file: Path, *, as_json: bool) -> NoReturn:
    _show(outcome, file, as_json=as_json)
    raise typer.Exit(_exit_code(outcome.status))


def _show(outcome: ExecutionResult, file: Path, *, as_json: bool) -> None:
    if as_json:
        display.write(outcome.model_dump_json())
        return
    display.show_violations(str(file), outcome.violations)
    display.show_result(outcome)


def _exit_code(status: ExecutionStatus) -> int:
    return {ExecutionStatus.SUCCEEDED: SUCCEEDED, ExecutionStatus.REJECTED: REFUSED}.get(status, ENDED_OTHERWISE)


if __name__ == "__main__":
    main()
