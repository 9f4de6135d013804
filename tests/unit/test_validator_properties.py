"""Generated programs: whatever is put together, the validator answers, soundly, soon, and without doing anything."""

from __future__ import annotations

import itertools
import textwrap
import time
import warnings
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from validator_properties import Broken, check

from tasks.validator import ASTValidator, ValidationReport

if TYPE_CHECKING:
    from collections.abc import Callable

VALIDATOR = ASTValidator()
HEADER = "import math\nimport numpy as np\nimport pandas as pd\nx = y = items = df = fn = 1\n"

HONEST_ATOMS = ("1", "0.5", "'close'", "None", "x", "y", "items", "df['close']", "np.nan", "pd.Series([1])", "math.pi")
HOSTILE_ATOMS = (
    "eval", "().__class__", "'__globals__'", "x._mgr", "x.gi_frame", "np", "np.random", "np.load", "pd.io", "missing",
    "__builtins__", "open('/etc/passwd')", "df.query('a')", "df.agg('to_pickle')", "'{0.real}'.format(1)", "type",
    "(yield)", "(await x)", "super", "b'__init__'", "pd.read_csv", "df.to_csv", "x.os", "x.mro()",
)  # fmt: skip
# What the parser takes, and a compiler only in some places or nowhere.
ILLEGAL_ATOMS = (
    "1", "[*x]", "(lambda a, b: a)", "[i for i in x]", "fn(a=1, **y)", "(yield)", "(await x)", "(lambda a, a: 1)",
    "fn(a=1, a=2)", "fn(__debug__=1)", "[i := 1 for i in x]", "[i async for i in x]", "(lambda: (yield))",
)  # fmt: skip
ILLEGAL_STATEMENTS = (
    "x = {}", "x: {} = 1", "def f(a, a={}):\n    pass", "def f(a={}):\n    pass", "class A(fn({})):\n    pass",
    "@fn({})\ndef f():\n    pass", "x = f\"\"\"\n{{{}}}\n\"\"\"", "return {}", "break", "continue", "global x",
    "nonlocal x", "from math import *", "from __future__ import annotations", "x = *items", "x.__debug__ = {}",
    "def __debug__():\n    pass", "try:\n    {}\nexcept:\n    pass\nexcept ValueError:\n    pass",
    "match {}:\n    case a:\n        pass\n    case b:\n        pass",
)  # fmt: skip
PLACES = (
    "{body}", "    x = 1\n{body}", "def f(x):\n{body}", "def f():\n    x = 1\n    def g():\n{body2}",
    "class A:\n{body}", "class A:\n    def m(self):\n{body2}", "def f():\n    class A:\n{body2}", "for i in x:\n{body}",
    "def f():\n    for i in x:\n{body2}", "if x:\n{body}", "with x:\n{body}", "async def f():\n{body}",
    "try:\n    pass\nfinally:\n{body}",
)  # fmt: skip
EXPRESSIONS = (
    "({} + {})", "fn({}, key={})", "[{}, *{}]", "{{{}: {}}}", "(lambda a={}: {})", "[i for i in {} if {}]",
    "({}).mean({})", "({})[{}:]", 'f"{{{}}} {{{}!r:>4}}"', "({} if {} else 0)", "(n := {}) < {}", "fn(*{}, **{})",
    "(not ({} or {}))",
    "np.where({}, {}, 0)", "df.apply(lambda row: {}, axis={})",
)  # fmt: skip
STATEMENTS = (
    "value = {}", "x += {}", "items[{}] = 1", "print({})", "assert {}", "del items[{}]", "value: {} = 1",
    "raise ValueError({})",
    "if {}:\n{body}", "while {}:\n{body}", "for i in {}:\n{body}", "with fn({}) as handle:\n{body}",
    "try:\n{body}\nexcept ValueError as error:\n    print({})", "def f(a, b={}):\n{body}", "@fn({})\ndef g():\n{body}",
    "class A(Exception):\n    field = {}\n    def m(self):\n        self.v = 1\n{body2}",
    "match {}:\n    case [a, *_] if a:\n{body2}",
)  # fmt: skip


