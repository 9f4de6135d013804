"""What of a message Celery gets to see, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.task import Context

from tasks.backend import FENCE, PAUSE
from tasks.errors import InvalidRequest
from worker.incoming import examine, id_of

FIELDS = {"code": "x = 1"}


def message(body: Any = None, **headers: Any) -> Any:
    """Return what kombu makes of a message."""
    payload = [[], FIELDS, {}] if body is None else body
    return SimpleNamespace(payload=payload, headers={"task": "STRATEGY_EXECUTION", "id": "x-1"} | headers)


def test_what_is_the_producers_to_say_is_kept() -> None:
    """Its own headers and when it expires; when to begin is for the ledger."""
    eta, expires = "2030-01-01T00:00:00+01:00", "2031-01-01"
    task_id, fields, headers, due = examine(message(eta=eta, expires=expires, own=1, traceparent="00-1"))
    assert (task_id, fields, due) == ("x-1", FIELDS, 1893452400.0)
    assert headers == {
        "task": "STRATEGY_EXECUTION",
        "id": "x-1",
        "root_id": "x-1",
        "expires": "2031-01-01T00:00:00+00:00",
        "ignore_result": False,
        "argsrepr": "()",
        "kwargsrepr": None,
        "own": 1,
        "traceparent": "00-1",
    }


def test_what_means_something_to_celery_is_not() -> None:
    """Attributes of its request, and the two that the task sets there; nor anything that is nested."""
    known = {
        name: "x"
        for name in (*dir(Context), FENCE, PAUSE, "lang", "compression")
        if name not in {"id", "eta", "expires"}
    }
    assert {"timelimit", "retries", "chord", "update", "stamps"} <= known.keys()
    assert examine(message(**known, nested=["x"])).headers == examine(message()).headers


@pytest.mark.parametrize("odd", [None, "", 5, ["x"], "\ud800", "x\n", 'x"', "x\\", "gr\u00fc\u00df", "x" * 256])
def test_what_is_no_id(odd: Any) -> None:
    """The ledger could not find it in a message, or Redis not store it."""
    assert id_of(message(id=odd)) is None
    with pytest.raises(InvalidRequest, match=r"^headers\.id: "):
        examine(message(id=odd))


@pytest.mark.parametrize("task_id", ["1", "a b/c:d", "0a1f6c1e-6f0c-4d6a-9a55-3f1d2b7c8e90", "x" * 255])
def test_what_is_an_id(task_id: str) -> None:
    """Text that stands in JSON as it is."""
    assert json.dumps(task_id) == f'"{task_id}"'
    assert examine(message(id=task_id)).task_id == task_id


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (message(task="another"), "headers.task: "),
        (message(eta="soon"), "headers.eta: "),
        (message(expires=17), "headers.expires: "),
        (message(expires="9999-12-31T23:59:59-14:00"), "headers.expires: "),
        (message([]), "body: "),
        (message([[], [], {}]), "body: "),
        (message([[], FIELDS, {"chain": ["x"]}]), "body: callbacks"),
        (message([[], FIELDS, {"id": None}]), "body: callbacks"),
        (message([[], {"self": 1}, {}]), "self: "),
    ],
)
def test_what_is_refused_says_what(wrong: Any, says: str) -> None:
    """One line that names the field, and nothing of what is in it."""
    with pytest.raises(InvalidRequest) as raised:
        examine(wrong)
    assert str(raised.value).startswith(says)
