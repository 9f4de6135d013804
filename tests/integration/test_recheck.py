"""The second check, in real containers: a sandbox of another Python than the worker's has its own grammar."""

from __future__ import annotations

import platform
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tasks import ExecutionLimits, ExecutionRequest, ExecutionStatus
from tasks.policy import DEFAULT_POLICY
from tasks.validator import ASTValidator
from worker import CodeExecutor, SandboxConfig
from worker.sandbox.container import How, Sandbox
from worker.verdict import classify

if TYPE_CHECKING:
    from worker.sandbox.container import Ending

#: Python 3.12 reads all of it, 3.11 none.
MODERN = """
import json
import numpy as np

type Prices = list[float]

def last[T](items: list[T]) -> T:
    return items[-1]

class Window[T]:
    def __init__(self, items: list[T]) -> None:
        self.items = items

closes: Prices = json.load(open('/workspace/data.json'))['close']
row = {'mean': float(np.mean(Window(closes).items))}
print(f"{row['mean']:.2f} {f'{last(closes)}'} {f"{'nested'!r}"}")
"""
#: Read by 3.12 and later only, and hostile there: rule, line and column of what is refused.
HOSTILE = [
    ("x = {'a': 1}\nprint(f'{x['a']} {().__class__}')\n", ("R3", 2, 22)),
    ("x = {'a': 1}\nprint(f'{x['a']} {eval('1')}')\n", ("R6", 2, 19)),
    ("type X = int\ntype Y = ().__class__\n", ("R3", 2, 13)),
    ("type X = __import__('os').system('id')\n", ("R6", 1, 10)),
    ("def f[T: __import__('os')](x: T) -> T:\n    return x\n", ("R6", 1, 10)),
    ("def f[T](x: T) -> T:\n    return x\n\nprint(f.__code__)\n", ("R3", 4, 9)),
    ("class A[T: (eval, int)]:\n    pass\n", ("R6", 1, 13)),
    ("type X = int\nimport os\n", ("R2", 2, 8)),
]


@pytest.fixture(scope="module", autouse=True)
def _modern_image(executor_image: str) -> None:
    """These tests are about a grammar that the image must have."""
    sandbox = Sandbox(SandboxConfig(image=executor_image))
    sandbox.destroy()
    assert tuple(map(int, sandbox.python_version.split(".")[:2])) >= (3, 12)


def test_modern_syntax_runs(executor: CodeExecutor) -> None:
    """Whatever Python the worker has; and its numbers are right."""
    result = executor.execute(ExecutionRequest(code=MODERN, data={"close": [1.5, 2.5, 5]}))
    assert result.success, result.error
    assert result.output == "3.00 5 'nested'\n"


@pytest.mark.parametrize(("code", "expected"), HOSTILE)
def test_modern_syntax_hides_nothing(executor: CodeExecutor, code: str, expected: tuple[str, int, int]) -> None:
    """The policy reads what the sandbox would run; and nothing of it has run."""
    result = executor.execute(ExecutionRequest(code="print('has run')\n" + code))
    assert result.status is ExecutionStatus.REJECTED
    rule, line, column = expected
    assert (rule, line + 1, column) in [(found.rule, found.line, found.column) for found in result.violations]
    assert all(found.hint for found in result.violations)
    assert result.error is not None
    assert result.error.type == "PolicyViolation"
    assert (result.output, result.exit_code, result.signal) == ("", None, None)


def test_what_no_python_reads_is_a_syntax_error(executor: CodeExecutor) -> None:
    """With the place; and the next strategy is unharmed."""
    result = executor.execute(ExecutionRequest(code="print('has run')\nx = = 1\n"))
    assert result.status is ExecutionStatus.REJECTED
    assert [(found.rule, found.line, found.column) for found in result.violations] == [("R0", 2, 5)]
    assert "syntax error" in str(result.error)
    assert executor.execute(ExecutionRequest(code="print(1)")).output == "1\n"


def test_without_a_validator_nothing_is_checked(bare_executor: CodeExecutor) -> None:
    """Neither here nor there: the container is the boundary."""
    code = "type X = int\nx = {'a': ().__class__}\nprint(f'{x['a']}')\n"
    assert bare_executor.execute(ExecutionRequest(code=code)).output == "<class 'tuple'>\n"


def test_what_the_operator_allows_passes_in_the_sandbox_too() -> None:
    """A module beyond the policy that the image has; the sandbox is told."""
    policy = DEFAULT_POLICY.extended({"textwrap": ["dedent"]})
    code = "import textwrap\ntype X = int\nprint(textwrap.dedent('  a'))\n"
    with CodeExecutor(validator=ASTValidator(policy), warm=0) as executor:
        assert executor.execute(ExecutionRequest(code=code)).output == "a\n"
        refused = executor.execute(ExecutionRequest(code=f"{code}textwrap.indent('a', ' ')\n"))
    assert [(found.rule, found.line) for found in refused.violations] == [("R7", 4)]


