"""What runs in the forked child: exit codes, the strategy's own frames, and an explanation that always fits."""

from __future__ import annotations

import io
import json
import linecache
import mmap
import random
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.sandbox import strategy
from worker.sandbox.strategy import EXPLANATION_BYTES, STRATEGY_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a strategy's process changes for good in its interpreter."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", sys.argv)
    yield
    linecache.cache.pop(STRATEGY_FILE, None)


def explained(source: str) -> tuple[int, dict[str, Any]]:
    """Run a strategy; return its exit code and its explanation, `{}` without one."""
    with mmap.mmap(-1, EXPLANATION_BYTES) as explanation:
        code = strategy.execute(source, explanation)
        raw = explanation[:].partition(b"\0")[0]
    return code, json.loads(raw.decode("ascii")) if raw else {}


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("", 0),
        ("x = 1", 0),
        ("raise SystemExit", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(None)", 0),
        ("import sys; sys.exit(0)", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit(255)", 255),
        ("import sys; sys.exit(256)", 0),
        ("import sys; sys.exit(-1)", 255),
        ("import sys; sys.exit(True)", 1),
        ("import sys; sys.exit(2**70 + 5)", 5),
    ],
)
def test_exit_codes_are_those_of_python(source: str, code: int) -> None:
    """Cut to a byte as the kernel does; leaving is no exception to explain."""
    assert explained(source) == (code, {})


@pytest.mark.usefixtures("child")
def test_leaving_with_a_reason_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """`sys.exit("why")` is exit code 1 and the reason."""
    code, detail = explained("import sys\nsys.exit('no data')\n")
    assert (code, detail["type"], detail["message"], detail["line"]) == (1, "SystemExit", "no data", 2)
    assert "SystemExit: no data" in capsys.readouterr().err


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("kind", ["ValueError", "KeyboardInterrupt", "GeneratorExit", "MemoryError", "RecursionError"])
def test_every_exception_is_explained(kind: str) -> None:
    """Those that no `except Exception` sees included."""
    code, detail = explained(f"x = 1\nraise {kind}('no')\n")
    assert (code, detail["type"], detail["message"], detail["line"]) == (1, kind, "no", 2)


@pytest.mark.usefixtures("child")
def test_traceback_shows_the_strategy_s_own_frames(capsys: pytest.CaptureFixture[str]) -> None:
    """With its source lines, and neither the runner above nor the library below; the same on stderr."""
    source = "import json\ndef parse(text):\n    return json.loads(text)\n\nparse('{')\n"
    _, detail = explained(source)
    assert detail["line"] == 3
    assert detail["traceback"].startswith("Traceback (most recent call last):\n")
    assert [line for line in detail["traceback"].splitlines() if line.startswith("  File")] == [
        '  File "strategy.py", line 5, in <module>',
        '  File "strategy.py", line 3, in parse',
    ]
    assert "    return json.loads(text)\n" in detail["traceback"]
    assert capsys.readouterr().err == detail["traceback"]


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("how", ["raise RuntimeError('b') from exc", "raise RuntimeError('b')"])
def test_causes_show_own_frames_too(how: str) -> None:
    """The exception it was raised from is cut as well."""
    source = f"import json\ntry:\n    json.loads('x')\nexcept ValueError as exc:\n    {how}\n"
    _, detail = explained(source)
    files = [line for line in detail["traceback"].splitlines() if line.startswith("  File")]
    assert files == ['  File "strategy.py", line 3, in <module>', '  File "strategy.py", line 5, in <module>']
    assert (detail["type"], detail["line"]) == ("RuntimeError", 5)


@pytest.mark.usefixtures("child")
def test_members_of_a_group_show_own_frames_only() -> None:
    """The paths of the library are nobody's business there either."""
    source = "import json\ntry:\n    json.loads('x')\nexcept ValueError as exc:\n    raise ExceptionGroup('g', [exc])\n"
    _, detail = explained(source)
    assert detail["type"] == "ExceptionGroup"
    assert "decoder.py" not in detail["traceback"]


