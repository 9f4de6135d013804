"""The contract between producers and workers: a request goes in, a result comes back.

Every model is frozen and refuses unknown fields, so that a message from a newer producer fails with a clear line
instead of being half understood.
"""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from tasks.document import DIGEST, DatasetRef, encode, put_params
from tasks.errors import InvalidRequest, OutputNotJSON
from tasks.validator import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_CODE_BYTES",
    "MAX_DATA_BYTES",
    "MAX_OUTPUT_BYTES",
    "MAX_TIMEOUT_SECONDS",
    "ErrorDetail",
    "ExecutionLimits",
    "ExecutionMetrics",
    "ExecutionRequest",
    "ExecutionResult",
    "ExecutionStatus",
    "Violation",
    "one_line",
]

KIB = 1024
MIB = 1024 * KIB

#: Ceilings of the contract. An operator may set lower ones, a request may ask for less still.
MAX_CODE_BYTES = 256 * KIB
MAX_DATA_BYTES = 16 * MIB
MAX_OUTPUT_BYTES = 1 * MIB
MAX_TIMEOUT_SECONDS = 60.0

#: A refusal is one line for a person or a log.
MAX_LINE_CHARS = 500
#: Of a number, in an error.
MAX_NUMBER_CHARS = 40


class ExecutionStatus(StrEnum):
    """How an execution ended. Only `succeeded` counts as success."""

    #: The strategy ran to its end and left with exit code 0.
    SUCCEEDED = "succeeded"
    #: Refused before any container was spent: by the code policy, or as a malformed request.
    REJECTED = "rejected"
    #: It raised, or left with another exit code.
    FAILED = "failed"
    #: It was still running at its deadline.
    TIMED_OUT = "timed_out"
    #: The kernel killed it, or a process of it, for memory.
    OUT_OF_MEMORY = "out_of_memory"
    #: A signal ended it (SIGSEGV, …), or the sandbox died beneath it.
    CRASHED = "crashed"
    #: Somebody cancelled it.
    CANCELLED = "cancelled"


class _Contract(BaseModel):
    # Inputs stay out of error texts: they are somebody's code and data.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ExecutionLimits(_Contract):
    """What one execution may consume; the defaults are the ceilings the project promises."""

    cpus: float = Field(default=0.5, ge=0.01, le=64, description="Share of one core, by the kernel's CPU quota.")
    # Below 96 MiB numpy and pandas do not even import.
    memory_bytes: int = Field(default=256 * MIB, ge=96 * MIB, description="Memory without swap, bytes.")
    pids: int = Field(default=32, ge=4, le=4096, description="Processes and threads, the runner included.")
    timeout_seconds: float = Field(
        default=MAX_TIMEOUT_SECONDS,
        gt=0,
        le=MAX_TIMEOUT_SECONDS,
        description="Wall clock from the start of the strategy, seconds.",
    )
    output_bytes: int = Field(
        default=MAX_OUTPUT_BYTES,
        ge=1 * KIB,
        le=MAX_OUTPUT_BYTES,
        description="Standard output and standard error together, bytes; the rest is dropped.",
    )


