"""The contract: what a request may hold, to the byte, and what a result says."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import tasks
from tasks.document import DatasetRef
from tasks.errors import InvalidRequest, OutputNotJSON
from tasks.models import (
    MAX_CODE_BYTES,
    MAX_DATA_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_TIMEOUT_SECONDS,
    ErrorDetail,
    ExecutionLimits,
    ExecutionMetrics,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Violation,
)
from tasks.policy import DEFAULT_POLICY

MIB = 2**20
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def parse(**fields: Any) -> ExecutionRequest:
    """Parse a request that is sound but for `fields`."""
    return ExecutionRequest.parse({"code": "x = 1\n", **fields})


def refusal(**fields: Any) -> str:
    """Return why such a request is refused."""
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return str(caught.value)


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def succeeded(output: str) -> ExecutionResult:
    """Return a result that printed `output`."""
    return ExecutionResult(status=ExecutionStatus.SUCCEEDED, output=output)


def test_exports_of_the_contract() -> None:
    """What producers may import; a removal is a breaking change."""
    assert tasks.__all__ == [
        "DatasetRef",
        "ErrorDetail",
        "ExecutionLimits",
        "ExecutionMetrics",
        "ExecutionRequest",
        "ExecutionResult",
        "ExecutionStatus",
        "Settings",
        "StrategyClient",
        "Submission",
        "SubmissionState",
        "SweepPoint",
        "Violation",
    ]
    assert all(hasattr(tasks, name) for name in tasks.__all__)


def test_ceilings_are_the_promised_ones() -> None:
    """The numbers of the design page, and the same for the policy."""
    assert MAX_CODE_BYTES == DEFAULT_POLICY.max_code_bytes == 256 * 1024
    assert (MAX_DATA_BYTES, MAX_OUTPUT_BYTES, MAX_TIMEOUT_SECONDS) == (16 * MIB, MIB, 60.0)


def test_default_limits_are_the_promised_ones() -> None:
    """Half a core, 256 MiB, 32 processes, a minute, 1 MiB of output."""
    assert ExecutionLimits().model_dump() == {
        "cpus": 0.5,
        "memory_bytes": 256 * MIB,
        "pids": 32,
        "timeout_seconds": 60.0,
        "output_bytes": MIB,
    }


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("cpus", 64, 64.1),
        ("cpus", 0.01, 0),
        ("cpus", 1, math.nan),
        ("memory_bytes", 96 * MIB, 96 * MIB - 1),
        ("pids", 4, 3),
        ("pids", 4096, 4097),
        ("timeout_seconds", 60, 60.001),
        ("timeout_seconds", 0.001, 0),
        ("output_bytes", 1024, 1023),
        ("output_bytes", MIB, MIB + 1),
    ],
)
def test_limit_bounds(field: str, good: float, bad: float) -> None:
    """The last good value and the first bad one."""
    assert getattr(ExecutionLimits.model_validate({field: good}), field) == good
    with pytest.raises(ValidationError, match=field):
        ExecutionLimits.model_validate({field: bad})


def test_least_request_is_code_alone() -> None:
    """Everything else has a default."""
    request = ExecutionRequest(code="x")
    defaults: dict[str, Any] = {
        "data": {},
        "dataset": None,
        "params": None,
        "timeout": None,
        "user_id": "",
        "seed": None,
    }
    assert request.model_dump() == {"code": "x", **defaults}
    assert request.data_json == b"{}"


def test_code_of_exactly_256_kib_is_accepted() -> None:
    """The limit itself is inside; characters of two bytes count as two."""
    assert len(parse(code="é" * (MAX_CODE_BYTES // 2)).code.encode()) == MAX_CODE_BYTES


@pytest.mark.parametrize("code", ["x" * (MAX_CODE_BYTES + 1), "é" * (MAX_CODE_BYTES // 2) + "x"])
def test_one_byte_of_code_more_is_refused(code: str) -> None:
    """Bytes count, not characters."""
    assert refusal(code=code) == "code: 262,145 bytes, the limit is 262,144"


def test_data_of_exactly_16_mib_is_accepted() -> None:
    """Counted as compact JSON text, quotes included."""
    assert len(parse(data="x" * (MAX_DATA_BYTES - 2)).data_json) == MAX_DATA_BYTES


def test_one_byte_of_data_more_is_refused() -> None:
    """One over, the limit is named."""
    text = "é" * (MAX_DATA_BYTES // 2 - 1) + "x"
    assert refusal(data=text) == "data: 16,777,217 bytes as JSON, the limit is 16,777,216"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda value: value, "data"),
        (lambda value: {"close": [1.0, value]}, "data['close'][1]"),
        (lambda value: {"a": {"b c": value}, "z": value}, "data['a']['b c']"),
        (lambda value: [[1], [value], [value]], "data[1][0]"),
    ],
)
def test_a_number_that_json_cannot_hold_is_found(value: float, wrap: Any, path: str) -> None:
    """The first one is named by its path."""
    assert refusal(data=wrap(value)) == f"{path} is NaN or infinite, which JSON cannot hold; use null"


def test_an_integer_too_long_for_json_is_not_called_nan() -> None:
    """Python refuses to print more than 4300 digits; the reason given is that one."""
    assert "NaN" not in refusal(data={"n": 10**5000})


@pytest.mark.parametrize("data", ["\ud800", {"a": ["\udfff"]}, {"\ud83d": 1}])
def test_lone_surrogates_in_data_are_refused(data: Any) -> None:
    """They have no UTF-8 form: the file could not be written."""
    assert refusal(data=data) == "data: holds text that is not valid Unicode (a lone surrogate)"


@pytest.mark.parametrize("field", ["code", "user_id"])
def test_lone_surrogates_in_text_are_refused(field: str) -> None:
    """Neither can they be sent anywhere."""
    assert refusal(**{field: "x\ud800"}).startswith(f"{field}: ")


@pytest.mark.parametrize("depth", [300, 100_000])
def test_data_nested_too_deeply_is_refused(depth: int) -> None:
    """A refusal, and no crash of the interpreter."""
    assert refusal(data=nested(depth)).startswith("data")


def test_data_that_holds_itself_is_refused() -> None:
    """A cycle has no JSON text."""
    cycle: list[Any] = []
    cycle.append(cycle)
    assert refusal(data=cycle).startswith("data")


@pytest.mark.parametrize("data", [(1, 2), {1, 2}, {1: 2}, b"x", object()])
def test_data_that_is_not_json_is_refused(data: Any) -> None:
    """Nothing is turned into something else in silence."""
    assert refusal(data=data).startswith("data")


@pytest.mark.parametrize("data", [None, 0, "", [], {}, False, nested(100)])
def test_any_json_value_is_data(data: Any) -> None:
    """Not only objects."""
    assert json.loads(parse(data=data).data_json) == data


# Data sets and parameters.

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("fields", [{"dataset": DIGEST}, {"data": DatasetRef(DIGEST, 7)}])
def test_a_data_set_is_referred_to(fields: dict[str, Any]) -> None:
    """By its hash, or by what `put` returns; on the wire it is the hash, and there are no data."""
    request = parse(**fields, params={"fast": 5})
    assert request.model_dump(exclude_defaults=True) == {"code": "x = 1\n", "dataset": DIGEST, "params": {"fast": 5}}
    assert request.data_json == b""


def test_build_takes_what_put_returns() -> None:
    """As `submit` does."""
    assert ExecutionRequest.build("x", DatasetRef(DIGEST, 7)).dataset == DIGEST


@pytest.mark.parametrize("dataset", ["", "0" * 63, "0" * 65, "0" * 63 + "A", "0" * 64 + "\n", "*"])
def test_what_is_no_hash_is_no_reference(dataset: str) -> None:
    """It becomes part of a key in Redis."""
    assert refusal(dataset=dataset) == "dataset: not a reference, which is 64 hexadecimal digits"


def test_data_and_data_set_exclude_each_other() -> None:
    """Which one was meant cannot be told."""
    assert refusal(data=[1], dataset=DIGEST) == "data: give either data or a dataset"


@pytest.mark.parametrize("dataset", [DIGEST, "f" * 64])
def test_a_reference_and_a_data_set_exclude_each_other(dataset: str) -> None:
    """Neither takes the other's place in silence; None is none."""
    reason = "data: give either a reference as data or a dataset"
    assert refusal(data=DatasetRef(DIGEST, 7), dataset=dataset) == reason
    assert parse(data=DatasetRef(DIGEST, 7), dataset=None).dataset == DIGEST


