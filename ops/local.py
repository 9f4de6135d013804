"""A private Redis and a worker as subprocesses, for the demo and the tests: on loopback, gone when closed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = Path(__file__).with_name("redis.conf")
START_SECONDS = 20.0
#: A worker finishes what runs (60 s at most) before it leaves.
STOP_SECONDS = 75.0


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    """Run a Redis on a free port with a data folder of its own; give its URL."""
    with tempfile.TemporaryDirectory(prefix="stratbox-redis-") as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["redis-server", str(CONFIG), "--port", str(port), "--dir", folder]
        log = Path(folder, "log")
        with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as server:
            try:
                with redis.Redis(port=port) as client:
                    _wait_for(lambda: _answers(client), server, log)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()


@contextlib.contextmanager
def private_worker(redis_url: str, *, concurrency: int = 2, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker on a Redis until it is told to stop; give its main process, ready to take strategies."""
    env = os.environ | {"STRATBOX_REDIS_URL": redis_url} | environment
    command = [sys.executable, "-m", "worker.cli", "worker", "--concurrency", str(concurrency)]
    with (
        tempfile.NamedTemporaryFile(prefix="stratbox-worker-", suffix=".log") as stream,
        subprocess.Popen(command, env=env, stdout=stream, stderr=stream, start_new_session=True) as process,
    ):
        log = Path(stream.name)
        try:
            _wait_for(lambda: b" ready." in log.read_bytes(), process, log)
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a worker as its operator would: SIGTERM, patience, and only then SIGKILL."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            msg = f"{process.args!r} did not start:\n{tail}"
            raise RuntimeError(msg)
        time.sleep(0.05)
