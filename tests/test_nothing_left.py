"""The last test: what the others started is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Leftovers


def test_nothing_is_left_behind(leftovers: Leftovers) -> None:
    """No container, process or temporary file of this session is left."""
    assert leftovers.wait(seconds=10) == []
