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

    from worker import SandboxConfig

STUBBORN = """
import os, signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
for _ in range(4): os.fork()
while True: time.sleep(1)
"""


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
        deadline = time.monotonic() + 5
        while docker_client.api.containers(all=True, filters={"id": sandbox.container_id}):
            assert time.monotonic() < deadline, "it still runs"
            time.sleep(0.05)
    finally:
        sandbox.destroy()
