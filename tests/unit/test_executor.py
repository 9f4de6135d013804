"""The executor's own decisions: what it refuses, what it makes of an ending, and that no sandbox stays behind."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import platform
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worker
from tasks.errors import InvalidRequest
from tasks.models import ErrorDetail, ExecutionLimits, ExecutionRequest, ExecutionResult, ExecutionStatus, Violation
from tasks.policy import DEFAULT_POLICY
from tasks.refusal import rejection
from tasks.validator import ASTValidator
from tests.unit.reports import CLEAN, reported
from worker.errors import SandboxLost, SandboxStartError
from worker.executor import CODES_REMEMBERED, Cancellation, CodeExecutor, extra_modules
from worker.sandbox.config import SandboxConfig
from worker.sandbox.container import Ending, How, Report, Sandbox
from worker.sandbox.pool import SandboxPool
from worker.verdict import classify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

S = ExecutionStatus
CONFIG = SandboxConfig(limits=ExecutionLimits(timeout_seconds=5))


def verdict(ending: Ending) -> tuple[ExecutionStatus, str | None]:
    """Return status and error, as its text, under a limit of 5 s."""
    result = classify(ending, 5.0, CONFIG)
    return result.status, None if result.error is None else str(result.error)


def test_exports_of_the_worker() -> None:
    """What a host program may import; a removal is a breaking change."""
    assert worker.__all__ == ["CodeExecutor", "SandboxConfig", "execute_strategy"]
    assert all(hasattr(worker, name) for name in worker.__all__)


def test_a_data_set_needs_a_worker() -> None:
    """Without a queue nobody can fetch it; said before a sandbox is spent."""
    with CodeExecutor(SandboxConfig(image="stratbox/none:0"), warm=0) as executor:
        result = executor.execute(ExecutionRequest(code="x = 1", dataset="0" * 64))
    assert (result.status, str(result.error)) == (
        S.REJECTED,
        "InvalidRequest: dataset: only a worker can fetch it: submit the strategy, or give the data",
    )


# Classification.

OUT_OF_MEMORY = (S.OUT_OF_MEMORY, "OutOfMemory: killed for going over 256 MiB of memory")
TIMED_OUT = (S.TIMED_OUT, "TimedOut: still running after 5 s")
CANCELLED = (S.CANCELLED, "Cancelled: cancelled while it ran")


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (reported(), (S.SUCCEEDED, None)),
        (reported(exit_code=3), (S.FAILED, "NonZeroExit: left with exit code 3")),
        (reported(exit_code=None, timed_out=True), TIMED_OUT),
        (reported(exit_code=None, signal=9, timed_out=True), TIMED_OUT),
        (Ending(how=How.OVERDUE), TIMED_OUT),
        (reported(exit_code=None, signal=9, oom_kills=1), OUT_OF_MEMORY),
        (Ending(how=How.VANISHED, exit_code=137, out_of_memory=True), OUT_OF_MEMORY),
        (reported(exit_code=None, signal=11), (S.CRASHED, "Crashed: killed by SIGSEGV")),
        (reported(exit_code=None, signal=99), (S.CRASHED, "Crashed: killed by signal 99")),
        (
            Ending(how=How.VANISHED, exit_code=137),
            (S.CRASHED, "Crashed: the sandbox ended without a report (exit code 137)"),
        ),
        (Ending(how=How.BABBLED), (S.CRASHED, "Crashed: the sandbox sent what no runner sends (exit code None)")),
        (Ending(how=How.INTERRUPTED), CANCELLED),
    ],
)
def test_verdict(ending: Ending, expected: tuple[ExecutionStatus, str | None]) -> None:
    """Every way to end has its status and its reason."""
    assert verdict(ending) == expected


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        # Memory is the cause, the deadline its effect: a process killed for memory leaves others waiting for it.
        (reported(exit_code=None, timed_out=True, oom_kills=1), OUT_OF_MEMORY),
        (Ending(how=How.OVERDUE, out_of_memory=True), OUT_OF_MEMORY),
        # A strategy that loses a helper process to the kernel may still leave with 0: its answer is not to be had.
        (reported(oom_kills=1), OUT_OF_MEMORY),
        # The runner kills with a signal at the deadline.
        (reported(exit_code=None, signal=9, timed_out=True), TIMED_OUT),
        # Whoever cancelled it knows; that the rest died of it is no news.
        (Ending(how=How.INTERRUPTED, out_of_memory=True, exit_code=137), CANCELLED),
        # Memory before the deadline before the signal.
        (reported(exit_code=None, signal=9, timed_out=True, oom_kills=3), OUT_OF_MEMORY),
    ],
)
def test_precedence(ending: Ending, expected: tuple[ExecutionStatus, str]) -> None:
    """Where two verdicts fit, the cause wins over its effect."""
    assert verdict(ending) == expected


REFUSED = (
    Violation("R3", 2, 8, "().__class__", "the attribute __class__ is reserved", "leave it out"),
    Violation("R6", 5, 1, "eval", "the builtin eval is not allowed", "leave it out"),
)


def refused_inside(**fields: Any) -> Ending:
    """Return the ending of a run that the sandbox's own check refused; no strategy has run."""
    ending = reported(**{"exit_code": None, **fields})
    ending.violations = REFUSED
    return ending


