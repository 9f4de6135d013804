"""A private Redis, a worker and Flower as subprocesses, for the demo and the tests: on loopback, gone when closed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from http import HTTPStatus
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
        port = _free_port()
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
def private_worker(
    redis_url: str, *, concurrency: int = 2, log: str | Path | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker on a Redis until it is told to stop; give its main process, ready to take strategies.

    Its log goes to `log`, or is dropped at its end. It serves no metrics unless `environment` names a port.
    """
    env = os.environ | {"STRATBOX_REDIS_URL": redis_url, "STRATBOX_METRICS_PORT": "0"} | environment
    command = [sys.executable, "-m", "worker.cli", "worker", "--concurrency", str(concurrency)]
    with (
        Path(log).open("wb") if log else tempfile.NamedTemporaryFile(prefix="stratbox-worker-") as stream,
        subprocess.Popen(command, env=env, stdout=stream, stderr=stream, start_new_session=True) as process,
    ):
        written = Path(stream.name)
        try:
            _wait_for(lambda: b" ready." in written.read_bytes(), process, written)
            yield process
        finally:
            stop(process)


@contextlib.contextmanager
def private_flower(redis_url: str, password: str, **environment: str) -> Iterator[str]:
    """Run Flower on a Redis, for the user `stratbox` with this password; give the address of its pages."""
    port = _free_port()
    own = {"STRATBOX_REDIS_URL": redis_url, "FLOWER_PORT": str(port), "FLOWER_BASIC_AUTH": f"stratbox:{password}"}
    command = [sys.executable, "-m", "worker.cli", "flower"]
    with (
        tempfile.NamedTemporaryFile(prefix="stratbox-flower-", suffix=".log") as stream,
        subprocess.Popen(command, env=os.environ | own | environment, stdout=stream, stderr=stream) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(lambda: _serves(f"{address}/healthcheck"), process, Path(stream.name))
            yield address
        finally:
            process.terminate()


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a worker as its operator would: SIGTERM, patience, and only then SIGKILL."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serves(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310  # loopback
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


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