@pytest.mark.parametrize(("check", "rules"), [({"textwrap": ["dedent"]}, []), ({"textwrap": []}, ["R7"]), ({}, ["R2"])])
def test_the_sandbox_allows_what_it_is_told(check: dict[str, list[str]], rules: list[str]) -> None:
    """These modules and names for this one check, no others: asked directly, whatever Python the worker has."""
    sandbox = Sandbox(SandboxConfig())
    try:
        ending = sandbox.run("import textwrap\nprint(textwrap.dedent('  a'))\n", b"{}", 20.0, check=check)
    finally:
        sandbox.destroy()
    assert ending.how is How.REPORTED
    assert [found.rule for found in ending.violations] == rules
    assert ending.stdout.decode() == ("" if rules else "a\n")


def test_the_worker_knows_the_sandbox_s_standard_library(bare_executor: CodeExecutor) -> None:
    """What the sandbox's Python would refuse as another module, the worker refuses when it reads its settings."""
    result = bare_executor.execute(ExecutionRequest(code="import sys\nprint(*sorted(sys.stdlib_module_names))"))
    names = [name for name in result.output.split() if not name.startswith("_")]
    assert len(names) > 150
    for name in names:
        with pytest.raises(ValueError, match=r"is another module|leads out"):
            DEFAULT_POLICY.extended({"scipy": [name]})


# What happens when the check itself ends badly. Asked of the sandbox directly: a worker of the same Python would not.


def checked(code: str, timeout: float = 20.0, config: SandboxConfig | None = None) -> Ending:
    """Have a sandbox check and run `code`."""
    sandbox = Sandbox(config or SandboxConfig())
    try:
        return sandbox.run(code, b"{}", timeout, check={})
    finally:
        sandbox.destroy()


class Tampered(SandboxConfig):
    """Sandboxes whose runner begins with other statements."""

    statements: str

    def container_spec(self, owner: str) -> dict[str, Any]:
        """Replace the program, not what holds it."""
        imports = "import dataclasses, os, signal\nfrom worker.sandbox import channel, check, frames, runner, standby"
        program = f"{imports}\n{textwrap.dedent(self.statements)}\nrunner.main()\n"
        return {**super().container_spec(owner), "Entrypoint": ["/python", "-s", "-P", "-c", program]}


@pytest.mark.parametrize(
    "death",
    [
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "os.abort()",
        "os._exit(3)",
        "os._exit(0)",
        "1 / 0",
        "os.write(standby.WORD_FD, b'?') and os._exit(0)",
        "os.close(standby.WORD_FD) or os._exit(0)",
        "verdict.write(b'[') and os.kill(os.getpid(), signal.SIGSEGV)",
    ],
)
def test_a_parser_that_dies_is_a_rejection(death: str) -> None:
    """Nothing runs that nobody has read to its end."""
    config = Tampered(statements=f"check.run = lambda extra_modules, source, verdict: {death}")
    ending = checked("print('has run')", config=config)
    result = classify(ending, 20, config)
    assert result.status is ExecutionStatus.REJECTED
    assert [(found.rule, found.line) for found in result.violations] == [("R0", 1)]
    assert "could not be parsed" in str(result.error)
    assert result.output == ""


@pytest.mark.parametrize("scribble", [b"[", b"[]", b"{}", b"\xff" * 10, b"x" * 256 * 1024, b"[" * 256 * 1024])
def test_a_checker_that_was_taken_over_gets_nothing_run(scribble: bytes) -> None:
    """What it scribbles is a verdict in the right shape, or the end of the conversation."""
    first, length = scribble[:2], len(scribble)
    act = f"verdict.write(({first!r} * {length})[:{length}]) and os._exit(0)"
    config = Tampered(statements=f"check.run = lambda extra_modules, source, verdict: {act}")
    ending = checked("print('has run')", config=config)
    assert ending.how is How.BABBLED
    assert classify(ending, 20, config).status is ExecutionStatus.CRASHED
    assert not ending.stdout


#: In the process that checks, before it has found anything: where it may write, and what it would say there.
LOUD = """
    control = {os.fstat(fd).st_ino for fd in range(3)}

    def run(extra_modules, source, verdict):
        held = [int(name) for name in os.listdir('/proc/self/fd')][:-1]  # the last is of this very look
        mine = [fd for fd in held if os.fstat(fd).st_ino in control]
        token = 'f' * 32
        for kind, message in ((21, token), (17, 'forged'), (19, '{"exit_code": 0, "token": "%s"}' % token), (20, '[]')):
            frame = bytes([kind]) + len(message).to_bytes(4, 'big') + message.encode()
            for fd in range(16):
                # But for the word, whose meaning has tests of its own.
                if fd != standby.WORD_FD:
                    try: os.write(fd, frame)
                    except OSError: pass
        ENDING

    check.run = run
"""


