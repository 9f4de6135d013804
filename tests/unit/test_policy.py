"""The policy is data: these tests hold it to what the validator and the runner rely on."""

import ast
import dataclasses
import importlib
import types

import pytest

from tasks.policy import DEFAULT_POLICY, Policy

STANDARD_MODULES = sorted(name for name in DEFAULT_POLICY.modules if name.partition(".")[0] not in {"numpy", "pandas"})
NEWER_THAN_3_11 = {
    "typing": {"override", "ReadOnly", "TypeIs"},
    "itertools": {"batched"},
    "math": {"fma", "sumprod"},
    "statistics": {"kde", "kde_random"},
}
RULES = [f"R{number}" for number in range(12)]


def test_policy_is_frozen() -> None:
    """Nobody loosens the shared policy by accident."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_POLICY.max_depth = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        DEFAULT_POLICY.modules["os"] = frozenset()  # type: ignore[index]
    with pytest.raises(TypeError):
        DEFAULT_POLICY.hints["R0"] = ""  # type: ignore[index]


def test_replace_makes_a_stricter_policy() -> None:
    """An operator narrows one field and keeps the rest."""
    stricter = dataclasses.replace(DEFAULT_POLICY, max_code_bytes=10)
    assert isinstance(stricter, Policy)
    assert stricter.max_code_bytes == 10
    assert stricter.nodes is DEFAULT_POLICY.nodes


def test_code_cap_is_256_kib() -> None:
    """The cap is the one the design promises."""
    assert DEFAULT_POLICY.max_code_bytes == 262_144


@pytest.mark.parametrize("module", STANDARD_MODULES)
def test_exports_exist_and_are_no_modules(module: str) -> None:
    """A listed name is real, and never another module in disguise."""
    loaded = importlib.import_module(module)
    names = DEFAULT_POLICY.modules[module] - NEWER_THAN_3_11.get(module, set())
    values = {name: getattr(loaded, name) for name in names}
    assert names
    assert not [name for name, value in values.items() if isinstance(value, types.ModuleType)]


@pytest.mark.parametrize("module", sorted(DEFAULT_POLICY.modules))
def test_no_module_exports_a_sink(module: str) -> None:
    """An export list and a sink list never contradict each other."""
    names = DEFAULT_POLICY.modules[module]
    allowed = {"load", "dump", "dumps"} if module == "json" else set()
    sinks = DEFAULT_POLICY.library_sinks | DEFAULT_POLICY.sinks
    assert names & sinks <= allowed
    assert not [name for name in names if name.startswith(("_", "read_"))]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("operator", "attrgetter"),
        ("operator", "methodcaller"),
        ("string", "Formatter"),
        ("typing", "get_origin"),
        ("typing", "get_type_hints"),
        ("functools", "update_wrapper"),
        ("functools", "singledispatch"),
        ("dataclasses", "make_dataclass"),
        ("warnings", "warn_explicit"),
        ("contextlib", "contextmanager"),
        ("enum", "property"),
        ("logging", "FileHandler"),
        ("numpy", "load"),
        ("pandas", "eval"),
        ("pandas", "Flags"),
        ("pandas.api.indexers", "BaseIndexer"),
    ],
)
def test_known_doors_are_closed(module: str, name: str) -> None:
    """Functions that evaluate text or reach attributes by name are not exported."""
    assert name not in DEFAULT_POLICY.modules[module]


def test_allowed_and_refused_builtins_do_not_overlap() -> None:
    """A builtin is one or the other, and every listed one exists."""
    assert not DEFAULT_POLICY.builtins & DEFAULT_POLICY.refused_builtins
    real = set(dir(importlib.import_module("builtins")))
    assert DEFAULT_POLICY.builtins <= real
    assert DEFAULT_POLICY.refused_builtins <= real


def test_honest_conversions_are_no_sinks() -> None:
    """The exceptions to the to_ prefix are not listed as sinks too."""
    honest = DEFAULT_POLICY.honest_conversions | DEFAULT_POLICY.text_exporters
    assert not honest & (DEFAULT_POLICY.sinks | DEFAULT_POLICY.library_sinks)
    assert not DEFAULT_POLICY.reductions & DEFAULT_POLICY.sinks


def test_nodes_are_real_and_without_async() -> None:
    """Only the three node types of Python 3.12 may be unknown here, and nothing is async."""
    unknown = {name for name in DEFAULT_POLICY.nodes if not hasattr(ast, name)}
    assert unknown <= {"TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple"}
    assert not [name for name in DEFAULT_POLICY.nodes if name.startswith(("Async", "Await"))]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_hint(rule: str) -> None:
    """A violation without a hint of its own falls back on its rule's."""
    assert DEFAULT_POLICY.hint(rule, "no such thing") == DEFAULT_POLICY.hints[rule]


@pytest.mark.parametrize("thing", sorted(DEFAULT_POLICY.hints))
def test_hints_are_one_short_line(thing: str) -> None:
    """A hint is printable, one line, and short enough for a terminal and a prompt."""
    hint = DEFAULT_POLICY.hints[thing]
    assert hint.isprintable()
    assert 10 < len(hint) <= 140


def test_hint_prefers_the_most_specific_thing() -> None:
    """The first thing that has a hint wins."""
    assert "network" in DEFAULT_POLICY.hint("R2", "import requests.sessions", "import requests")
