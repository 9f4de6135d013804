"""How an execution is described where anybody may look."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.models import MAX_TIMEOUT_SECONDS, ExecutionRequest
from tasks.summary import describe, is_summary, summarize

SECRET = "secret_alpha = 1"


def test_the_summary_tells_sizes_but_no_content() -> None:
    """Flower and the logs show it; code and data are somebody's secret."""
    request = ExecutionRequest(code=SECRET, data={"secret": [1]}, timeout=2.5, user_id="desk 7")
    summary = summarize(request)
    assert "secret" not in summary
    assert re.fullmatch(
        r"user_id='desk 7', code=sha256:[0-9a-f]{12} \(16 bytes\), data=14 bytes, timeout=2.5 s", summary
    )


def test_the_summary_is_one_line_of_harmless_text() -> None:
    """Whatever the user is called; without a timeout it says so."""
    summary = summarize(ExecutionRequest(code="x", user_id="'\u2028\x85\u202e"))
    assert len(summary.splitlines()) == 1
    assert summary.isprintable()
    assert summary.endswith("data=2 bytes, timeout=default")


def test_of_a_data_set_the_summary_tells_the_first_digits() -> None:
    """Enough to tell it from others, not enough to read it with."""
    digest = "0123456789abcdef" * 4
    summary = summarize(ExecutionRequest(code="x", dataset=digest, params={"secret": 1}))
    assert summary.endswith("dataset=sha256:0123456789ab, timeout=default")
    assert "secret" not in summary
    assert digest[:13] not in summary
    assert is_summary(summary)


@given(
    user_id=st.from_regex(r"[^\x00-\x1f\x7f]{0,128}", fullmatch=True),
    timeout=st.none() | st.floats(0, MAX_TIMEOUT_SECONDS, exclude_min=True),
)
def test_every_summary_is_known_for_one(user_id: str, timeout: float | None) -> None:
    """A worker shows it as it came."""
    assert is_summary(summarize(ExecutionRequest(code="x", user_id=user_id, timeout=timeout)))


@pytest.mark.parametrize("text", [None, "", "{'code': 'secret'}", "user_id='a', code='secret'", "('secret',)"])
def test_what_celery_writes_of_its_own_is_no_summary(text: object) -> None:
    """A worker puts a summary in its place."""
    assert not is_summary(text)


def test_nothing_follows_a_summary() -> None:
    """A line of code behind it would be shown with it."""
    assert not is_summary(summarize(ExecutionRequest(code="x")) + f"\n{SECRET}")


@pytest.mark.parametrize("fields", [{}, {"code": 7}, {"code": SECRET, "secret": 1}, {"code": SECRET, "timeout": -1}])
def test_a_malformed_message_is_described_without_its_content(fields: dict[str, Any]) -> None:
    """Whatever it holds."""
    assert describe(fields) == "not a valid request"


def test_a_message_of_others_is_described_as_ours() -> None:
    """One that Celery sent without our client."""
    assert describe({"code": SECRET}) == summarize(ExecutionRequest(code=SECRET))