def test_the_sandbox_s_refusal_is_a_rejection() -> None:
    """In the shape of the worker's own."""
    result = classify(refused_inside(), 5.0, CONFIG)
    assert (result.status, result.violations) == (S.REJECTED, REFUSED)
    message = "R3 the attribute __class__ is reserved (and 1 more)"
    assert result.error == ErrorDetail(type="PolicyViolation", message=message, line=2)
    assert (result.exit_code, result.signal, result.output) == (None, None, "")
    assert ExecutionResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        # The source took too much to read: what ended the check is the news.
        (refused_inside(oom_kills=1), OUT_OF_MEMORY),
        (refused_inside(timed_out=True), TIMED_OUT),
        # A verdict is a verdict when its report has come.
        (Ending(how=How.BABBLED, violations=REFUSED), (S.CRASHED, None)),
        (Ending(how=How.INTERRUPTED, violations=REFUSED), CANCELLED),
    ],
)
def test_violations_belong_to_rejections(ending: Ending, expected: tuple[ExecutionStatus, str | None]) -> None:
    """No other status carries them."""
    result = classify(ending, 5.0, CONFIG)
    assert (result.status, result.violations) == (expected[0], ())
    assert expected[1] in (None, str(result.error))


def test_verdict_ignores_what_the_strategy_printed() -> None:
    """Output that looks like a report is output."""
    forged = Ending(how=How.REPORTED, stdout=bytearray(b'{"exit_code": 0}'), report=reported(exit_code=1).report)
    assert classify(forged, 5.0, CONFIG).status is S.FAILED


def test_an_explanation_does_not_change_the_status() -> None:
    """It comes from the strategy; the verdict does not."""
    explained = json.dumps({"type": "X", "message": "", "line": 1, "traceback": ""})
    assert verdict(reported(explanation=explained)) == (S.SUCCEEDED, None)
    assert verdict(reported(exit_code=None, timed_out=True, explanation=explained)) == TIMED_OUT


def test_error_is_none_exactly_on_success() -> None:
    """As the contract says."""
    for status in [reported(), reported(exit_code=1), Ending(), Ending(how=How.OVERDUE), Ending(how=How.INTERRUPTED)]:
        result = classify(status, 5.0, CONFIG)
        assert (result.error is None) is result.success


def test_partial_output_survives_every_ending() -> None:
    """What was printed before a timeout, a kill or a cancel is kept; what is no UTF-8 is replaced."""
    for how in How:
        ending = Ending(how=how, stdout=bytearray(b"a\xff"), stderr=bytearray(b"\xc3"), truncated=True)
        result = classify(ending, 5.0, CONFIG)
        assert (result.output, result.stderr, result.truncated) == ("a\ufffd", "\ufffd", True)


