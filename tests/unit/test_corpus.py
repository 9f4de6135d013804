"""The corpus: every hostile snippet is refused under its rule, every honest strategy is accepted.

``tests/corpus/hostile/*.txt`` hold snippets, each after a line ``=== rule name``; ``tests/corpus/honest/*.py`` are
whole strategies, which ``tests/integration/test_honest_corpus.py`` runs.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks.policy import DEFAULT_POLICY
from tasks.validator import ASTValidator

CORPUS = Path(__file__).parent.parent / "corpus"
FORMS = (
    "aliasing",
    "re-assignment",
    "comprehension",
    "decorator",
    "default-argument",
    "class-body",
    "lambda",
    "walrus",
    "star",
    "augmented",
    "match",
)


class Snippet(NamedTuple):
    """A few hostile lines, and the rule that must refuse them."""

    rule: str
    name: str
    code: str


def read_hostile() -> dict[str, Snippet]:
    """Return all hostile snippets by ``file:name``."""
    found = {}
    for path in sorted((CORPUS / "hostile").glob("*.txt")):
        _, *blocks = f"\n{path.read_text(encoding='utf-8')}".split("\n=== ")
        for block in blocks:
            head, _, code = block.partition("\n")
            rule, _, name = head.partition(" ")
            assert f"{path.stem}:{name}" not in found
            found[f"{path.stem}:{name}"] = Snippet(rule, name, code + "\n")
    return found


HOSTILE = read_hostile()
HONEST = {path.stem: path.read_text(encoding="utf-8") for path in sorted((CORPUS / "honest").glob("*.py"))}


@pytest.fixture(scope="module")
def validator() -> ASTValidator:
    """The default policy."""
    return ASTValidator()


@pytest.mark.parametrize("snippet", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_snippet_is_refused_under_its_rule(validator: ASTValidator, snippet: Snippet) -> None:
    """Refusal by another rule alone would hide that the rule in question is blind to this form."""
    assert snippet.rule in {violation.rule for violation in validator.validate(snippet.code).violations}


@pytest.mark.parametrize("code", HONEST.values(), ids=HONEST.keys())
def test_honest_strategy_is_accepted(validator: ASTValidator, code: str) -> None:
    """No violation at all: an agent would otherwise repair what is not broken."""
    assert validator.validate(code).violations == ()


@pytest.mark.parametrize("rule", [f"R{number}" for number in range(2, 12)])
def test_every_rule_is_attacked_in_every_form(rule: str) -> None:
    """A check that walks only calls, or only loads, has a twin that it forgot."""
    names = [snippet.name for snippet in HOSTILE.values() if snippet.rule == rule]
    assert [form for form in FORMS if not any(form in name for name in names)] == []


def test_the_corpus_is_as_large_as_promised() -> None:
    """Each rule is attacked often, no snippet stands there twice, and the README's counts are these."""
    by_rule = Counter(snippet.rule for snippet in HOSTILE.values())
    assert by_rule.keys() == {f"R{number}" for number in range(12)}
    assert min(by_rule.values()) >= 10
    assert len({snippet.code for snippet in HOSTILE.values()}) == len(HOSTILE) >= 260
    assert len(HONEST) >= 64
    readme = (CORPUS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"{len(HOSTILE)} of {len(HOSTILE)} hostile snippets" in readme
    assert f"{len(HONEST)} of {len(HONEST)} honest strategies" in readme
    assert all(len(code) < DEFAULT_POLICY.max_code_bytes for code in HONEST.values())