def test_the_text_of_a_data_set_takes_its_place() -> None:
    """In a request of its own, with the parameters in it."""
    request = parse(dataset=DIGEST, params={"fast": 5})
    assert request.with_dataset(b'{"price":7}').data_json == b'{"params":{"fast":5},"price":7}'
    assert parse(dataset=DIGEST).with_dataset(b"[1]").data_json == b"[1]"
    assert request.data_json == b""


@pytest.mark.parametrize("params", [{}, {"fast": 5, "names": ["é", None]}])
def test_parameters_are_in_the_data_file(params: dict[str, Any]) -> None:
    """Whether the data have such a key or not."""
    for data in ({}, {"params": 1, "price": 7}):
        assert json.loads(parse(data=data, params=params).data_json) == {**data, "params": params}


@pytest.mark.parametrize("params", [[1], "x", 1, {1: 2}, {"a": (1,)}])
def test_parameters_are_a_json_object(params: Any) -> None:
    """Nothing is turned into something else in silence."""
    assert refusal(params=params).startswith("params")


@pytest.mark.parametrize("data", [[1], None, "x"])
def test_parameters_need_data_that_are_an_object(data: Any) -> None:
    """Inline, or in a data set."""
    reason = "params: they become a key of the data, so the data must be an object"
    assert refusal(data=data, params={}) == reason
    with pytest.raises(InvalidRequest, match=f"^{reason}$"):
        parse(dataset=DIGEST, params={}).with_dataset(json.dumps(data).encode())


