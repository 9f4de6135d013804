"""One round of the soak: every kind of honest work under our seccomp profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import soak

from worker.sandbox.config import SandboxConfig
from worker.sandbox.container import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that serves all of them, one after the other."""
    opened = Sandbox(SandboxConfig())
    yield opened
    opened.destroy()


@pytest.mark.parametrize("name", soak.PIECES)
def test_honest_work_is_not_hindered(sandbox: Sandbox, name: str) -> None:
    """Each piece runs to its end; `make soak` runs thousands and compares them."""
    outcome = soak.run_piece(sandbox, soak.Piece(name, seed=7))
    assert outcome.succeeded, outcome.detail
    assert outcome.output
