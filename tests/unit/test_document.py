"""The data file as text, and how parameters get into it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.document import DIGEST, DatasetRef, encode, put_params

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
#: With the one that matters, and what only looks like it.
KEYS = st.sampled_from(["params", '"params":', "Params", "", "bars"]) | TEXT
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)


def pairs(text: bytes) -> list[tuple[str, Any]]:
    """Return the top-level keys and values of an object's text, each as often as it is there."""
    objects: list[list[tuple[str, Any]]] = []

    def note(found: list[tuple[str, Any]]) -> dict[str, Any]:
        objects.append(found)
        return dict(found)

    json.loads(text, object_pairs_hook=note)
    return objects[-1]


@given(data=OBJECTS, params=OBJECTS)
def test_params_are_set_as_a_key_of_the_data(data: dict[str, Any], params: dict[str, Any]) -> None:
    """Once, in place of the data's own; all else is as it was."""
    found = pairs(put_params(encode(data), encode(params)))
    assert dict(found) == {**data, "params": params}
    assert len(found) == len(dict(found))


@given(data=VALUES)
def test_text_is_read_as_the_data_it_was_made_of(data: Any) -> None:
    """Whatever JSON can hold, without a space between."""
    assert json.loads(encode(data)) == data


def test_params_come_first_and_all_else_keeps_its_order() -> None:
    """So that they are found by the first bytes."""
    assert encode({"b": 1, "params": 2, "a": 3}) == b'{"params":2,"b":1,"a":3}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"{}", b'{"params":{"x":1}}'),
        (b'{"a":1}', b'{"params":{"x":1},"a":1}'),
        (b'{"params":{}}', b'{"params":{"x":1}}'),
        (b'{"params":"\xc3\xa9}\\"","a":1}', b'{"params":{"x":1},"a":1}'),
        (b'{"paramsx":1}', b'{"params":{"x":1},"paramsx":1}'),
        (b'{"a":{"params":1}}', b'{"params":{"x":1},"a":{"params":1}}'),
    ],
)
def test_where_params_go(text: bytes, expected: bytes) -> None:
    """By the byte."""
    assert put_params(text, b'{"x":1}') == expected


def test_the_data_are_not_read_for_it() -> None:
    """What follows may be megabytes: it is copied as it is."""
    assert put_params(b'{"a":1, no JSON at all', b"{}") == b'{"params":{},"a":1, no JSON at all'


@pytest.mark.parametrize("text", [b"[1]", b'"params"', b"null", b"1", b""])
def test_only_an_object_has_a_place_for_params(text: bytes) -> None:
    """In one line that says so."""
    with pytest.raises(ValueError, match=r"^params: they become a key of the data, so the data must be an object$"):
        put_params(text, b"{}")


@pytest.mark.parametrize(
    "text", [b'{"params":', b'{"params":oops}', b'{"params":' + b"[" * 100_000, b'{"params":"\xff"}']
)
def test_text_that_is_not_json_is_refused(text: bytes) -> None:
    """Somebody else wrote it, and it cannot be told where its own parameters end."""
    with pytest.raises(ValueError, match=r"^params: the data are not JSON$"):
        put_params(text, b"{}")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"fast": math.nan}, "params['fast'] is NaN or infinite, which JSON cannot hold; use null"),
        ({"name": "\ud800"}, "params: holds text that is not valid Unicode (a lone surrogate)"),
    ],
)
def test_what_json_cannot_hold_is_named(params: dict[str, Any], reason: str) -> None:
    """With the name that its owner knows it by."""
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        encode(params, "params")


def test_a_reference_is_its_hash() -> None:
    """As text, for the command line."""
    ref = DatasetRef("0" * 64, 7)
    assert str(ref) == "0" * 64
    assert DIGEST.fullmatch(str(ref))
    assert not DIGEST.fullmatch("0" * 63 + "G")
