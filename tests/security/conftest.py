"""The attack suite: with the code policy off, every row of the container table in docs/security.md is attacked.

It runs once for each runtime the engine has of `RUNTIMES`. Environment:

    SECURITY_RUNTIMES   only these runtimes, comma-separated
    SECURITY_WITHOUT    a control of `controls.py` to switch off: a test that names it must then fail
    SECURITY_TABLE      "write" puts this run's table into docs/security.md instead of comparing the two
    HOSTILE_RUNS        how many runs `test_endurance.py` makes
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import docker.errors
import pytest
from security_table import Outcomes

from tests.security.arena import Arena
from tests.security.controls import CONTROLS, sandbox_config

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from worker import SandboxConfig

HERE = Path(__file__).parent
#: The engine's own default comes first; it must be runc.
RUNTIMES = ("runc", "runsc")
OUTCOMES = pytest.StashKey[Outcomes]()


def available_runtimes() -> list[str]:
    """Return those of `RUNTIMES` that the engine has; without an engine, the first: its tests then say so."""
    wanted = os.environ.get("SECURITY_RUNTIMES", ",".join(RUNTIMES)).split(",")
    try:
        client = docker.from_env(version="auto")
    except docker.errors.DockerException:
        return wanted[:1]
    try:
        present = client.info()["Runtimes"]
    finally:
        client.close()
    return [name for name in wanted if name in present]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a runtime under each there is, or those of them that the module is about."""
    if "runtime" in metafunc.fixturenames:
        about = getattr(metafunc.module, "RUNTIMES", None)
        names = [name for name in available_runtimes() if about is None or name in about]
        metafunc.parametrize("runtime", names, scope="session", indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Compare the table with the published one after all other tests, and only if all of them run."""
    ours = [item for item in items if item.path.parent == HERE]
    outcomes = config.stash.setdefault(OUTCOMES, Outcomes())
    for item in ours:
        outcomes.expect(item)
    last = "test_published_table.py"
    items.sort(key=lambda item: item.path.name == last)
    outcomes.complete &= {item.path.name for item in ours} == {path.name for path in HERE.glob("test_*.py")}


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Note that only a part of the suite runs."""
    if any(item.path.parent == HERE for item in items):
        items[0].config.stash.setdefault(OUTCOMES, Outcomes()).complete = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how each attack ended."""
    report = yield
    item.config.stash[OUTCOMES].note(item, report)
    return report


@pytest.fixture
def outcomes(pytestconfig: pytest.Config) -> Outcomes:
    """How the tests of this session ended so far."""
    return pytestconfig.stash[OUTCOMES]


@pytest.fixture(scope="session")
def runtime(request: pytest.FixtureRequest) -> str:
    """The container runtime under attack."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def sandboxes(runtime: str) -> Iterator[SandboxConfig]:
    """How sandboxes are made: as in production, or with one control switched off."""
    control = CONTROLS[name] if (name := os.environ.get("SECURITY_WITHOUT")) else None
    with pytest.MonkeyPatch.context() as patch:
        if control and control.constant:
            patch.setattr(*control.constant)
        yield sandbox_config(None if runtime == "runc" else runtime, control)


@pytest.fixture(scope="module")
def module_arena(sandboxes: SandboxConfig, docker_client: docker.DockerClient) -> Iterator[Arena]:
    """One executor for all attacks of a file under one runtime; closed before the test that looks for leftovers."""
    arena = Arena(sandboxes, docker_client)
    with arena.executor:
        arena.executor.warm()
        yield arena


@pytest.fixture
def arena(module_arena: Arena) -> Iterator[Arena]:
    """A place to attack from; afterwards the worker works, and nothing of the attack is left."""
    yield module_arena
    module_arena.assert_unharmed()
