"""The process that stands by, in real containers: whenever a strategy comes it runs, and only its own time counts."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from worker import CodeExecutor, SandboxConfig
from worker.errors import SandboxLost
from worker.sandbox.container import Sandbox
from worker.sandbox.standby import PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

    from worker.sandbox.ending import Report

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end:\n    pass\n"
#: What most strategies do first: it touches all that a rehearsal has touched.
USE = "import pandas as pd\nprint(float(pd.Series([1.0, 3.0]).rolling(2).mean().iloc[-1]))\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One that serves run after run."""
    started = Sandbox(SandboxConfig(runtime="runc"))
    yield started
    started.destroy()


def reported(sandbox: Sandbox, code: str) -> tuple[Report, str]:
    """Run a strategy that must end well; return what the runner says of it, and what it printed."""
    ending = sandbox.run(code, b"{}", 20.0, last=False)
    assert ending.clean, (ending.how, ending.stderr)
    assert ending.report is not None
    return ending.report, ending.stdout.decode()


def settled(sandbox: Sandbox) -> Sandbox:
    """Wait until the next process stands by, its rehearsal behind it."""
    time.sleep(PAUSE_SECONDS + 0.3)
    return sandbox


def test_a_strategy_that_comes_at_once_runs() -> None:
    """Right after the sandbox is ready: nobody has rehearsed by then."""
    sandbox = Sandbox(SandboxConfig(runtime="runc"))
    try:
        ending = sandbox.run(USE, b"{}", 20.0)
    finally:
        sandbox.destroy()
    assert (ending.clean, bytes(ending.stdout), bytes(ending.stderr)) == (True, b"2.0\n", b"")


@pytest.mark.parametrize(
    "late", [-PAUSE_SECONDS, -PAUSE_SECONDS / 2, -0.001, 0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1]
)
def test_a_strategy_runs_whenever_it_comes(sandbox: Sandbox, late: float) -> None:
    """Before, while and after the process that stands by rehearses, as it does after a pause."""
    for _ in range(3):
        time.sleep(PAUSE_SECONDS + late)
        ending = sandbox.run(USE, b"{}", 20.0, last=False)
        assert (ending.clean, bytes(ending.stdout), bytes(ending.stderr)) == (True, b"2.0\n", b"")


def test_its_cpu_time_is_the_strategy_s_own(sandbox: Sandbox) -> None:
    """Neither the fork's nor the rehearsal's, which take more than a strategy that only prints."""
    for _ in range(3):
        report, printed = reported(settled(sandbox), "import time\nprint(time.process_time())")
        assert 0 < report.cpu_seconds < 0.05
        assert report.cpu_seconds < float(printed), "what its process has had, from the fork on"
    burning, _ = reported(settled(sandbox), BURN.format(seconds=0.2))
    assert 0.2 <= burning.cpu_seconds < 0.25


def test_its_children_s_cpu_time_counts(sandbox: Sandbox) -> None:
    """Of those that it waited for, and of those that the runner had to kill."""
    waited = "import os\nif os.fork() == 0:\n    {burn}\n    os._exit(0)\nos.wait()\n"
    left = "import os, time\nif os.fork() == 0:\n    {burn}\n    time.sleep(60)\ntime.sleep(0.6)\n"
    burn = BURN.format(seconds=0.15).strip().replace("\n", "\n    ")
    for code in (waited, left):
        report, _ = reported(settled(sandbox), code.format(burn=burn))
        assert 0.15 <= report.cpu_seconds < 0.25


def test_what_a_run_took_is_not_counted_to_the_next(sandbox: Sandbox) -> None:
    """Neither its time nor its memory."""
    hungry, _ = reported(settled(sandbox), BURN.format(seconds=0.2) + "hold = bytearray(100 << 20)\n")
    modest, _ = reported(settled(sandbox), "print(1)")
    assert modest.cpu_seconds < 0.05
    assert hungry.peak_memory_bytes > 130 << 20 > 100 << 20 > modest.peak_memory_bytes


@contextlib.contextmanager
def beside(docker_client: docker.DockerClient, sandbox: Sandbox, code: str) -> Iterator[None]:
    """Run Python in the sandbox beside its runner, which `others` leaves out, from when it has printed something on."""
    others = "import os, time\nothers = [n for n in map(int, filter(str.isdigit, os.listdir('/proc')))"
    source = f"{others} if n not in (1, os.getpid())]\n{code}"
    execution = docker_client.api.exec_create(sandbox.container_id, ["/python", "-c", source])
    response = docker_client.api.exec_start(execution["Id"], socket=True)
    response.read(1)
    yield
    response._sock.close()  # which closing the file does not
    response.close()


@pytest.mark.parametrize("check", [None, {}], ids=["not checked", "to be checked"])
def test_its_end_is_nothing_that_a_strategy_did(
    docker_client: docker.DockerClient, check: dict[str, list[str]] | None
) -> None:
    """On a host that is short of memory it goes first: what has not begun is run again elsewhere, and has not crashed.

    It is stopped, so that the strategy is there when it ends.
    """
    sandbox = Sandbox(SandboxConfig(runtime="runc"))
    try:
        code = "for n in others: os.kill(n, 19)\nprint(1, flush=True)\ntime.sleep(0.5)\nfor n in others: os.kill(n, 9)"
        with beside(docker_client, sandbox, code), pytest.raises(SandboxLost, match="short of memory"):
            sandbox.run("print(1)", b"{}", 20.0, check=check)
    finally:
        sandbox.destroy()


def test_the_end_of_who_stands_by_ends_the_sandbox(docker_client: docker.DockerClient) -> None:
    """The pool sees it, and has another in its place before anybody asks."""
    with CodeExecutor(SandboxConfig(runtime="runc")) as executor:
        executor.warm()
        executor.wait_until_warm()
        sandbox = executor._pool._coming[0].result()
        with beside(docker_client, sandbox, "for n in others: os.kill(n, 9)"):
            pass
        deadline = time.monotonic() + 10
        while not executor._pool._coming or executor._pool._coming[0].result() is sandbox:
            assert time.monotonic() < deadline, "it is still there"
            time.sleep(0.01)
        assert not sandbox.alive()
        executor.wait_until_warm()
        assert not docker_client.api.containers(all=True, filters={"id": sandbox.container_id})
