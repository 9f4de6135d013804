"""A sandbox dies with its worker."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from worker.errors import SandboxLost
from worker.sandbox.container import Sandbox

if TYPE_CHECKING:
    import docker

    from tests.security.arena import Arena
    from worker import SandboxConfig

#: Four processes: under gVisor each costs some 30 MiB of the container's memory, which must not be what ends it.
STUBBORN = """
import os, signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
for _ in range(2): os.fork()
while True: time.sleep(1)
"""


#: Kills all but the runner and itself, from beside them: what the kernel does where memory runs out.
KILL_OTHERS = (
    "import os; [os.kill(int(n), 9) for n in os.listdir('/proc') if n.isdigit() and int(n) not in (1, os.getpid())]"
)


def is_gone(client: docker.DockerClient, container: str) -> bool:
    """Whether a container ends in a moment."""
    deadline = time.monotonic() + 5
    while client.api.containers(all=True, filters={"id": container}):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.threat(
    "containers that outlive their worker", control="end of input ends the runner, AutoRemove the container"
)
def test_hang_up_removes_the_container(sandboxes: SandboxConfig, docker_client: docker.DockerClient) -> None:
    """When the worker's end of the stream is gone, as after kill -9, so is the container, without a call to destroy."""
    sandbox = Sandbox(sandboxes)
    try:
        hang_up = threading.Timer(0.5, sandbox._stream.hang_up)
        hang_up.start()
        with pytest.raises(SandboxLost):
            sandbox.run(STUBBORN, b"{}", timeout_seconds=50)
        hang_up.join()
        assert is_gone(docker_client, sandbox.container_id)
    finally:
        sandbox.destroy()


@pytest.mark.threat(
    "a waiting sandbox that nobody can use any more",
    control="the runner leaves when the process that stands by has ended",
)
def test_the_end_of_who_stands_by_removes_the_container(arena: Arena) -> None:
    """Nobody waits in it for a strategy: the container goes, the worker sees that, and the next one serves."""
    arena.executor.wait_until_warm()
    waiting = {container["Id"] for container in arena.own_containers()}
    for container in waiting:
        kill = arena.client.api.exec_create(container, ["/python", "-c", KILL_OTHERS])
        # Who listens to its output may listen for ever: under gVisor the container can go before that has an end.
        arena.client.api.exec_start(kill["Id"], detach=True)
    assert all(is_gone(arena.client, container) for container in waiting)
    arena.run_honest()
    assert arena.last_container not in waiting