def test_a_check_reaches_no_control_channel() -> None:
    """It has its own streams, its data and the ends of two pipes; what it says there is not passed on."""
    told = "text=repr((held, mine)))]))"
    ending = checked(
        "print('has run')",
        config=Tampered(
            statements=LOUD.replace(
                "ENDING",
                f"verdict.write(check.encode([dataclasses.replace(check.UNREADABLE, {told}\n        os._exit(0)",
            )
        ),
    )
    assert ending.how is How.REPORTED
    (found,) = ending.violations
    assert found.text == "([0, 1, 2, 3, 4, 5], [])"
    assert not ending.stdout + ending.stderr
    assert ending.report is not None
    assert ending.report.token == "", "nothing was started"


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGSEGV)", "verdict.write(b'[')", "1 / 0"])
def test_nothing_that_a_check_says_gets_out_before_its_source_may_run(end: str) -> None:
    """However it ends: output, a start of its own, a report; the source is refused, and that is all."""
    config = Tampered(statements=LOUD.replace("ENDING", f"{end}\n        os._exit(3)"))
    ending = checked("print('has run')", config=config)
    result = classify(ending, 20, config)
    assert (result.status, result.output, result.stderr) == (ExecutionStatus.REJECTED, "", "")
    assert [found.rule for found in result.violations] == ["R0"]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", ExecutionStatus.CRASHED),
        ("os.read(standby.GATE_FD, 8) and os.kill(os.getpid(), signal.SIGSEGV)", ExecutionStatus.CRASHED),
        ("os.read(standby.GATE_FD, 8) and os._exit(7)", ExecutionStatus.FAILED),
    ],
)
def test_a_check_that_says_clean_gets_the_verdict_of_its_own_end(end: str, status: ExecutionStatus) -> None:
    """One that was taken over is what a hostile strategy is: the runner sees how it ends, and believes nothing else."""
    act = f"os.write(standby.WORD_FD, b'c') and {end}"
    config = Tampered(statements=f"check.run = lambda extra_modules, source, verdict: {act}")
    result = classify(checked("print('has run')", config=config), 20, config)
    assert (result.status, result.output) == (status, "")


def test_what_a_check_says_before_it_says_clean_is_the_strategy_s_output() -> None:
    """Frames of its own are text, and the verdict is still that of its end."""
    statements = LOUD.replace(
        "ENDING", "os.write(standby.WORD_FD, b'c')\n        os.read(standby.GATE_FD, 8)\n        os._exit(7)"
    )
    config = Tampered(statements=statements)
    ending = checked("print('has run')", config=config)
    assert classify(ending, 20, config).status is ExecutionStatus.FAILED
    assert b"forged" in ending.stdout
    assert b"has run" not in ending.stdout


def test_the_deadline_covers_the_check() -> None:
    """A source that takes long to read is not read for longer than it may run."""
    code = "x = [" + "1, " * 80_000 + "]\n"
    ending = checked(code, timeout=0.01)
    assert ending.report is not None
    assert ending.report.timed_out
    assert classify(ending, 0.01, SandboxConfig()).status is ExecutionStatus.TIMED_OUT


def test_memory_that_runs_out_while_reading_is_out_of_memory() -> None:
    """The kernel kills the process that checks, and the runner lives to say so."""
    config = SandboxConfig(limits=ExecutionLimits(memory_bytes=96 * 2**20))
    ending = checked("x = [" + "a," * 120_000 + "]\n", config=config)
    result = classify(ending, 20, config)
    assert result.status is ExecutionStatus.OUT_OF_MEMORY
    assert result.violations == ()


def test_violations_nobody_asked_for_end_the_conversation() -> None:
    """With no check there is no verdict of one: a runner that was taken over cannot reject."""
    act = "channel.send(frames.Frame.VIOLATIONS, check.encode([check.UNREADABLE]))"
    sandbox = Sandbox(Tampered(statements=f"runner.serve = lambda *_: {act}"))
    try:
        assert sandbox.run("print(1)", b"{}", 5.0).how is How.BABBLED
    finally:
        sandbox.destroy()


def test_the_sandbox_tells_its_python() -> None:
    """By which the worker knows whose grammar counts."""
    sandbox = Sandbox(SandboxConfig())
    try:
        ending = sandbox.run("import platform\nprint(platform.python_version())", b"{}", 10.0)
    finally:
        sandbox.destroy()
    assert ending.stdout.decode().strip() == sandbox.python_version
    assert platform.python_version_tuple()[0] == sandbox.python_version[0]
