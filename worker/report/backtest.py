"""What a report is made of: the result of a run, the backtest that its strategy printed, and the bars it was given.

A strategy prints what it likes. What is read here is bounded and of the right kind; the convention is written down in
examples/README.md. Other keys are left alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tasks.errors import InvalidRequest, OutputNotJSON
from tasks.models import ExecutionResult

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["Backtest", "Bars", "Side", "Signal", "Trade", "backtest_of", "bars_of", "result_of"]

#: Fifty years of hours; a megabyte of output has room for no more.
MAX_BARS = 200_000
MAX_SIGNALS = 50_000
MAX_NAME_CHARS, MAX_HEADLINE_CHARS, MAX_DATE_CHARS = 200, 500, 40
#: Larger ones are a mistake, and a picture of them would overflow.
MAX_NUMBER = 1e100
#: A bar's number, or a time in microseconds.
MAX_INTEGER_DATE = 10**17
#: Where pydantic would speak of Python's types, of which whoever wrote the file knows nothing.
REASONS = {
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "too_long": "more than {max_length:,} of them",
    "tuple_type": "must be a list",
}


def _bounded(number: float) -> float:
    if abs(number) > MAX_NUMBER:
        msg = f"a number beyond {MAX_NUMBER:g}"
        raise ValueError(msg)
    return number


def _date(date: Any) -> str:
    """Return a date as text; where data have none, strategies print the number of the bar."""
    if type(date) is int and abs(date) <= MAX_INTEGER_DATE:  # no bool
        return str(date)
    if isinstance(date, str) and len(date) <= MAX_DATE_CHARS:
        return date
    msg = f"a date is text of {MAX_DATE_CHARS} characters at most, or an integer"
    raise ValueError(msg)


Number = Annotated[float, Field(strict=True, allow_inf_nan=False), AfterValidator(_bounded)]
Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
Date = Annotated[str, BeforeValidator(_date)]


class Side(StrEnum):
    """What a signal does, by how its action begins."""

    BUY = "buy"
    SELL = "sell"
    CLOSE = "close"
    #: An action that the convention does not know.
    OTHER = "other"


class _Printed(BaseModel):
    # Inputs stay out of error texts: they are whatever a strategy printed.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Signal(_Printed):
    """One fill."""

    date: Date
    action: Name
    price: Number

    @property
    def side(self) -> Side:
        """What it does: `BUY_SPREAD` buys."""
        action = self.action.lower()
        return next((side for side in Side if action.startswith(side)), Side.OTHER)


class Trade(_Printed):
    """One round trip, or one that is still open."""

    entry_date: Date
    entry_price: Number | None = None
    #: None while it is open.
    exit_date: Date | None = None
    exit_price: Number | None = None
    #: After costs.
    profit: Number | None = None


class Backtest(_Printed):
    """What a strategy printed, as far as a report uses it."""

    strategy: Name | None = None
    symbol: Name | None = None
    headline: Annotated[str, Field(max_length=MAX_HEADLINE_CHARS)] | None = None
    #: What the equity started from.
    capital: Annotated[Number, Field(gt=0)] | None = None
    #: One number a bar.
    equity: Annotated[tuple[Number, ...], Field(max_length=MAX_BARS, fail_fast=True)]
    signals: Annotated[tuple[Signal, ...], Field(max_length=MAX_SIGNALS, fail_fast=True)] | None = None
    trades: Annotated[tuple[Trade, ...], Field(max_length=MAX_SIGNALS, fail_fast=True)] | None = None
    #: What the strategy says of itself. It is compared with, never taken over.
    metrics: dict[str, Any] | None = None


class Bars(_Printed):
    """The columns of a data file that a report uses."""

    date: Annotated[tuple[Date, ...], Field(max_length=MAX_BARS, fail_fast=True)] | None = None
    #: None where there was no price.
    close: Annotated[tuple[Number | None, ...], Field(max_length=MAX_BARS, fail_fast=True)]


class _Document(_Printed):
    bars: Bars


def result_of(content: JsonValue, name: str) -> ExecutionResult:
    """Return the result in what `run --json`, `result --json` or `generate --json` printed.

    Args:
        content: of the file.
        name: its name, for what is wrong with it.

    Raises:
        InvalidRequest: it is none, or of a run that did not succeed.
    """
    if isinstance(content, dict) and {"attempts", "result"} <= content.keys():
        content = content["result"]
        if content is None:
            msg = f"{name}: the last attempt has no result; a report needs a strategy that succeeded"
            raise InvalidRequest(msg)
    try:
        # As from Redis: the worker may have been newer.
        result = ExecutionResult.model_validate(content, extra="ignore")
    except ValidationError as exc:
        msg = f"{name}: not a result ({_first(exc)}); give what `stratbox run … --json` printed"
        raise InvalidRequest(msg) from None
    if not result.success:
        msg = f"{name}: the strategy ended as {result.status}, {result.error}; a report needs one that succeeded"
        raise InvalidRequest(msg)
    return result


def backtest_of(result: ExecutionResult, name: str) -> Backtest:
    """Return what the strategy printed.

    Raises:
        InvalidRequest: it is no JSON, has no `equity`, or one of the keys a report uses is not as it should be.
    """
    try:
        printed = result.json()
    except OutputNotJSON as exc:
        cut = "; it was cut at the limit" if result.truncated else ""
        msg = f"{name}: {exc}{cut}"
        raise InvalidRequest(msg) from None
    if not isinstance(printed, dict) or not printed.get("equity"):
        msg = f"{name}: the strategy printed no `equity`, one number a bar: see the output convention of the examples"
        raise InvalidRequest(msg)
    try:
        return Backtest.model_validate(printed)
    except ValidationError as exc:
        msg = f"{name}: the strategy's output: {_first(exc)}"
        raise InvalidRequest(msg) from None


def bars_of(content: JsonValue, name: str, bars: int) -> Bars:
    """Return the bars of a data file.

    Args:
        content: of the file.
        name: its name, for what is wrong with it.
        bars: so many there must be.

    Raises:
        InvalidRequest: there are none, or not as many, or they are not as they should be.
    """
    try:
        found = _Document.model_validate(content).bars
    except ValidationError as exc:
        msg = f"{name}: {_first(exc)}"
        raise InvalidRequest(msg) from None
    for column, values in (("close", found.close), ("date", found.date)):
        if values is not None and len(values) != bars:
            msg = (
                f"{name}: {len(values):,} bars in `{column}`, but {bars:,} in the equity: give the strategy's own data"
            )
            raise InvalidRequest(msg)
    return found


def _first(error: ValidationError) -> str:
    """Return the first finding, as `field: reason`."""
    finding = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, finding["loc"]))
    known = REASONS.get(finding["type"], "").format_map(finding.get("ctx", {}))
    reason = known or finding["msg"].removeprefix("Value error, ")
    return f"{field}: {reason}" if field else reason
