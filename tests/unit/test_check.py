"""The check inside a sandbox: what it finds, that it fits one frame, and which shape the worker believes."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.validator import ASTValidator, Violation
from worker.sandbox import check
from worker.sandbox.check import UNREADABLE, VERDICT_BYTES
from worker.sandbox.ending import VIOLATIONS
from worker.sandbox.frames import Frame, encode

LARGEST = Violation("R10", 10**6, 10**6, "\U0001f600" * 80, "\U0001f600" * 400, "\U0001f600" * 200)


class Left(BaseException):
    """The process would have ended here."""


def checked(
    monkeypatch: pytest.MonkeyPatch, source: str, extra_modules: dict[str, list[str]]
) -> tuple[int | None, bytes]:
    """Run a check; return the exit code it leaves with, None when it returns, and what it has written."""

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    code = None
    with mmap.mmap(-1, VERDICT_BYTES) as verdict:
        try:
            check.run(extra_modules, source, verdict)
        except Left as left:
            code = left.args[0]
        return code, verdict[:].partition(b"\0")[0]


def test_clean_code_leaves_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """To return, with nothing written, is all that lets a strategy run."""
    assert checked(monkeypatch, "import json\nprint(json.dumps(1))\n", {}) == (None, b"")


def test_the_verdict_is_the_validator_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """All violations, in the shape that the worker believes."""
    source = "import os\nx = ().__class__\nprint('\u2028é', eval)\n"
    code, written = checked(monkeypatch, source, {})
    assert code == 0
    assert VIOLATIONS.validate_json(written) == ASTValidator().validate(source).violations


def test_what_the_operator_allows_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module the policy of the image does not have; no more than was added."""
    source = "import textwrap\nprint(textwrap.dedent(' a'))\n"
    assert checked(monkeypatch, source, {"textwrap": ["dedent"]}) == (None, b"")
    too_little: list[dict[str, list[str]]] = [{"textwrap": []}, {}]
    for less in too_little:
        code, written = checked(monkeypatch, source, less)
        assert code == 0, "it does not return to run the source"
        assert written != b""


def test_any_verdict_fits_one_frame() -> None:
    """The first violations, as many as there is room for; the list stays whole JSON."""
    written = check.encode([LARGEST] * 100)
    found = VIOLATIONS.validate_json(written)
    assert len(encode(Frame.VIOLATIONS, written)) > 0
    assert found == (LARGEST,) * len(found)
    assert 20 < len(found) < 100
    assert VERDICT_BYTES - len(written) < len(json.dumps(dataclasses.asdict(LARGEST))) + 1


def test_a_full_verdict_is_not_cut() -> None:
    """One that fills the room to its last byte."""
    rest = VERDICT_BYTES - len(check.encode([dataclasses.replace(LARGEST, text="")]))
    written = check.encode([dataclasses.replace(LARGEST, text="a" * rest)])
    assert len(written) == VERDICT_BYTES
    assert check.encode([dataclasses.replace(LARGEST, text="a" * (rest + 1))]) == b"[]"


def test_a_parser_that_dies_is_a_violation() -> None:
    """As any other, with a hint for whoever wrote the source."""
    assert VIOLATIONS.validate_json(check.encode([UNREADABLE])) == (UNREADABLE,)
    assert UNREADABLE.rule == "R0"
    assert UNREADABLE.hint


SOUND: dict[str, Any] = dataclasses.asdict(UNREADABLE)


@pytest.mark.parametrize(
    "verdict",
    [
        [],
        {},
        SOUND,
        [SOUND, 1],
        [{**SOUND, "line": "1"}],
        [{**SOUND, "line": True}],
        [{**SOUND, "column": 1.0}],
        [{**SOUND, "text": None}],
        [{**SOUND, "hint": "\ud800"}],
        [{**SOUND, "status": "succeeded"}],
        [{"rule": "R0"}],
    ],
)
def test_a_verdict_of_the_wrong_shape_is_refused(verdict: object) -> None:
    """It comes out of a container: nothing is coerced, and no verdict is empty."""
    with pytest.raises(ValidationError):
        VIOLATIONS.validate_json(json.dumps(verdict))