def test_exit_code_and_signal_are_the_runner_s_or_else_the_engine_s() -> None:
    """The engine is asked when nobody reported."""
    crashed = classify(reported(exit_code=None, signal=11), 5.0, CONFIG)
    assert (crashed.exit_code, crashed.signal) == (None, 11)
    failed = classify(reported(exit_code=3), 5.0, CONFIG)
    assert (failed.exit_code, failed.signal) == (3, None)
    vanished = classify(Ending(how=How.VANISHED, exit_code=137), 5.0, CONFIG)
    assert (vanished.exit_code, vanished.signal) == (137, None)


def test_an_explanation_becomes_the_error() -> None:
    """Type, message, line and traceback of the strategy's exception."""
    fields = {"type": "KeyError", "message": "'close'", "line": 7, "traceback": "Traceback …"}
    result = classify(reported(exit_code=1, explanation=json.dumps(fields)), 5.0, CONFIG)
    assert result.error == ErrorDetail(type="KeyError", message="'close'", line=7, traceback="Traceback …")


SOUND = {"type": "E", "message": "m", "line": 1, "traceback": "t"}


@pytest.mark.parametrize(
    "explanation",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        '"text"',
        "[" * 20_000,
        '{"a":' * 20_000,
        "9" * 5_000,
        "NaN",
        json.dumps({**SOUND, "type": 1}),
        json.dumps({**SOUND, "type": None}),
        json.dumps({**SOUND, "message": ["m"]}),
        json.dumps({**SOUND, "line": "1"}),
        json.dumps({**SOUND, "line": 1.5}),
        json.dumps({**SOUND, "line": True}),
        json.dumps({**SOUND, "line": [1]}),
        json.dumps({**SOUND, "traceback": {"a": "\ud800"}}),
        json.dumps({**SOUND, "status": "succeeded"}),
        json.dumps({**SOUND, "\ud800": 1}),
        json.dumps({"message": "m"}),
    ],
)
def test_a_forged_explanation_is_a_non_zero_exit(explanation: str) -> None:
    """Broken JSON, wrong types, unknown fields: none raises, and none is half believed."""
    assert verdict(reported(exit_code=1, explanation=explanation)) == (S.FAILED, "NonZeroExit: left with exit code 1")


@pytest.mark.parametrize("field", ["type", "message", "traceback"])
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800", "\x00\x1b[2J", "😀"])
def test_lone_surrogates_never_break_the_encoding(field: str, text: str) -> None:
    """An exception's text may hold what has no UTF-8 form; the result must travel all the same."""
    result = classify(reported(exit_code=1, explanation=json.dumps({**SOUND, field: text})), 5.0, CONFIG)
    assert result.error is not None
    assert result.error.type != "NonZeroExit"
    assert ExecutionResult.model_validate_json(result.model_dump_json()) == result


@given(explanation=st.text(max_size=200), fields=st.dictionaries(st.text(max_size=10), st.text() | st.integers()))
@settings(max_examples=200, deadline=None)
def test_any_explanation_gives_a_result_that_travels(explanation: str, fields: dict[str, Any]) -> None:
    """Whatever a strategy scribbles."""
    for text in (explanation, json.dumps({**SOUND, **fields})):
        result = classify(reported(exit_code=1, explanation=text), 5.0, CONFIG)
        assert result.status is S.FAILED
        assert ExecutionResult.model_validate_json(result.model_dump_json()) == result


@given(stdout=st.binary(max_size=100), stderr=st.binary(max_size=100))
@settings(max_examples=100, deadline=None)
def test_any_output_gives_a_result_that_travels(stdout: bytes, stderr: bytes) -> None:
    """Bytes that are no text included."""
    result = classify(Ending(stdout=bytearray(stdout), stderr=bytearray(stderr)), 5.0, CONFIG)
    assert ExecutionResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    "fields",
    [{"exit_code": "0"}, {"exit_code": True}, {"timed_out": 0}, {"oom_kills": 0.0}, {"explanation": None}, {"more": 1}],
)
def test_a_report_of_the_wrong_shape_is_refused(fields: dict[str, Any]) -> None:
    """It comes out of a container: nothing is coerced."""
    with pytest.raises(ValueError, match=next(iter(fields))):
        Report.model_validate_json(json.dumps({**CLEAN, **fields}))


