"""Stratbox as a tool of a language model: the schema is the contract's, and what goes back is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tasks import (
    ErrorDetail,
    ExecutionLimits,
    ExecutionMetrics,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Settings,
    StrategyClient,
    Submission,
    Violation,
)
from tasks.errors import InvalidRequest, ResultTimeout, StratboxError, UnknownSubmission
from tasks.models import MAX_TIMEOUT_SECONDS
from tasks.policy import DEFAULT_POLICY
from tasks.tool import (
    Answer,
    answer,
    call_run_strategy,
    error_line,
    request_of,
    run,
    run_strategy_tool,
    schema,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_REDIS = Settings(redis_url="redis://127.0.0.1:1/0")
VIOLATION = Violation("R2", 1, 8, "os", "the module os is not allowed", "leave it out")
PARAMETERS: dict[str, Any] = run_strategy_tool()["function"]["parameters"]


def nodes(tree: Any) -> Iterator[Any]:
    """Yield everything in a JSON value."""
    yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


def modules_named(tool: dict[str, Any]) -> set[str]:
    """Return the modules that a description names."""
    line = next(one for one in tool["function"]["description"].splitlines() if one.startswith("It may import: "))
    return set(line.removeprefix("It may import: ").removesuffix(".").split(", "))


def test_the_tool_has_the_form_of_chat_completions() -> None:
    """As any model with function calling takes it."""
    tool = run_strategy_tool()
    assert set(tool) == {"type", "function"}
    assert tool["type"] == "function"
    assert set(tool["function"]) == {"name", "description", "parameters"}
    assert tool["function"]["name"] == "run_strategy"
    assert json.loads(json.dumps(tool, allow_nan=False)) == tool


def test_the_parameters_are_the_fields_of_a_request() -> None:
    """All but whose strategy it is, with the texts that the contract has; nothing else may be given."""
    fields = {name: field for name, field in ExecutionRequest.model_fields.items() if name != "user_id"}
    described = {name: parameter["description"] for name, parameter in PARAMETERS["properties"].items()}
    assert described == {name: field.description for name, field in fields.items()}
    assert all(described.values())
    assert PARAMETERS["required"] == ["code"]
    assert PARAMETERS["additionalProperties"] is False


def test_the_parameters_have_the_contract_s_types_and_ceilings() -> None:
    """What the schema allows is what a request allows, as far as a schema can say it."""
    properties = PARAMETERS["properties"]
    assert (properties["code"]["type"], properties["code"]["minLength"]) == ("string", 1)
    assert "type" not in properties["data"]
    assert [one["type"] for one in properties["dataset"]["anyOf"]] == ["string", "null"]
    assert [one["type"] for one in properties["params"]["anyOf"]] == ["object", "null"]
    assert properties["timeout"]["anyOf"][0] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": MAX_TIMEOUT_SECONDS,
    }
    assert properties["seed"]["anyOf"][0] == {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**32}


@pytest.mark.parametrize("tree", [PARAMETERS, schema(Answer)])
def test_schemas_are_valid_and_plain(tree: dict[str, Any]) -> None:
    """No titles, no references: some models' servers understand neither."""
    Draft202012Validator.check_schema(tree)
    mappings = [node for node in nodes(tree) if isinstance(node, dict)]
    assert [node for node in mappings if isinstance(node.get("title"), str) or "$ref" in node or "$defs" in node] == []


@pytest.mark.parametrize(
    ("arguments", "sound"),
    [
        ({"code": "1"}, True),
        ({"code": "1", "data": None, "dataset": None, "params": None, "timeout": None, "seed": None}, True),
        ({"code": "1", "data": [1, {"a": "b"}], "timeout": 60, "seed": 2**32 - 1}, True),
        ({"code": "1", "data": {"a": 1}, "params": {"fast": 5}}, True),
        ({}, False),
        ({"code": ""}, False),
        ({"code": 1}, False),
        ({"code": "1", "timeout": 0}, False),
        ({"code": "1", "timeout": 61}, False),
        ({"code": "1", "seed": 2**32}, False),
        ({"code": "1", "params": [1]}, False),
        ({"code": "1", "user_id": "bob"}, False),
        ({"code": "1", "memory": 1}, False),
    ],
)
def test_the_schema_and_the_contract_agree(arguments: dict[str, Any], sound: bool) -> None:  # noqa: FBT001
    """A model that keeps to the schema is not refused, and one that does not is, in one line."""
    assert Draft202012Validator(PARAMETERS).is_valid(arguments) is sound
    if sound:
        assert request_of(arguments, "alice").user_id == "alice"
    else:
        with pytest.raises(InvalidRequest) as caught:
            request_of(arguments, "alice")
        assert len(str(caught.value).splitlines()) == 1


def test_null_stands_for_what_is_not_given() -> None:
    """Models that have to fill in every argument write it; no data are `{}` then, as elsewhere."""
    assert request_of({"code": "1", "data": None, "seed": None}, "alice") == ExecutionRequest(code="1", user_id="alice")


