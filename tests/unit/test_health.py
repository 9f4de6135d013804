"""What the health check makes of the file that a worker writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from worker import events, health
from worker.errors import EngineUnavailable
from worker.sandbox.pool import SandboxPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where it is written."""
    return tmp_path / "health"


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Begin as a worker does."""
    yield
    health._started.value = health._failing_since.value = 0.0


def write(file: Path, state: str, *, pid: int | None = None, age: float = 0.0) -> None:
    """Write it as a worker would have, `age` seconds ago."""
    file.write_text(json.dumps({"pid": pid or os.getpid(), "state": state}))
    then = time.time() - age
    os.utime(file, (then, then))


def dead_process() -> int:
    """Return the number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


@pytest.mark.parametrize(
    ("state", "age", "ready", "alive"),
    [
        (health.READY, 0, None, None),
        (health.READY, 25, None, None),
        (health.READY, 40, "hangs: nothing from it for 40 s", "hangs"),
        ("the first sandbox is being started", 0, "not ready: the first sandbox", None),
        ("the first sandbox is being started", 40, "hangs", "hangs"),
        (health.WAITING_FOR_REDIS, 0, "not ready: waiting for Redis", None),
        (health.WAITING_FOR_REDIS, 4000, "not ready: waiting for Redis", None),
    ],
)
def test_ready_and_alive(file: Path, state: str, age: float, ready: str | None, alive: str | None) -> None:
    """A worker that waits for Redis is alive however long it waits; any other that says nothing hangs."""
    write(file, state, age=age)
    for alive_only, expected in ((False, ready), (True, alive)):
        problem = health.check(file, alive_only=alive_only)
        assert (problem is None) == (expected is None), problem
        assert (expected or "") in (problem or "")


def test_a_worker_that_has_ended_is_neither(file: Path) -> None:
    """Whatever it wrote last."""
    write(file, health.READY, pid=dead_process())
    assert health.check(file, alive_only=True) == "the worker has ended"


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "7", '{"pid": "x"}'])
def test_no_worker_yet(file: Path, content: str | None) -> None:
    """No file, or none of a worker's."""
    if content is not None:
        file.write_text(content)
    assert health.check(file, alive_only=True) == f"no worker has written {file} yet"


def test_ready_once_a_sandbox_was_started_and_while_they_start() -> None:
    """Engine, image and the first warm sandbox are there; then they are not; then they are again."""
    health.note_starts()
    assert health.state() == "the first sandbox is being started"
    events.sandbox_started.send(sender=SandboxPool, seconds=0.5)
    assert health.state() == health.READY
    events.engine_failed.send(sender=SandboxPool, error=EngineUnavailable("away"))
    assert health.state().startswith("no sandbox can be started for 0 s")
    events.sandbox_started.send(sender=SandboxPool, seconds=5.0)
    assert health.state() != health.READY, "that one was on its way before the engine went"
    time.sleep(0.02)
    events.sandbox_started.send(sender=SandboxPool, seconds=0.01)
    assert health.state() == health.READY


def test_the_command_says_in_one_line_what_is_wrong(file: Path) -> None:
    """And nothing when all is well."""

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        env = {**os.environ, **environment}
        done = subprocess.run(
            [sys.executable, "-m", "worker.health", *arguments], env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    assert run() == (1, "health: set STRATBOX_HEALTH_FILE to the same path for the worker and for this check\n")
    assert run(STRATBOX_HEALTH_FILE=str(file)) == (1, f"health: no worker has written {file} yet\n")
    write(file, health.WAITING_FOR_REDIS)
    assert run("--alive", STRATBOX_HEALTH_FILE=str(file)) == (0, "")
    assert run(STRATBOX_HEALTH_FILE=str(file)) == (1, "health: not ready: waiting for Redis\n")