def test_parameters_count_as_data() -> None:
    """The data file has one limit, however it came to be."""
    data = {"x": "x" * (MAX_DATA_BYTES - 19)}
    assert len(parse(data=data, params=None).data_json) <= MAX_DATA_BYTES
    assert refusal(data=data, params={}).startswith("data: 16,777,2")
    with pytest.raises(InvalidRequest, match=r"^data: 16,777,217 bytes as JSON, the limit is 16,777,216$"):
        parse(dataset=DIGEST, params={}).with_dataset(parse(data=data).data_json)


@pytest.mark.parametrize("fields", [{"dataset": DIGEST}, {"data": {}}])
def test_parameters_have_the_limit_of_data(fields: dict[str, Any]) -> None:
    """With a data set, too, whose text only the worker has."""
    params = {"a": "x" * (MAX_DATA_BYTES - 8)}
    assert refusal(**fields, params={"a": f"{params['a']}x"}) == (
        "params: 16,777,217 bytes as JSON, the limit is 16,777,216"
    )
    assert parse(dataset=DIGEST, params=params).params == params


@pytest.mark.parametrize("timeout", [None, 0.001, 1, 60, 60.0])
def test_timeouts_within_the_bounds(timeout: float | None) -> None:
    """Up to a minute; None takes the worker's ceiling."""
    assert parse(timeout=timeout).timeout == timeout


@pytest.mark.parametrize("timeout", [0, -1, 60.001, 61, math.nan, math.inf, -math.inf, "soon", [1]])
def test_timeouts_out_of_bounds(timeout: Any) -> None:
    """None of these is a wall clock between 0 and 60 s."""
    assert refusal(timeout=timeout).startswith("timeout: ")


@pytest.mark.parametrize("seed", [None, 0, 2**32 - 1])
def test_seeds_within_the_bounds(seed: int | None) -> None:
    """What numpy's global generator takes."""
    assert parse(seed=seed).seed == seed


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "x"])
def test_seeds_out_of_bounds(seed: Any) -> None:
    """What it does not take."""
    assert refusal(seed=seed).startswith("seed: ")


