"""The table in docs/security.md is what this run saw. Runs last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from security_table import publish, published

if TYPE_CHECKING:
    from security_table import Outcomes


def test_the_published_table_is_what_this_run_saw(outcomes: Outcomes) -> None:
    """Threats, controls, tests and results as published; `make security-table` brings them up to date."""
    if not outcomes.complete:
        pytest.skip("only a part of the attacks ran: nothing to compare")
    table = outcomes.table(published())
    if os.environ.get("SECURITY_TABLE") == "write":
        publish(table)
    assert table == published(), "docs/security.md is stale: run `make security-table`"