# Refusal.


def no_sandbox() -> Sandbox:
    """Stand where a sandbox would be started."""
    pytest.fail("a container was spent")


SAME_PYTHON = platform.python_version()
#: Of another grammar, whatever runs these tests.
OTHER_PYTHON = "3.99.1"


class FakeSandbox(Sandbox):
    """Ends as it is told, without a container."""

    def __init__(self, outcome: Ending | Exception | None = None, python_version: str = SAME_PYTHON) -> None:
        self.container_id = "fake"
        self.python_version = python_version
        self.runs = 0
        self.ready_at = self.first_used = 0.0
        self.checks: list[Mapping[str, list[str]] | None] = []
        self.lasts: list[bool] = []
        self.outcome = outcome
        self.asked: list[tuple[str, bytes, float, int | None]] = []
        self.returned = False
        self.interrupted = threading.Event()
        self.started = threading.Event()
        self.destroyed = threading.Event()

    def alive(self) -> bool:
        """Whether nobody ended it."""
        return not self.destroyed.is_set()

    def run(  # noqa: PLR0913  # as the real one
        self,
        code: str,
        data: bytes,
        timeout_seconds: float,
        seed: int | None = None,
        *,
        check: Mapping[str, list[str]] | None = None,
        last: bool = True,
    ) -> Ending:
        """Give the outcome; without one, wait for the interrupt."""
        self.runs += 1
        self.first_used = self.first_used or time.monotonic()
        self.checks.append(check)
        self.lasts.append(last)
        self.asked.append((code, data, timeout_seconds, seed))
        self.started.set()
        if self.outcome is None:
            assert self.interrupted.wait(5)
            time.sleep(0.05)  # a runner takes a moment to end
            self.returned = True
            return Ending(how=How.INTERRUPTED, stdout=bytearray(b"so far"), wall_seconds=0.5)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def interrupt(self) -> None:
        """Let `run` return."""
        self.interrupted.set()

    def destroy(self) -> None:
        """Note the end."""
        self.destroyed.set()


@pytest.fixture
def executor() -> Iterator[CodeExecutor]:
    """An executor whose worker allows 5 s, and that may not start a sandbox."""
    yield (opened := serving(no_sandbox))
    opened.close()


def serving(sandbox: Any, validator: ASTValidator | None = ASTValidator()) -> CodeExecutor:  # noqa: B008
    """Return an executor on a pool that gives `sandbox`, or what it makes."""
    made = CodeExecutor(CONFIG, validator, warm=0)
    made._pool = SandboxPool(sandbox if callable(sandbox) else lambda: sandbox, 0)
    return made


def test_a_timeout_over_the_worker_s_ceiling_is_refused(executor: CodeExecutor) -> None:
    """An operator's limit is a ceiling; no container is spent."""
    result = executor.execute(ExecutionRequest(code="x = 1", timeout=5.5))
    assert result.status is S.REJECTED
    assert result.error == ErrorDetail(type="InvalidRequest", message="timeout: 5.5 s, this worker allows 5 s")


def test_code_against_the_policy_is_refused(executor: CodeExecutor) -> None:
    """With every violation; the error names the first and counts the others."""
    result = executor.execute(ExecutionRequest(code="x = 1\nimport os\nimport sys\n"))
    assert result.status is S.REJECTED
    assert [violation.line for violation in result.violations] == [2, 3]
    assert result.error is not None
    assert (result.error.type, result.error.line) == ("PolicyViolation", 2)
    assert result.error.message.startswith("R2 ")
    assert result.error.message.endswith(" (and 1 more)")
    assert ExecutionResult.model_validate_json(result.model_dump_json()) == result


def test_one_violation_has_no_others(executor: CodeExecutor) -> None:
    """No `(and 0 more)`."""
    error = executor.execute(ExecutionRequest(code="import os\n")).error
    assert error is not None
    assert "more)" not in error.message