def test_own_frames_drops_all_others() -> None:
    """Of an exception with no frame of the strategy nothing but its name is left."""
    try:
        json.loads("x")
    except ValueError as exc:
        report = strategy._own_frames(traceback.TracebackException.from_exception(exc))
    assert list(report.stack) == []
    assert "".join(report.format()).startswith("json.decoder.JSONDecodeError: ")


@pytest.mark.usefixtures("child")
def test_a_syntax_error_names_its_line() -> None:
    """There is no frame to name it."""
    code, detail = explained("x = 1\ny = = 2\n")
    assert (code, detail["type"], detail["line"]) == (1, "SyntaxError", 2)


@pytest.mark.usefixtures("child")
def test_the_strategy_is_main() -> None:
    """It sees itself as a program would, and nothing of the runner."""
    source = "x = 1\nimport __main__, sys\nassert __name__ == '__main__'\nassert __main__.x == 1\n"
    assert explained(source + "assert sys.argv == ['strategy.py']\n") == (0, {})


@pytest.mark.usefixtures("child")
def test_the_runner_s_future_imports_are_not_the_strategy_s() -> None:
    """Annotations are evaluated, as in a file of its own."""
    assert explained("def f(a: 1 + 1): pass\nassert f.__annotations__ == {'a': 2}\n") == (0, {})


HOSTILE = st.text(st.characters(), max_size=30) | st.sampled_from(["\ud800", "😀", "\x01", '"', "\\", "\n", "é"])
#: A class cannot be called by these.
NAMES = HOSTILE.map(lambda text: text.encode(errors="ignore").decode().replace("\0", "") or "E")


@pytest.mark.usefixtures("child")
@given(name=NAMES, message=HOSTILE, times=st.sampled_from([1, 10, 3_000]))
@example(name="é", message="\udfff", times=3_000)
@example(name="😀", message="😀", times=3_000)
@example(name="\x01", message='"', times=3_000)
@settings(max_examples=50, deadline=None)
def test_explanation_fits_whatever_the_message(name: str, message: str, times: int) -> None:
    """Whole JSON within its bound, in ASCII, with type and message: never cut in the middle."""
    source = f"raise type({name!r} * {times}, (Exception,), {{}})({message!r} * {times})"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", io.StringIO())
        code, detail = explained(source)
    assert code == 1
    assert detail["type"] == (name * times)[: strategy.MAX_NAME_CHARS]
    assert detail["message"] == (message * times)[: strategy.MAX_MESSAGE_CHARS]
    assert detail["line"] == 1


def test_room_for_the_explanation_is_what_one_report_can_quote() -> None:
    """The worst name and message, without a traceback, fit."""
    worst = {"type": "😀" * strategy.MAX_NAME_CHARS, "message": "😀" * strategy.MAX_MESSAGE_CHARS}
    assert len(json.dumps({**worst, "line": 2**31, "traceback": ""})) <= EXPLANATION_BYTES
    assert strategy.TRACEBACK_CHARS[-1] == 0


@pytest.mark.usefixtures("child")
def test_a_long_traceback_keeps_its_end() -> None:
    """What went wrong stands at the end."""
    source = "def f(n):\n    raise ValueError('x' * 1900) if n == 0 else f(n - 1)\n" + "\n".join(
        f"def g{n}(): {f'g{n + 1}()' if n < 300 else '1 / 0'}" for n in range(301)
    )
    _, detail = explained(source + "\ng0()\n")
    assert detail["type"] == "ZeroDivisionError"
    assert len(detail["traceback"]) == strategy.TRACEBACK_CHARS[0]
    assert detail["traceback"].endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("body", ["raise ValueError", "raise SystemExit(0)", "return 1", "while True: raise OSError"])