class ExecutionRequest(_Contract):
    """One strategy to run on one set of data.

    Raises:
        pydantic.ValidationError: a field is missing, unknown, of the wrong kind or over its ceiling.
    """

    code: str = Field(min_length=1, description="Python source, at most 256 KiB of UTF-8.")
    data: JsonValue = Field(
        default_factory=dict,
        description="Any JSON value; the strategy finds it in `/workspace/data.json`. At most 16 MiB as JSON text.",
    )
    dataset: str | None = Field(
        default=None,
        description="In place of `data`: the hash of a data set that was put before (`DatasetRef.digest`), 64 "
        "hexadecimal digits.",
    )
    params: dict[str, JsonValue] | None = Field(
        default=None,
        description="The data, which must be an object then, have them under their top-level key `params`.",
    )
    timeout: Annotated[float | None, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] = Field(
        default=None, description="Wall clock of the strategy, seconds; without it, the worker's ceiling."
    )
    user_id: str = Field(
        default="", max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$", description="Whose strategy this is (the tenant)."
    )
    seed: Annotated[int | None, Field(ge=0, lt=2**32)] = Field(
        default=None,
        description="Seeds `random` and numpy's global generator; without it, each execution has a fresh seed.",
    )

    _data_json: bytes = PrivateAttr(default=b"")
    _params_json: bytes | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _take_reference(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and isinstance(ref := fields.get("data"), DatasetRef):
            if fields.get("dataset") is not None:
                msg = "data: give either a reference as data or a dataset"
                raise ValueError(msg)
            return {name: value for name, value in fields.items() if name != "data"} | {"dataset": ref.digest}
        return fields

    @field_validator("dataset")
    @classmethod
    def _is_reference(cls, dataset: str | None) -> str | None:
        if dataset is not None and not DIGEST.fullmatch(dataset):
            msg = "not a reference, which is 64 hexadecimal digits"
            raise ValueError(msg)
        return dataset

    @model_validator(mode="after")
    def _encode_once(self) -> Self:
        if _utf8_length(self.code, "code") > MAX_CODE_BYTES:
            msg = f"code: {_utf8_length(self.code, 'code'):,} bytes, the limit is {MAX_CODE_BYTES:,}"
            raise ValueError(msg)
        if self.dataset and self.data != {}:
            msg = "data: give either data or a dataset"
            raise ValueError(msg)
        if self.params is not None:
            self._params_json = _within_limit(encode(self.params, "params"), "params")
        if not self.dataset:
            self._data_json = self._document(encode(self.data))
        return self

    def _document(self, text: bytes) -> bytes:
        if self._params_json is not None:
            text = put_params(text, self._params_json)
        return _within_limit(text, "data")

    @classmethod
    def build(cls, code: str, data: JsonValue | DatasetRef = None, **fields: Any) -> Self:
        """Build a request from a caller's arguments; no data stands for `{}`.

        Raises:
            InvalidRequest: as `parse`.
        """
        return cls.parse({"code": code, "data": {} if data is None else data, **fields})

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Build a request from untrusted fields.

        Raises:
            InvalidRequest: one line that names every wrong field and why.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as exc:
            raise InvalidRequest(one_line(exc)) from None

    def with_dataset(self, text: bytes) -> Self:
        """Return the request with the text of its data set, which only a worker has.

        Raises:
            InvalidRequest: the text is no place for `params`, or too long with them.
        """
        known = self.model_copy()
        try:
            known._data_json = self._document(text)  # noqa: SLF001  # its own
        except ValueError as exc:
            raise InvalidRequest(str(exc)) from None
        return known

    @property
    def data_json(self) -> bytes:
        """The data file, UTF-8 JSON text, encoded once; empty where it is a data set that is not here."""
        return self._data_json


class ErrorDetail(_Contract):
    """Why an execution did not succeed. `str()` gives one line."""

    #: Class of the exception the strategy raised, or the name of the status for what the sandbox saw.
    type: str
    message: str
    #: Line of the strategy, 1-based; None where no line is to blame.
    line: int | None = None
    #: The strategy's own frames, as Python prints them; empty where there are none.
    traceback: str = ""

    def __str__(self) -> str:
        """Return `Type: message (line N)`."""
        where = f" (line {self.line})" if self.line is not None else ""
        text = f"{self.type}: {self.message}{where}" if self.message else f"{self.type}{where}"
        return " ".join(text.splitlines())


class ExecutionMetrics(_Contract):
    """What an execution took. Seconds and bytes; 0 where a phase did not happen."""

    #: From the start of the strategy to its end, measured inside the sandbox.
    wall_seconds: float = 0.0
    #: User and system time of all the strategy's processes.
    cpu_seconds: float = 0.0
    #: Wait for a ready sandbox: close to 0 when a warm one was there.
    startup_seconds: float = 0.0
    #: From submission to the start of the task; None when the producer did not say when it submitted.
    queue_seconds: float | None = 0.0
    #: From the moment the executor took the request to its result.
    total_seconds: float = 0.0
    #: Peak resident set of the strategy's largest process (ru_maxrss), the preloaded libraries included.
    peak_memory_bytes: int = 0
    #: Whether the sandbox had been started before the request came.
    warm: bool = False


class ExecutionResult(_Contract):
    """What happened. Whatever the strategy did, it is data here, never an exception."""

    status: ExecutionStatus
    #: Standard output, undecodable bytes replaced; what was printed before a timeout or a kill included.
    output: str = ""
    #: Standard error, likewise.
    stderr: str = ""
    #: True when output was dropped because it went over the limit.
    truncated: bool = False
    #: None exactly when the execution succeeded.
    error: ErrorDetail | None = None
    #: Exit code of the strategy; None when it did not exit by itself.
    exit_code: int | None = None
    #: Number of the signal that ended it.
    signal: int | None = None
    violations: tuple[Violation, ...] = ()
    metrics: ExecutionMetrics = ExecutionMetrics()

    @property
    def success(self) -> bool:
        """Whether the strategy ran to its end and left with exit code 0."""
        return self.status is ExecutionStatus.SUCCEEDED

    def json(self) -> Any:  # type: ignore[override]  # the deprecated pydantic method gives way to the httpx idiom
        """Parse what the strategy printed: the whole output, or else its last line.

        Raises:
            OutputNotJSON: neither is strict JSON (NaN and Infinity are not).
        """
        text = self.output.strip()
        candidates = dict.fromkeys((text, text[text.rfind("\n") + 1 :]))
        problem: Exception | None = None
        for candidate in candidates:
            try:
                return json.loads(candidate, parse_constant=_refuse, parse_float=_finite)
            except (ValueError, RecursionError) as exc:
                problem = problem or exc
        msg = f"the output is not JSON ({problem}); print exactly one json.dumps(...) as the last line"
        raise OutputNotJSON(msg) from problem


def one_line(error: ValidationError) -> str:
    """Return pydantic's findings as `field: reason; field: reason`."""
    findings = []
    for finding in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in finding["loc"])
        reason = finding["msg"].removeprefix("Value error, ")
        findings.append(f"{field}: {reason}" if field else reason)
    # Names of fields come from outside, too: no line ends of theirs, and no more than a line's worth.
    text = "; ".join(findings).encode("unicode_escape").decode("ascii")
    return text if len(text) <= MAX_LINE_CHARS else f"{text[:MAX_LINE_CHARS]}…"


def _refuse(number: str) -> NoReturn:
    shown = number if len(number) <= MAX_NUMBER_CHARS else f"{number[:MAX_NUMBER_CHARS]}…"
    msg = f"{shown} is not a number JSON can hold"
    raise ValueError(msg)


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


def _within_limit(text: bytes, field: str) -> bytes:
    if len(text) > MAX_DATA_BYTES:
        msg = f"{field}: {len(text):,} bytes as JSON, the limit is {MAX_DATA_BYTES:,}"
        raise ValueError(msg)
    return text


def _utf8_length(text: str, field: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as exc:
        msg = f"{field}: not valid Unicode text at character {exc.start} (a lone surrogate)"
        raise ValueError(msg) from None
