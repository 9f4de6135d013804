"""How long to wait, and how a missing record is told; what needs Redis is tested with a real one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from celery import states

from tasks import results
from tasks.app import create_app
from tasks.errors import ResultTimeout, UnknownSubmission
from tasks.ledger import QUEUED
from tasks.results import RECHECK_SECONDS, ResultStore
from tasks.settings import Settings
from tasks.submission import _STATES

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store() -> Iterator[ResultStore]:
    """A store; nothing connects."""
    settings = Settings(result_expires_seconds=600)
    app = create_app(settings)
    yield ResultStore(app)
    app.close()


def test_without_a_timeout_the_deadline_never_comes() -> None:
    """None waits for ever, looking again now and then."""
    assert results._deadline(None) == float("inf")
    assert results._patience("x", results._deadline(None)) == RECHECK_SECONDS


def test_a_timeout_counts_from_now() -> None:
    """On the clock that nobody sets."""
    assert results._deadline(5.0) == pytest.approx(time.monotonic() + 5, abs=0.5)


def test_patience_is_what_is_left_and_never_long() -> None:
    """A notification that was lost delays a waiter by two seconds at most."""
    assert results._patience("x", time.monotonic() + 60) == RECHECK_SECONDS
    assert 0 < results._patience("x", time.monotonic() + 0.5) <= 0.5


@pytest.mark.parametrize("timeout", [0, 0.0, -1])
def test_patience_ends_at_the_deadline(timeout: float) -> None:
    """With the id, and what to do next."""
    with pytest.raises(ResultTimeout, match=r"^submission x-1 has not ended yet: ask again later, or cancel it$"):
        results._patience("x-1", results._deadline(timeout))


def test_an_unknown_id_is_named_with_the_reason(store: ResultStore) -> None:
    """Mistyped, or expired: the text says after how long."""
    with pytest.raises(UnknownSubmission, match=r"^no submission 'x\\n': check the id; results expire after 600 s$"):
        store.decode("x\n", None)


def test_a_record_is_read_as_celery_wrote_it(store: ResultStore) -> None:
    """With the codec of the backend, non-ASCII text included."""
    meta = {"status": states.SUCCESS, "result": {"output": "é"}, "traceback": None, "children": [], "task_id": "x"}
    assert store.decode("x", store._backend.encode(meta).encode()) == meta


def test_records_are_where_celery_looks(store: ResultStore) -> None:
    """A worker's result replaces the mark of a queued one."""
    assert store.key("x-1") == "celery-task-meta-x-1"


def test_queued_is_no_state_of_celery_s() -> None:
    """Celery has none for a task that nobody has seen; it must not be taken for an end."""
    assert QUEUED not in states.ALL_STATES
    assert QUEUED not in states.READY_STATES


def test_every_state_is_told() -> None:
    """Each that Celery knows is one on the way, or an end with a result."""
    assert set(_STATES) | {states.SUCCESS, states.REVOKED} == {QUEUED, *states.ALL_STATES} - {
        states.REJECTED,
        states.IGNORED,
    }