def test_an_exception_that_cannot_be_read_is_explained(body: str) -> None:
    """Its `__str__` raises, leaves or lies: the exit code stays 1."""
    code, detail = explained(f"class E(Exception):\n    def __str__(self):\n        {body}\nraise E\n")
    assert (code, detail["type"]) == (1, "E")
    assert detail["message"] == "<the exception has no readable message>"


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("spoiled", ["object()", "open('/dev/null')"])
def test_an_exception_is_explained_without_stderr(monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    """The strategy closed or replaced it."""
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    code, detail = explained(f"import sys\nstream = sys.stderr = {spoiled}\n1 / 0\n")
    assert (code, detail["type"], detail["line"]) == (1, "ZeroDivisionError", 3)
    if hasattr(sys.stderr, "close"):
        sys.stderr.close()


@pytest.mark.usefixtures("child")
def test_a_traceback_never_lands_in_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is the strategy's answer, whatever it did to its standard error."""
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    explained("import sys\nsys.stderr = None\n1 / 0\n")
    assert capsys.readouterr().out == ""


# Generators.


def draw(seed: int | None) -> list[float]:
    """Return what a strategy would draw first."""
    strategy.reseed(seed)
    return [random.random() for _ in range(3)]


def test_a_seed_fixes_the_draws() -> None:
    """The same seed gives the same numbers, another gives others."""
    state = random.getstate()
    try:
        assert draw(7) == draw(7) != draw(8)
        assert draw(0) == draw(0)
    finally:
        random.setstate(state)


class FakeRandom:
    """Stands for numpy's global generator, which the test environment need not have."""

    def __init__(self) -> None:
        self.random = self
        self.seeds: list[int] = []

    def seed(self, value: int) -> None:
        """Note a seed."""
        self.seeds.append(value)


def test_numpy_is_always_reseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork inherits its state: without a seed of its own, every strategy would draw the same."""
    numpy = FakeRandom()
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    monkeypatch.setitem(sys.modules, "numpy.random", numpy)
    state = random.getstate()
    for seed in (0, 7, None, None):
        strategy.reseed(seed)
    random.setstate(state)
    assert numpy.seeds[:2] == [0, 7]
    assert numpy.seeds[2] != numpy.seeds[3]
    assert all(0 <= seed < 2**32 for seed in numpy.seeds)


def test_what_nobody_has_imported_is_not_imported_for_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one when it is imported; a seed that was asked for it must be given."""
    numpy = FakeRandom()
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    monkeypatch.delitem(sys.modules, "numpy.random", raising=False)
    state = random.getstate()
    for seed in (None, 7):
        strategy.reseed(seed)
    random.setstate(state)
    assert numpy.seeds == [7]


# The whole, in a process of its own.

#: As in the image, where the module needs nothing but the standard library.
PROGRAM = """
import mmap, sys
sys.path.insert(0, sys.argv[1])
import strategy
strategy.open_streams()
strategy.run(7, sys.argv[2], mmap.mmap(-1, strategy.EXPLANATION_BYTES))
"""


def alone(source: str) -> subprocess.CompletedProcess[bytes]:
    """Run a strategy in a process of its own."""
    command = [sys.executable, "-S", "-c", PROGRAM, str(Path(strategy.__file__).parent), source]
    return subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("source", "code"),
    [("x = 1", 0), ("import sys; sys.exit(3)", 3), ("1 / 0", 1)],
)
def test_the_process_leaves_with_the_exit_code(source: str, code: int) -> None:
    """And nothing else runs on the way out."""
    done = alone(f"import atexit; atexit.register(print, 'clean-up')\n{source}")
    assert (done.returncode, done.stdout) == (code, b"")


def test_an_exception_whose_class_lies_about_its_name_is_exit_code_1() -> None:
    """Even when explaining it fails."""
    source = "class M(type):\n __name__ = property(lambda c: 1 / 0)\nclass E(Exception, metaclass=M): pass\nraise E\n"
    assert alone(source).returncode == 1


def test_what_was_printed_survives_a_kill() -> None:
    """Nothing waits in a buffer, line ends or not."""
    done = alone("import os, sys\nprint('a', end='')\nsys.stderr.write('b')\nos.kill(os.getpid(), 9)\n")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, b"a", b"b")


def test_text_without_a_utf_8_form_can_be_printed() -> None:
    """A lone surrogate is written as an escape, never an exception; all else is UTF-8 whatever the locale."""
    done = alone("import sys\nprint('\\ud800é')\nprint('\\udfff', file=sys.stderr)\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\ud800é\n".encode(), b"\\udfff\n")


def test_input_is_at_its_end() -> None:
    """A strategy that asks gets an EOFError, not a wait."""
    assert alone("try: input()\nexcept EOFError: print('none')\n").stdout == b"none\n"