@pytest.mark.parametrize("user_id", ["bob", "alice", "", 7])
def test_whose_strategy_it_is_is_not_the_model_s_to_say(user_id: object) -> None:
    """Not even if it says the same."""
    with pytest.raises(InvalidRequest, match=r"^user_id: "):
        request_of({"code": "1", "user_id": user_id}, "alice")


def test_the_modules_named_are_the_policy_s() -> None:
    """All of them and no other."""
    assert modules_named(run_strategy_tool()) == set(DEFAULT_POLICY.modules)


def test_an_extension_of_the_policy_shows_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy in force is what a model is told."""
    monkeypatch.setenv("STRATBOX_POLICY_EXTRA_MODULES", '{"calendar": ["monthrange"]}')
    assert modules_named(run_strategy_tool()) == {*DEFAULT_POLICY.modules, "calendar"}
    assert modules_named(run_strategy_tool(DEFAULT_POLICY)) == set(DEFAULT_POLICY.modules)


def test_the_limits_show_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones the project promises, those an operator has set, or those that are given."""
    promised = "Limits: 60 s, 256 MiB of memory, 0.5 of a core, 32 processes and threads, 1024 KiB of output."
    assert promised in run_strategy_tool()["function"]["description"]
    monkeypatch.setenv("STRATBOX_LIMITS_TIMEOUT_SECONDS", "7.5")
    assert promised.replace("60 s", "7.5 s") in run_strategy_tool()["function"]["description"]
    given = ExecutionLimits(memory_bytes=512 * 2**20, pids=8)
    shown = promised.replace("256", "512").replace("32 p", "8 p")
    assert shown in run_strategy_tool(limits=given)["function"]["description"]


def test_the_description_says_where_data_come_from_and_answers_go() -> None:
    """By the very words that the policy accepts."""
    description = run_strategy_tool()["function"]["description"]
    assert "json.load(open('/workspace/data.json'))" in description
    assert "prints one JSON object as its last line" in description


def test_an_honest_answer_is_whole() -> None:
    """What is short comes back as it was."""
    result = ExecutionResult(
        status=ExecutionStatus.FAILED,
        output='{"sharpe": 1.2}\n',
        stderr="careful\n",
        error=ErrorDetail(type="ValueError", message="no bars", line=3, traceback="Traceback …\n  line 3\n"),
        violations=(VIOLATION,),
        metrics=ExecutionMetrics(wall_seconds=0.25, cpu_seconds=0.125, peak_memory_bytes=2**26),
        exit_code=1,
    )
    assert answer(result) == {
        "status": "failed",
        "output": '{"sharpe": 1.2}\n',
        "stderr": "careful\n",
        "truncated": False,
        "error": {"type": "ValueError", "message": "no bars", "line": 3, "traceback": "Traceback …\n  line 3\n"},
        "violations": [
            {
                "rule": "R2",
                "line": 1,
                "column": 8,
                "text": "os",
                "message": "the module os is not allowed",
                "hint": "leave it out",
            }
        ],
        "metrics": {"wall_seconds": 0.25, "cpu_seconds": 0.125, "peak_memory_bytes": 2**26},
    }


def test_a_long_output_keeps_its_end() -> None:
    """That is where the answer stands, or what went wrong; what is missing is counted."""
    output = answer(ExecutionResult(status=ExecutionStatus.SUCCEEDED, output="noise\n" * 10**5 + '{"sharpe": 1.2}\n'))[
        "output"
    ]
    assert output.endswith('{"sharpe": 1.2}\n')
    assert "characters left out" in output
    assert len(output) < 7000


TEXTS = st.tuples(st.text(max_size=30), st.sampled_from([1, 7, 1000])).map(lambda pair: pair[0] * pair[1])
INTEGERS = st.integers() | st.sampled_from([10**400, -(10**400)])
FLOATS = st.floats()


@given(
    st.builds(
        ExecutionResult,
        status=st.sampled_from(ExecutionStatus),
        output=TEXTS,
        stderr=TEXTS,
        truncated=st.booleans(),
        error=st.none() | st.builds(ErrorDetail, type=TEXTS, message=TEXTS, line=st.none() | INTEGERS, traceback=TEXTS),
        violations=st.lists(
            st.builds(Violation, rule=TEXTS, line=INTEGERS, column=INTEGERS, text=TEXTS, message=TEXTS, hint=TEXTS),
            max_size=3,
        ).map(lambda some: tuple(some * 30)),
        metrics=st.builds(
            ExecutionMetrics, wall_seconds=FLOATS, cpu_seconds=FLOATS, peak_memory_bytes=st.integers(-(2**70), 2**70)
        ),
    )
)
def test_any_answer_is_bounded_printable_json(result: ExecutionResult) -> None:
    """Whoever wrote the result: of each text some thousand characters, 20 violations, numbers that are some."""
    told = answer(result)
    assert len(json.dumps(told, allow_nan=False, ensure_ascii=False)) < 10 * (6000 + 2000 + 4500 + 20 * 1500)
    Draft202012Validator(schema(Answer)).validate(told)
    texts = [node for node in nodes(told) if isinstance(node, str)]
    assert [
        c for text in texts for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"
    ] == []
    assert len(told["violations"]) <= 20
    assert told["status"] == result.status


