"""The commands for what did not end by itself: submissions the workers gave up on, and messages that were lost."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from kombu import Message
from kombu.transport.virtual.base import Base64

from tasks.client import StrategyClient
from tasks.connection import redis_errors
from tasks.errors import InvalidRequest, UnknownDataset, UnknownSubmission
from tasks.excerpt import printable
from tasks.ledger import Ledger
from tasks.models import ExecutionRequest
from worker import display

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.ledger import DeadSubmission

__all__ = ["dead", "reconcile"]

#: Between the two sightings that the ledger asks for; Redis' clock and ours may run at different speeds.
SIGHTINGS_SECONDS = 5.5

Answer = TypeVar("Answer")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
DeadId = Annotated[str, typer.Argument(help="An id that `stratbox dead` lists.", metavar="ID")]
DeadIds = Annotated[list[str] | None, typer.Argument(help="Ids that `stratbox dead` lists.", metavar="ID")]
Every = Annotated[bool, typer.Option("--all", help="Every one that `stratbox dead` lists.")]

dead = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List what the workers gave up on, for 7 days.",
)


@dead.callback()
def _list(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    if ctx.invoked_subcommand:
        if as_json:
            msg = f"--json: give it after `{ctx.invoked_subcommand}`"
            raise InvalidRequest(msg)
        return
    with StrategyClient() as client:
        found = _ask(client.ledger.dead)
    if as_json:
        for one in found:
            display.write(json.dumps(_as_dict(one)))
    elif found:
        display.show_dead(found)
    else:
        display.err.print("no dead submissions")


@dead.command()
def show(dead_id: DeadId, *, as_json: AsJson = False) -> None:
    """Show the code of one, and why it was given up."""
    with StrategyClient() as client:
        one = next((one for one in _ask(client.ledger.dead) if one.id == dead_id), None)
        message = one and _ask(client.ledger.message, dead_id)
    if not one or not message:
        raise _unknown(dead_id)
    request, describes = _request(message)
    if as_json:
        display.write(json.dumps(_as_dict(one) | (_content(request) if request else {})))
        return
    known = {"id": one.id, "user": one.tenant, "dead since": display.moment(one.since), "reason": one.reason}
    display.show_details(known | {"request": describes})
    if request:
        display.write(printable(request.code.removesuffix("\n")))


@dead.command()
def requeue(dead_ids: DeadIds = None, *, every: Every = False) -> None:
    """Put them into the queue again, with all their tries."""
    _for_each(dead_ids, Ledger.requeue, "requeued", every=every)


@dead.command()
def drop(dead_ids: DeadIds = None, *, every: Every = False) -> None:
    """Forget them; their results stay, as lost."""
    _for_each(dead_ids, Ledger.drop, "dropped", every=every)


def reconcile() -> None:
    """Bring back submissions whose message was lost.

    Workers do the same every 5 s: needed where none runs.
    """
    with StrategyClient() as client:
        brought_back = _ask(client.ledger.reconcile)
        display.err.print(f"looked once; a message may be on its way, so again in {SIGHTINGS_SECONDS:g} s")
        time.sleep(SIGHTINGS_SECONDS)
        brought_back += _ask(client.ledger.reconcile)
        count, oldest = _ask(client.ledger.waiting)
    for submission_id in brought_back:
        display.write(printable(submission_id))
    since = f", the oldest since {display.moment(oldest)}" if oldest else ""
    display.err.print(f"{len(brought_back)} brought back; {count:,} waiting{since}")


def _for_each(dead_ids: list[str] | None, act: Callable[[Ledger, str], bool], done: str, *, every: bool) -> None:
    if bool(dead_ids) == every:
        msg = "give the ids, or --all"
        raise InvalidRequest(msg)
    with StrategyClient() as client:
        chosen = list(dict.fromkeys(dead_ids or [one.id for one in _ask(client.ledger.dead)]))
        unknown, without_data = [], []
        for dead_id in chosen:
            try:
                known = _ask(act, client.ledger, dead_id)
            except UnknownDataset:
                without_data.append(dead_id)
                continue
            if known:
                display.write(f"{done} {printable(dead_id)}")
            else:
                unknown.append(dead_id)
    if not chosen:
        display.err.print("no dead submissions")
    refusals = [str(_unknown(*unknown))] if unknown else []
    if without_data:
        refusals.append(f"the data set of {', '.join(without_data)} is not in Redis any more: put it again first")
    if refusals:
        raise UnknownSubmission("; ".join(refusals))


def _ask(question: Callable[..., Answer], *arguments: Any) -> Answer:
    # Around the question alone: a reader who has left (`| head`) is an OSError, too.
    with redis_errors():
        return question(*arguments)


def _unknown(*dead_ids: str) -> UnknownSubmission:
    return UnknownSubmission(f"no dead submission {', '.join(map(repr, dead_ids))}: `stratbox dead` lists them")


def _as_dict(one: DeadSubmission) -> dict[str, Any]:
    since = display.moment(one.since)
    return {"id": one.id, "user_id": one.tenant, "since": since, "bytes": one.bytes, "reason": one.reason}


def _content(request: ExecutionRequest) -> dict[str, Any]:
    data = {"dataset": request.dataset} if request.dataset else {"data_bytes": len(request.data_json)}
    return {"code": request.code} | data


def _request(text: bytes) -> tuple[ExecutionRequest | None, str]:
    """Return what a stored message asks for, and a line about it; None where a worker would refuse it."""
    raw = json.loads(text)
    message = Message(
        Base64().decode(raw["body"]),
        content_type=raw["content-type"],
        content_encoding=raw["content-encoding"],
        headers=raw["headers"],
        accept={"application/json"},
    )
    _, fields, _ = message.decode()
    try:
        request = ExecutionRequest.parse(fields)
    except InvalidRequest as exc:
        return None, f"not valid: {exc}"
    data = f"data set {request.dataset}" if request.dataset else f"{len(request.data_json):,} bytes of data"
    return request, f"{len(request.code.encode()):,} bytes of code, {data}"