def test_a_refusal_has_metrics_of_what_happened(executor: CodeExecutor) -> None:
    """It waited and was looked at; nothing ran."""
    metrics = executor.execute(ExecutionRequest(code="import os\n"), queue_seconds=1.5).metrics
    assert metrics.queue_seconds == 1.5
    assert metrics.total_seconds > 0
    assert (metrics.wall_seconds, metrics.startup_seconds, metrics.warm) == (0, 0, False)


def test_a_rejection_is_a_result() -> None:
    """For a request that does not even parse."""
    result = rejection("code: Field required")
    assert (result.status, str(result.error)) == (S.REJECTED, "InvalidRequest: code: Field required")


# Runs, in a sandbox that is none.


def test_without_a_validator_any_code_reaches_the_sandbox() -> None:
    """The container is the boundary."""
    sandbox = FakeSandbox(reported())
    executor = serving(sandbox, validator=None)
    assert executor.execute(ExecutionRequest(code="import os\n")).success
    assert sandbox.asked == [("import os\n", b"{}", 5.0, None)]
    executor._pool.close()


# The second check, where the sandbox's Python reads another grammar.

NO_SYNTAX = "x = = 1\n"


def run_twice(executor: CodeExecutor, first: str, second: str) -> tuple[ExecutionStatus, ExecutionStatus]:
    """Run two strategies, one after the other, and close."""
    statuses = [executor.execute(ExecutionRequest(code=code)).status for code in (first, second)]
    executor._pool.close()
    return statuses[0], statuses[1]


def test_the_same_grammar_is_not_checked_twice() -> None:
    """The worker's verdict is the sandbox's; what is no syntax costs no container."""
    sandbox = FakeSandbox(reported())
    assert run_twice(serving(sandbox), "x = 1", NO_SYNTAX) == (S.SUCCEEDED, S.REJECTED)
    assert sandbox.checks == [None]


def test_another_grammar_is_checked_in_the_sandbox() -> None:
    """Clean code too, since it may be read otherwise there; what is no syntax here is left to it."""
    made: list[FakeSandbox] = []

    def make() -> FakeSandbox:
        made.append(FakeSandbox(reported(), OTHER_PYTHON))
        return made[-1]

    assert run_twice(serving(make), "x = 1", NO_SYNTAX) == (S.SUCCEEDED, S.SUCCEEDED)
    assert [sandbox.checks for sandbox in made] == [[{}], [{}]]


def checks_of(sandboxes: list[FakeSandbox]) -> list[bool]:
    """Return whether each run was to be checked in its sandbox, in their order."""
    return [check is not None for sandbox in sandboxes for check in sandbox.checks]


def ending_with(*outcomes: Ending, version: str = OTHER_PYTHON) -> tuple[CodeExecutor, list[FakeSandbox]]:
    """Return an executor whose sandboxes end so, one after the other, and what it has used of them."""
    made: list[FakeSandbox] = []

    def make() -> FakeSandbox:
        made.append(FakeSandbox(outcomes[len(made) % len(outcomes)], version))
        return made[-1]

    return serving(make), made


def run_all(executor: CodeExecutor, codes: list[str]) -> None:
    """Run strategies one after the other, and close."""
    for code in codes:
        executor.execute(ExecutionRequest(code=code))
    executor._pool.close()


def test_a_source_is_checked_in_the_sandbox_until_it_has_passed() -> None:
    """A strategy that runs each minute is read there once; another one is another."""
    executor, made = ending_with(reported())
    run_all(executor, ["x = 1", "x = 1", "x = 1 ", "x = 1"])
    assert checks_of(made) == [True, False, True, False]


@pytest.mark.parametrize(
    "ending",
    [
        reported(exit_code=1),
        reported(exit_code=None, signal=11),
        reported(exit_code=None, timed_out=True),
        reported(oom_kills=1),
        refused_inside(),
        Ending(how=How.BABBLED),
        Ending(how=How.VANISHED),
    ],
    ids=["failed", "crashed", "timed out", "out of memory", "refused", "babbled", "vanished"],
)
def test_a_source_that_did_not_end_well_has_not_passed(ending: Ending) -> None:
    """Its next run is checked like its first: nobody knows how far the check had come."""
    executor, made = ending_with(ending)
    run_all(executor, ["x = 1", "x = 1"])
    assert checks_of(made) == [True, True]