def expressions(atoms: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Expressions of every kind, down to the given atoms."""
    return st.recursive(
        st.sampled_from(atoms),
        lambda inner: st.tuples(st.sampled_from(EXPRESSIONS), inner, inner).map(lambda it: it[0].format(it[1], it[2])),
        max_leaves=6,
    )


def programs(atoms: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Programs of every kind of statement, nested, with the given atoms in every place that takes an expression."""
    values = expressions(atoms)
    simple = values.map("print({})".format)
    bodies = st.recursive(
        st.lists(st.tuples(st.sampled_from(STATEMENTS), values, simple).map(_fill), min_size=1, max_size=4).map(
            "\n".join
        ),
        lambda inner: st.tuples(st.sampled_from(STATEMENTS), values, inner).map(_fill),
        max_leaves=4,
    )
    return bodies.map(lambda body: f"{HEADER}{body}\n")


def _is_legal(code: str) -> bool:
    """Whether this Python takes it: an older one has no f-strings within f-strings of the same quotes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "generated", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _fill(parts: tuple[str, str, str]) -> str:
    template, value, body = parts
    return template.format(value, body=_indented(body, 1), body2=_indented(body, 2))


def _indented(text: str, levels: int) -> str:
    return "\n".join("    " * levels + line for line in text.split("\n"))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(programs(HONEST_ATOMS + HOSTILE_ATOMS))
def test_any_program_gets_a_sound_report(code: str) -> None:
    """It never raises, executes, imports or opens; the same text gets the same report, which is well formed."""
    check(VALIDATOR, code)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(programs(HONEST_ATOMS).filter(_is_legal))
def test_a_program_of_honest_parts_is_accepted(code: str) -> None:
    """No way of putting plain parts together is refused."""
    assert check(VALIDATOR, code).violations == ()


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    programs(HONEST_ATOMS).filter(_is_legal),
    st.sampled_from(["eval", "().__class__", "x.gi_frame", "np.load", "missing", "x._mgr"]),
)
def test_one_hostile_line_is_found_in_any_program(code: str, hostile: str) -> None:
    """What stands before it hides nothing."""
    report = check(VALIDATOR, f"{code}print({hostile})\n")
    assert {violation.line for violation in report.violations} == {code.count("\n") + 1}


@pytest.mark.parametrize("place", PLACES)
def test_what_the_compiler_refuses_is_refused(place: str) -> None:
    """No more and no less, although most code is never compiled."""
    for statement, atom in itertools.product(ILLEGAL_STATEMENTS, ILLEGAL_ATOMS):
        code = textwrap.dedent(_fill((place, "", statement.format(atom))))
        messages = [violation.message for violation in VALIDATOR.validate(code).violations]
        assert any(message.startswith("syntax error") for message in messages) is not _is_legal(code), code


def test_what_crashes_the_compiler_is_left_to_the_container() -> None:
    """So many comprehensions within each other end the process, in some Pythons: nothing may be compiled then."""
    deep = "[" * 30 + "1" + " for i in range(1)]" * 30
    assert check(VALIDATOR, f"x = {deep}\nreturn x\n")


@pytest.mark.parametrize(
    "line",
    [
        "x = 1",
        "x = eval",
        "x.y.z = x.y.z",
        "x = 'a' + 'b' + '__class__'",
        "x = f'{x}{x!r}'",
        "import numpy as np",
        "print(np.load)",
        "df.agg({'a': 'b'})",
        "def f(a, b=1): pass",
        "class A: pass",
        "for i in x: pass",
        "x = [i for i in x]",
        "'{}'.format(x)",
        "é = é",
    ],
)
def test_time_grows_with_the_length(line: str) -> None:
    """Eight times the lines take about eight times as long; quadratic would be sixty-four."""
    short, long = (f"{line}\n" * lines for lines in (400, 3200))
    assert _fastest(long) < 24 * _fastest(short)


# Many of these took from three seconds to five minutes once, and none may: nothing can interrupt the parser.
_ACCENTS = "\u0301\u0316" * 60_000
_ALIASES = [f"a{number}" for number in range(4_500)]
_IMPORTED = "from enum import " + ",".join(f"Enum as {name}" for name in _ALIASES)
LABORIOUS = {
    "accents": f"x{_ACCENTS} = 1\n",
    "halfwidth marks": "x" + "\uff9e\u0301" * 40_000 + " = 1\n",
    "braces of an f-string": "x = f'''" + "{a}" * 80_000 + "'''\n",
    "late imports of the future": "\n" * 130_000 + "from __future__ import annotations\n" * 3_700,
    "guarded aliases": f"{_IMPORTED}\nx = [{','.join(_ALIASES)}]\n",
    "guarded arguments": f"{_IMPORTED}\ndef f({','.join(_ALIASES)}):\n    return [{','.join(_ALIASES)}]\n",
    "a long module": f"from {'a' * 100_000} import {','.join(['b'] * 70_000)}\n",
    "an enumeration of many bases": (
        "from enum import Enum as E\n"
        + "".join(f"class A{number}(E): pass\n" for number in range(4_000))
        + f"class Z({','.join(f'A{number}' for number in range(4_000))}):\n"
        + "".join(f" b{number} = f\n" for number in range(4_000))
    ),
    "a long line": f"é = 1; '{'é' * 50_000}';{'eval;' * 25_000}\n",
    "equal hashes": "with a:\n x = y in {" + ",".join(str(k * (2**61 - 1) + 1) for k in range(1, 10_000)) + "}\n",
    "nested types": ("x: " + "a[" * 95 + "b" + "]" * 95 + "\n") * 800,
    "comparisons": f"x = {'type(a) is ' * 23_000}a\n",
    "decorators": "@a\n" * 80_000 + "def f(): pass\n",
    "targets": "a, b = " * 30_000 + "1\n",
}


@pytest.mark.parametrize("code", LABORIOUS.values(), ids=LABORIOUS)
def test_no_source_keeps_the_validator_busy(code: str) -> None:
    """Whatever fits into the size limit gets its report within seconds of processor time."""
    assert len(code.encode()) <= VALIDATOR.policy.max_code_bytes
    started = time.process_time()
    VALIDATOR.validate(code)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("code", ["# {}\n", "x = '{}'\n", "x = 1  # 价格{}\n", "'''{}'''\n"])
def test_text_in_any_language_is_accepted(code: str) -> None:
    """Only an absurd number of accents on one letter is refused, with a message that says so."""
    for text in ("策略" * 5_000, "Việt Nam" * 1_000, "e\u0301" * 5_000, "カ\u3099" * 5_000, "ﾟ" * 100):
        assert VALIDATOR.validate(code.format(text)), text[:10]
    [violation] = VALIDATOR.validate(code.format("a" + "\u0301" * 101)).violations
    assert (violation.rule, "combining marks" in violation.message) == ("R0", True)


@pytest.mark.parametrize(
    "code",
    [
        "class A:\n    import numpy as np\nx = A.np\nx.load('a')\n",
        "class A:\n    if True:\n        from numpy import random\nA.random\n",
        "class A:\n    from enum import Enum as E\nA.E('x', y)\n",
        "def f():\n    from numpy import ndarray\n    return ndarray\nf()((3,), buffer=b'1')\n",
        "def f():\n    from enum import Enum as type\n    return type\n",
        "Enum = 1\nfrom enum import Enum\nx = Enum\n",
        (
            "from enum import Enum\ndef f(Enum):\n    def g():\n        nonlocal Enum\n        from enum import Enum\n"
            "    g()\nreturn Enum\n"
        ),
    ],
)
def test_an_import_hides_nothing(code: str) -> None:
    """Wherever a guarded function or a module is imported, it cannot be kept under a name that no check knows."""
    assert not VALIDATOR.validate(code)


@pytest.mark.parametrize(
    "code",
    [
        "from numpy import resize\nresize = 1\nprint(resize)\n",
        "from numpy import resize\ndef f(resize):\n    return resize\n",
        "class A:\n    from math import sqrt\n",
        "class A:\n    def f(self):\n        import numpy as np\n        return np.mean([1])\n",
    ],
)
def test_what_an_import_leaves_alone(code: str) -> None:
    """A name that is certainly the code's own is no guarded function."""
    assert VALIDATOR.validate(code)


def _fastest(code: str) -> float:
    times = []
    for _ in range(5):
        started = time.thread_time()
        VALIDATOR.validate(code)
        times.append(time.thread_time() - started)
    return min(times)


def _raise(_code: str) -> ValidationReport:
    raise KeyError


def _import(_code: str) -> ValidationReport:
    import this_is_no_module  # type: ignore[import-not-found]  # noqa: F401, PLC0415

    return ValidationReport()


def _execute(_code: str) -> ValidationReport:
    exec("1")
    return ValidationReport()


def _read(_code: str) -> ValidationReport:
    with open(__file__):  # noqa: PTH123
        return ValidationReport()


def _accept(_code: str) -> ValidationReport:
    return ValidationReport()


@pytest.mark.parametrize("answer", [_raise, _import, _execute, _read, _accept])
def test_the_check_itself_fails(answer: Callable[[str], ValidationReport], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way of being wrong is noticed: a check that cannot fail proves nothing."""
    monkeypatch.setattr(ASTValidator, "validate", lambda _self, code: answer(code))
    with pytest.raises(Broken):
        check(VALIDATOR, "x = eval\n")