@pytest.mark.parametrize("user_id", ["", "desk 7", "x" * 128, "Zoë/Ω", "[bold]"])
def test_user_ids(user_id: str) -> None:
    """Any printable text of up to 128 characters."""
    assert parse(user_id=user_id).user_id == user_id


@pytest.mark.parametrize("char", [*map(chr, range(32)), "\x7f"])
@pytest.mark.parametrize("place", ["{}", "{}a", "a{}", "a{}b"])
def test_control_characters_in_user_id_are_refused(char: str, place: str) -> None:
    """Wherever they stand, the final newline that `$` overlooks in other engines included."""
    assert refusal(user_id=place.format(char)).startswith("user_id: ")


def test_user_id_of_129_characters_is_refused() -> None:
    """One over."""
    assert refusal(user_id="x" * 129).startswith("user_id: ")


def test_an_unknown_field_is_refused() -> None:
    """A newer producer's message is not half understood."""
    assert refusal(memory="1 TiB") == "memory: Extra inputs are not permitted"


def test_missing_and_empty_code_are_refused() -> None:
    """There is nothing to run."""
    assert refusal(code="") == "code: String should have at least 1 character"
    with pytest.raises(InvalidRequest, match=r"^code: Field required$"):
        ExecutionRequest.parse({})


def test_every_wrong_field_is_named_in_one_line() -> None:
    """So that one round is enough to mend a request."""
    text = refusal(timeout=0, seed=-1, user_id="a\nb", colour="red")
    assert text.count("\n") == 0
    assert [part.partition(":")[0] for part in text.split("; ")] == ["timeout", "user_id", "seed", "colour"]


def test_refusal_is_one_line_whatever_a_field_is_called() -> None:
    """The name of an unknown field comes from outside and may hold a line end."""
    assert len(refusal(**{"a\nforged log line": 1}).splitlines()) == 1


def test_refusal_never_quotes_the_content() -> None:
    """Error texts are logged; code and data are somebody's secret."""
    text = refusal(code=["secret"], data={"secret": object()}, timeout="secret", user_id="secret\0")
    assert "secret" not in text.replace("data.dict.secret", "")


def test_requests_are_frozen() -> None:
    """What was validated is what is run."""
    request = parse()
    with pytest.raises(ValidationError, match="frozen"):
        request.code = "import os"


@given(
    fields=st.fixed_dictionaries(
        {"code": TEXT.filter(bool), "data": JSON},
        optional={
            "timeout": st.none() | st.floats(min_value=0.001, max_value=60),
            "user_id": st.text(string.ascii_letters + " é", max_size=128),
            "seed": st.none() | st.integers(0, 2**32 - 1),
        },
    )
)
@settings(max_examples=100, deadline=None)
def test_requests_survive_the_queue(fields: dict[str, Any]) -> None:
    """What the worker parses is what the producer built, byte for byte."""
    request = ExecutionRequest.parse(fields)
    wire = json.dumps(request.model_dump(mode="json", exclude_defaults=True))
    arrived = ExecutionRequest.parse(json.loads(wire))
    assert arrived == request
    assert arrived.data_json == request.data_json
    assert json.loads(arrived.data_json) == fields["data"]


