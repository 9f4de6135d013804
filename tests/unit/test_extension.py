"""What an operator may add to the code policy, and what no setting opens."""

from __future__ import annotations

import sys

import pytest

from tasks.policy import DEFAULT_POLICY
from tasks.validator import ASTValidator

KNOWN_DOORS = """os os.path sys subprocess ctypes importlib importlib.util builtins pickle socket io pathlib
    shutil marshal inspect gc threading multiprocessing concurrent.futures code codeop pty tempfile runpy pkgutil
    asyncio urllib.request http.client types weakref sqlite3 zipfile glob platform logging.config logging.handlers
    numpy.ctypeslib numpy.f2py numpy.testing numpy.core pandas.io pandas.io.common pandas.core.computation.eval
    numexpr tasks worker redis _thread __main__ __future__.x xml.sax.handler pipes cgitb compression
    annotationlib""".split()


@pytest.mark.parametrize("module", KNOWN_DOORS)
def test_a_known_door_stays_closed(module: str) -> None:
    """Not even without names; the message says which module it is about."""
    with pytest.raises(ValueError, match=f"^'{module}' ") as caught:
        DEFAULT_POLICY.extended({"textwrap": ["dedent"], module: []})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("operator", "attrgetter"),
        ("string", "Formatter"),
        ("typing", "ForwardRef"),
        ("typing", "get_type_hints"),
        ("dataclasses", "make_dataclass"),
        ("enum", "EnumType"),
        ("logging", "FileHandler"),
        ("logging", "os"),
        ("statistics", "sys"),
        ("calendar", "datetime"),
        ("numpy", "load"),
        ("numpy", "lib_np.load"),
        ("numpy", "as_strided"),
        ("pandas", "read_csv"),
        ("pandas", "to_pickle"),
        ("pandas", "eval"),
        ("scipy.stats", "np"),
        ("math", "_private"),
        ("math", "__dict__"),
        ("math", ""),
        ("math", "two words"),
        ("math", "line\n"),
        ("math", "\uff45val"),
        ("re", "getattr"),
    ],
)
def test_a_name_that_leads_out_is_refused(module: str, name: str) -> None:
    """Sinks, private names, evaluators and modules that another module happens to import."""
    with pytest.raises(ValueError, match=f"^'{module}") as caught:
        DEFAULT_POLICY.extended({module: [name]})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "module", ["", ".", "a.", "a..b", "two words", "line\n", "class", "a.class", "_a", "a._b", "\uff4f\uff53"]
)
def test_a_module_needs_a_public_name(module: str) -> None:
    """What no import statement can hold is a mistake in the setting."""
    with pytest.raises(ValueError, match="no name"):
        DEFAULT_POLICY.extended({module: ["x"]})


@pytest.mark.parametrize(
    ("module", "name"),
    [("textwrap", "dedent"), ("pprint", "pprint"), ("scipy.signal", "savgol_filter"), ("decimal", "FloatOperation")],
)
def test_an_honest_extension_is_accepted(module: str, name: str) -> None:
    """Both forms of import pass, the module's other names do not, and the shared policy stays as it was."""
    validator = ASTValidator(DEFAULT_POLICY.extended({module: [name]}))
    assert validator.validate(f"import {module}\nprint({module}.{name})\n")
    assert validator.validate(f"from {module} import {name}\nprint({name})\n")
    assert not validator.validate(f"import {module}\nprint({module}.other)\n")
    assert not ASTValidator().validate(f"from {module} import {name}\n")


def test_names_of_a_known_module_are_added_to_its_own() -> None:
    """An extension never takes away, and saying again what is allowed is fine."""
    wider = DEFAULT_POLICY.extended({"decimal": ["FloatOperation", "Decimal"], "re": ["compile"]})
    assert wider.modules["decimal"] == DEFAULT_POLICY.modules["decimal"] | {"FloatOperation"}
    assert wider.modules["re"] == DEFAULT_POLICY.modules["re"]
    assert wider.nodes is DEFAULT_POLICY.nodes


def test_the_package_of_an_added_module_is_not_a_value() -> None:
    """`import scipy.stats` binds scipy: without the policy knowing it, its every attribute would pass."""
    validator = ASTValidator(DEFAULT_POLICY.extended({"scipy.stats": ["norm"]}))
    code = "import scipy.stats\nx = scipy\nscipy.special.expit(0)\nscipy.stats.norm.cdf(0)\n"
    assert [(v.rule, v.line) for v in validator.validate(code).violations] == [("R7", 2), ("R7", 3)]


def test_every_private_or_hidden_standard_module_is_closed() -> None:
    """The interpreter's own C modules, all of them, whatever the version."""
    for module in sorted(name for name in sys.stdlib_module_names if name.startswith("_") and name != "__future__"):
        with pytest.raises(ValueError, match="private"):
            DEFAULT_POLICY.extended({module: ["x"]})


@pytest.mark.parametrize("name", ["asyncore", "cgi", "chunk", "xdrlib", "annotationlib", "compression"])
def test_another_python_s_modules_are_known(name: str) -> None:
    """Gone in 3.12 or 3.13, or new in 3.14: what one Python of worker and sandbox refuses, the other does too."""
    with pytest.raises(ValueError, match=f"^'calendar.{name}' "):
        DEFAULT_POLICY.extended({"calendar": [name]})


def test_no_other_standard_module_is_a_name() -> None:
    """A new Python may bring modules that the lists do not know yet: then this fails."""
    for name in sorted(name for name in sys.stdlib_module_names if not name.startswith("_")):
        with pytest.raises(ValueError, match=r"is another module|leads out"):
            DEFAULT_POLICY.extended({"scipy": [name]})