def test_so_many_sources_are_remembered() -> None:
    """The one that came first is forgotten first, and checked once more."""
    executor, made = ending_with(reported())
    sources = [f"x = {number}" for number in range(CODES_REMEMBERED + 1)]
    run_all(executor, [*sources, sources[1], sources[-1], sources[0]])
    assert checks_of(made) == [True] * len(sources) + [False, False, True]
    assert len(executor._passed) == CODES_REMEMBERED


def test_what_another_grammar_has_passed_is_checked_by_the_next() -> None:
    """The image may be exchanged while a worker runs."""
    made: list[FakeSandbox] = []

    def make() -> FakeSandbox:
        made.append(FakeSandbox(reported(), (OTHER_PYTHON, "3.98.1")[len(made)]))
        return made[-1]

    run_all(serving(make), ["x = 1", "x = 1"])
    assert checks_of(made) == [True, True]


@pytest.mark.parametrize("version", [SAME_PYTHON, OTHER_PYTHON, "3.1.1"])
def test_a_first_syntax_error_is_checked_wherever_it_runs(version: str) -> None:
    """Before a sandbox has told its version, nobody knows whose verdict counts: this one checks."""
    sandbox = FakeSandbox(refused_inside(), version)
    executor = serving(sandbox)
    result = executor.execute(ExecutionRequest(code=NO_SYNTAX))
    assert (result.status, result.violations) == (S.REJECTED, REFUSED)
    assert sandbox.checks == [{}]
    executor._pool.close()


@pytest.mark.parametrize("code", ["import os\n", "x = 1\0", "# coding: latin-1\nx = = 1\n", "x = " + "-" * 9_999 + "1"])
def test_any_other_violation_is_refused_before_a_container_is_spent(code: str) -> None:
    """Whatever the sandbox's grammar is."""
    sandbox = FakeSandbox(reported(), OTHER_PYTHON)
    assert run_twice(serving(sandbox), "x = 1", code) == (S.SUCCEEDED, S.REJECTED)
    assert len(sandbox.asked) == 1


def test_without_a_validator_nothing_is_checked_anywhere() -> None:
    """The container is the boundary, whatever its grammar."""
    sandbox = FakeSandbox(reported(), OTHER_PYTHON)
    executor = serving(sandbox, validator=None)
    assert executor.execute(ExecutionRequest(code=NO_SYNTAX)).success
    assert sandbox.checks == [None]
    executor._pool.close()


def test_what_the_operator_allows_travels_with_the_check() -> None:
    """Names beyond the default policy, by module; the image has the rest."""
    policy = DEFAULT_POLICY.extended({"textwrap": ["dedent", "fill"], "statistics": ["mean", "StatisticsError"]})
    assert extra_modules(policy) == {"textwrap": ["dedent", "fill"]}
    sandbox = FakeSandbox(reported(), OTHER_PYTHON)
    executor = serving(sandbox, ASTValidator(policy))
    assert executor.execute(ExecutionRequest(code="import textwrap\n")).success
    assert sandbox.checks == [{"textwrap": ["dedent", "fill"]}]
    executor._pool.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"max_violations": 1},
        {"builtins": DEFAULT_POLICY.builtins - {"print"}},
        {"modules": {name: names for name, names in DEFAULT_POLICY.modules.items() if name != "random"}},
        {"modules": {**DEFAULT_POLICY.modules, "random": frozenset({"seed"})}},
    ],
)
def test_a_stricter_policy_leaves_no_verdict_to_the_sandbox(changes: dict[str, Any]) -> None:
    """The sandbox cannot check by it: what is no syntax here stays refused."""
    policy = dataclasses.replace(DEFAULT_POLICY, **changes)
    assert extra_modules(policy) is None
    executor = serving(no_sandbox, ASTValidator(policy))
    assert executor.execute(ExecutionRequest(code=NO_SYNTAX)).status is S.REJECTED