@given(st.text())
def test_an_error_is_one_line(text: str) -> None:
    """Of printable text, and only so much of it."""
    line = error_line(StratboxError(text * 100))
    assert len(line.splitlines()) <= 1
    assert len(line) <= 5000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "not JSON"),
        (None, "not JSON"),
        ({"code": "1"}, "not JSON"),
        ("{'code': '1'}", "not JSON"),
        ('{"code": "1"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"code": "1", "seed": 1' + "0" * 5000 + "}", "not JSON"),
        ("[]", "must be an object"),
        ('"print(1)"', "must be an object"),
        ("{}", "code: "),
        ('{"code": 7}', "code: "),
        ('{"code": "\\ud800"}', "code: "),
        ('{"code": "1", "user_id": "bob"}', "user_id: "),
        ('{"code": "1", "memory": 1}', "memory: "),
        ('{"code": "1", "a\\nb": 1}', "a\\nb: "),
        ('{"code": "1", "timeout": NaN}', "timeout: "),
        ('{"code": "1", "data": [Infinity]}', "data[0] is NaN or infinite"),
        ('{"code": "1", "dataset": "latest"}', "dataset: "),
        ('{"code": "1"}', "Redis does not answer"),
    ],
)
async def test_what_a_model_gets_wrong_it_is_told(arguments: Any, says: str) -> None:
    """As a line, never as an exception; so it is of a Redis that is away."""
    with StrategyClient(NO_REDIS) as client:
        told = await call_run_strategy(client, arguments, user_id="alice")
    assert told.startswith("error: ")
    assert says in told
    assert len(told.splitlines()) == 1


class Noting(StrategyClient):
    """A client that tells which submissions it made, and does not submit before it may."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.made: list[Submission] = []
        self.asked, self.may_submit = threading.Event(), threading.Event()
        self.may_submit.set()

    def submit_as(self, submission: Submission, *arguments: Any, **options: Any) -> None:
        """Note it, wait, and do it."""
        self.made.append(submission)
        self.asked.set()
        assert self.may_submit.wait(10)
        super().submit_as(submission, *arguments, **options)


@pytest.fixture
def noting(redis_url: str) -> Iterator[Noting]:
    """One on the module's Redis, which no worker looks at."""
    with Noting(Settings(redis_url=redis_url)) as opened:
        yield opened


async def test_what_nobody_waits_for_longer_is_cancelled(noting: Noting) -> None:
    """When patience ends; the model is told."""
    told = await call_run_strategy(noting, '{"code": "print(1)"}', user_id="alice", patience=0.2)
    assert told == "error: it had not ended after 0.2 s and was cancelled: try again later"
    assert noting.made[0].status() is ExecutionStatus.CANCELLED
    with pytest.raises(ResultTimeout):
        await run(noting, ExecutionRequest(code="print(1)"), patience=0)


async def test_who_is_cancelled_cancels_the_strategy(noting: Noting) -> None:
    """The task that waits, and the submission with it."""
    waiting = asyncio.create_task(run(noting, ExecutionRequest(code="print(1)")))
    await asyncio.to_thread(noting.asked.wait, 10)
    await asyncio.sleep(0.3)
    assert str(noting.made[0].status()) == "queued"
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert noting.made[0].status() is ExecutionStatus.CANCELLED


async def test_a_cancel_on_the_way_into_the_queue_is_not_lost(noting: Noting) -> None:
    """The thread that submits goes on, and the submission is there only after the cancel."""
    noting.may_submit.clear()
    waiting = asyncio.create_task(run(noting, ExecutionRequest(code="print(1)")))
    await asyncio.to_thread(noting.asked.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    noting.may_submit.set()
    await asyncio.to_thread(until_cancelled, noting.made[0])


async def test_cancelled_again_and_again_it_cancels_the_strategy_all_the_same(noting: Noting) -> None:
    """As some frameworks do; the second may come before any thread has begun to see to the first."""
    pool, busy = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    waiting = asyncio.create_task(run(noting, ExecutionRequest(code="print(1)")))
    await asyncio.sleep(0)
    await asyncio.to_thread(noting.asked.wait, 10)  # in the one thread, after the submission
    pool.submit(busy.wait, 10)
    while not waiting.done():
        waiting.cancel()
        await asyncio.sleep(0)
    busy.set()
    await asyncio.to_thread(until_cancelled, noting.made[0])


def until_cancelled(submission: Submission) -> None:
    """Wait until it is known, and cancelled."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(UnknownSubmission):
            if submission.status() is ExecutionStatus.CANCELLED:
                return
        time.sleep(0.05)
    pytest.fail("it was not cancelled")