@given(length=st.integers(MAX_CODE_BYTES - 4, MAX_CODE_BYTES + 4), char=st.sampled_from("xé€😀"))
@settings(max_examples=40, deadline=None)
def test_code_bound_is_exact_for_every_character(length: int, char: str) -> None:
    """Characters of one to four bytes, on both sides of the limit."""
    width = len(char.encode())
    code = char * (length // width) + "x" * (length % width)
    assert len(code.encode()) == length
    if length <= MAX_CODE_BYTES:
        assert parse(code=code).code == code
    else:
        assert refusal(code=code).startswith("code: ")


# Results.

RESULT = ExecutionResult(
    status=ExecutionStatus.REJECTED,
    output="é\x00\x1b",
    stderr="warning\n",
    truncated=True,
    error=ErrorDetail(type="PolicyViolation", message="R2 no", line=3, traceback="Traceback …"),
    exit_code=1,
    signal=11,
    violations=(Violation("R2", 3, 1, "import os", "import of os", "remove it"),),
    metrics=ExecutionMetrics(wall_seconds=0.1, queue_seconds=None, peak_memory_bytes=5, warm=True),
)


def test_results_survive_the_queue() -> None:
    """Violations and metrics included."""
    wire = json.dumps(RESULT.model_dump(mode="json"))
    assert ExecutionResult.model_validate(json.loads(wire)) == RESULT
    assert ExecutionResult.model_validate_json(RESULT.model_dump_json()) == RESULT


def test_an_unknown_field_in_a_result_is_refused() -> None:
    """A newer worker's result fails with a clear line."""
    with pytest.raises(ValidationError, match="verdict"):
        ExecutionResult.model_validate({"status": "succeeded", "verdict": "buy"})


@pytest.mark.parametrize("status", ExecutionStatus)
def test_only_succeeded_is_success(status: ExecutionStatus) -> None:
    """Every other status is not."""
    assert ExecutionResult(status=status).success is (status == "succeeded")


def test_statuses_are_the_seven_of_the_contract() -> None:
    """Producers match on these strings."""
    assert [str(status) for status in ExecutionStatus] == [
        "succeeded",
        "rejected",
        "failed",
        "timed_out",
        "out_of_memory",
        "crashed",
        "cancelled",
    ]


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ('{"a": 1}\n', {"a": 1}),
        ("loading…\nrsi = 3\n[1, 2]\n", [1, 2]),
        ('{\n  "a": 1\n}\n', {"a": 1}),
        ("NaN\nnull", None),
        ("\n\n 3 \n\n", 3),
        ('"one line\u2028still"', "one line\u2028still"),
        ("{'a': 1}\r\n" + '{"a": 1}\r\n', {"a": 1}),
    ],
)
def test_json_reads_the_whole_output_or_its_last_line(output: str, value: Any) -> None:
    """The whole is tried first; talk before the last line is allowed."""
    assert succeeded(output).json() == value


@pytest.mark.parametrize(
    "output",
    [
        "",
        " \n",
        "{'a': 1}",
        '{"a": NaN}',
        "Infinity",
        "1\n-Infinity",
        '{"a": 1}\ndone',
        '{"a": 1} {"b": 2}',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "9" * 5000,
    ],
)
def test_json_refuses_what_is_not_strict_json(output: str) -> None:
    """One error class for every way to be wrong, deep nesting and huge integers included."""
    with pytest.raises(OutputNotJSON, match=r"^the output is not JSON \(.*print exactly one json.dumps"):
        succeeded(output).json()


def test_json_never_gives_a_number_that_json_cannot_hold() -> None:
    """The text is valid, its value is not: a producer would store infinity."""
    with pytest.raises(OutputNotJSON):
        succeeded("1e999").json()


@given(value=JSON, talk=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20), max_size=3))
@settings(max_examples=100, deadline=None)
def test_json_gives_back_what_was_dumped(value: Any, talk: list[str]) -> None:
    """Whatever was printed before the last line."""
    assert succeeded("\n".join([*talk, json.dumps(value)]) + "\n").json() == value


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        (ErrorDetail(type="ValueError", message="no", line=3), "ValueError: no (line 3)"),
        (ErrorDetail(type="ValueError", message="", line=3), "ValueError (line 3)"),
        (ErrorDetail(type="TimedOut", message="late"), "TimedOut: late"),
        (ErrorDetail(type="E", message="", line=0), "E (line 0)"),
    ],
)
def test_error_detail_reads_as_one_line(detail: ErrorDetail, text: str) -> None:
    """With or without message and line."""
    assert str(detail) == text


def test_error_detail_with_lines_in_its_message_is_one_line() -> None:
    """An exception's text may hold line ends."""
    assert len(str(ErrorDetail(type="ValueError", message="first\nsecond")).splitlines()) == 1