def test_the_very_request_reaches_the_sandbox() -> None:
    """Code, data, timeout and seed; the sandbox is destroyed after it."""
    sandbox = FakeSandbox(reported())
    executor = serving(sandbox)
    result = executor.execute(ExecutionRequest(code="x = 1", data=[1, "é"], timeout=2, seed=7))
    assert sandbox.asked == [("x = 1", '[1,"é"]'.encode(), 2.0, 7)]
    assert sandbox.destroyed.wait(5)
    metrics = result.metrics
    assert (metrics.wall_seconds, metrics.cpu_seconds, metrics.peak_memory_bytes) == (0.25, 0.125, 70_000_000)
    executor._pool.close()


def test_a_sandbox_is_destroyed_when_the_run_raises() -> None:
    """Trouble with the engine must not leave containers."""
    sandbox = FakeSandbox(SandboxLost("gone"))
    executor = serving(sandbox)
    with pytest.raises(SandboxLost):
        executor.execute(ExecutionRequest(code="x = 1"))
    assert sandbox.destroyed.wait(5)
    executor._pool.close()


def test_a_sandbox_that_does_not_start_is_an_exception() -> None:
    """What the infrastructure does is no result: the task is to be tried again."""

    def fail() -> Sandbox:
        msg = "no space left"
        raise SandboxStartError(msg)

    executor = serving(fail)
    with pytest.raises(SandboxStartError):
        executor.execute(ExecutionRequest(code="x = 1"))
    executor._pool.close()


def test_a_cancel_before_the_run_ends_it() -> None:
    """It is remembered until there is a sandbox."""
    sandbox = FakeSandbox()
    executor = serving(sandbox)
    cancellation = Cancellation()
    cancellation.cancel()
    result = executor.execute(ExecutionRequest(code="x = 1"), cancellation=cancellation)
    assert (result.status, result.output, result.metrics.wall_seconds) == (S.CANCELLED, "so far", 0.5)
    assert sandbox.destroyed.wait(5)
    executor._pool.close()


def test_a_cancel_during_the_run_ends_it() -> None:
    """From another thread; what was printed is kept."""
    sandbox = FakeSandbox()
    executor = serving(sandbox)
    cancellation = Cancellation()

    def cancel() -> None:
        assert sandbox.started.wait(5)
        cancellation.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    assert executor.execute(ExecutionRequest(code="x = 1"), cancellation=cancellation).status is S.CANCELLED
    thread.join()
    executor._pool.close()


def test_a_cancel_as_the_run_ends_raises_nothing() -> None:
    """The executor lets go of the sandbox between two looks of the thread that cancels."""

    class Ending(Cancellation):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name == "_sandbox":
                self.uncover()
            return found

    cancellation, sandbox = Ending(), FakeSandbox(reported())
    cancellation.cover(sandbox)
    cancellation.cancel()
    assert cancellation.requested


async def test_cancelling_the_awaiting_task_ends_the_sandbox() -> None:
    """And waits until it is destroyed, so that nothing runs on unseen."""
    sandbox = FakeSandbox()
    executor = serving(sandbox)
    running = asyncio.create_task(executor.execute_strategy("x = 1"))
    assert await asyncio.to_thread(sandbox.started.wait, 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sandbox.returned
    assert await asyncio.to_thread(sandbox.destroyed.wait, 5)
    executor._pool.close()


async def test_the_one_call_form_parses_its_arguments(executor: CodeExecutor) -> None:
    """A wrong one is the caller's error, not a result."""
    with pytest.raises(InvalidRequest, match=r"^timeout: "):
        await executor.execute_strategy("x = 1", timeout=61)


async def test_the_one_call_form_gives_the_result() -> None:
    """No data stands for an empty object."""
    sandbox = FakeSandbox(reported())
    executor = serving(sandbox)
    assert (await executor.execute_strategy("x = 1", seed=3)).success
    assert sandbox.asked == [("x = 1", b"{}", 5.0, 3)]
    executor._pool.close()


# One tenant's strategies in one sandbox.


def sharing(*outcomes: Ending | Exception | None) -> tuple[CodeExecutor, list[FakeSandbox]]:
    """Return an executor whose sandboxes serve three of one tenant, each of which ends so, and what it has made."""
    made: list[FakeSandbox] = []

    def make() -> FakeSandbox:
        made.append(FakeSandbox(outcomes[len(made) % len(outcomes)]))
        return made[-1]

    executor = CodeExecutor(CONFIG, warm=0)
    executor._pool = SandboxPool(make, 1, max_runs=3)
    return executor, made


def used(made: list[FakeSandbox]) -> list[int]:
    """Return how many strategies each sandbox has served that served any."""
    return [sandbox.runs for sandbox in made if sandbox.runs]


def run_as(executor: CodeExecutor, *tenants: str) -> None:
    """Run a strategy for each, one after the other, and close."""
    for tenant in tenants:
        executor.execute(ExecutionRequest(code="x = 1", user_id=tenant))
    executor._pool.close()


def test_the_operator_s_settings_reach_the_pool() -> None:
    """How many strategies a sandbox serves, and how old it may get."""
    executor = CodeExecutor(SandboxConfig(max_runs_per_container=3, max_age_seconds=7.0), warm=0)
    assert (executor._pool._max_runs, executor._pool._max_age_seconds) == (3, 7.0)
    executor.close()


def test_a_tenant_s_strategies_share_a_sandbox() -> None:
    """As many as it may serve; its runner is told of the last."""
    executor, made = sharing(reported())
    run_as(executor, *["ann"] * 4)
    assert used(made) == [3, 1]
    assert [sandbox.lasts for sandbox in made if sandbox.runs] == [[False, False, True], [False]]
    assert all(sandbox.destroyed.is_set() for sandbox in made)


def test_others_do_not() -> None:
    """Neither two tenants, nor two strategies of nobody."""
    executor, made = sharing(reported())
    run_as(executor, "ann", "bob", "ann", "", "")
    assert sorted(used(made)) == [1] * 5
    assert [sandbox.lasts for sandbox in made if sandbox.runs] == [[False]] * 3 + [[True]] * 2


def truncated() -> Ending:
    """Return the ending of a strategy that succeeded, and printed more than is kept."""
    ending = reported(truncated=True)
    ending.truncated = True
    return ending


@pytest.mark.parametrize(
    "ending",
    [
        reported(exit_code=1),
        reported(exit_code=3),
        reported(exit_code=None, signal=11),
        reported(exit_code=None, signal=9, timed_out=True),
        reported(timed_out=True),
        reported(oom_kills=1),
        truncated(),
        refused_inside(),
        refused_inside(exit_code=0),
        Ending(how=How.BABBLED),
        Ending(how=How.OVERDUE),
        Ending(how=How.VANISHED, exit_code=137),
    ],
    ids=[
        "exception",
        "exit code 3",
        "signal",
        "deadline",
        "deadline and exit code 0",
        "a child out of memory",
        "output cut",
        "violations",
        "violations and exit code 0",
        "babble",
        "overdue",
        "vanished",
    ],
)
def test_after_anything_but_a_clean_end_the_sandbox_is_destroyed(ending: Ending) -> None:
    """The tenant's next strategy gets another one."""
    executor, made = sharing(ending)
    run_as(executor, "ann", "ann")
    assert used(made) == [1, 1]
    assert all(sandbox.destroyed.is_set() for sandbox in made)


def test_after_trouble_with_the_engine_the_sandbox_is_destroyed() -> None:
    """Nobody knows what state it is in."""
    executor, made = sharing(SandboxLost("gone"), reported())
    with pytest.raises(SandboxLost):
        executor.execute(ExecutionRequest(code="x = 1", user_id="ann"))
    run_as(executor, "ann")
    assert used(made) == [1, 1]


def test_after_a_cancel_the_sandbox_is_destroyed() -> None:
    """Even where the strategy ended well at the same moment: its connection is shut."""
    executor, made = sharing(reported())
    cancellation = Cancellation()
    cancellation.cancel()
    assert executor.execute(ExecutionRequest(code="x = 1", user_id="ann"), cancellation=cancellation).success
    run_as(executor, "ann")
    assert used(made) == [1, 1]
