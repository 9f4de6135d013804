"""Redis or the engine goes away while strategies come in a trickle: each that was accepted ends as if nothing had been.

OUTAGE_SECONDS, 3 by default, is how long they stay away.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import redis
from local import CONFIG, private_redis, private_worker

from tasks import Settings, StrategyClient, SubmissionState
from tasks.app import READY_PRIORITY
from tasks.errors import BrokerUnavailable
from worker.sandbox.config import SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tasks import Submission

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "3"))
INTERVAL_SECONDS = 0.5
CODE = "import time\ntime.sleep(0.3)\nprint({number})"


class Server:
    """A server that can be away for a while."""

    def __init__(self, command: list[str], answers: Callable[[], bool]) -> None:
        self._command = command
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, f"{self._command[0]} does not start"
            assert time.monotonic() < deadline, f"{self._command[0]} does not answer"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it as its operator would, and wait until it has ended."""
        if self._process:
            self._process.terminate()
            self._process.wait(30)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A Redis that keeps its data, and its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    server = Server(["redis-server", str(CONFIG), "--port", str(port), "--dir", str(tmp_path)], answers)
    server.start()
    yield server, f"redis://127.0.0.1:{port}/0"
    server.stop()


@pytest.fixture
def engine() -> Iterator[tuple[Server, str]]:
    """An engine of its own that has the executor image, and its URL."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("a second engine takes root and the dockerd program")
    with tempfile.TemporaryDirectory(prefix="d") as folder:  # short: the path of a socket has 107 characters at most
        url = f"unix://{folder}/docker.sock"
        folders = ["--pidfile", f"{folder}/pid", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        # In namespaces of its own: it would take the bridge of the engine beside it down, and leave its mounts behind.
        command = ["unshare", "--net", "--mount", "dockerd", "--host", url, *folders]

        def answers() -> bool:
            return (
                subprocess.run(["docker", "--host", url, "version"], capture_output=True, check=False).returncode == 0
            )

        server = Server(command, answers)
        server.start()
        try:
            copy = f"docker save {SandboxConfig().image} | docker --host {url} load"
            subprocess.run(["sh", "-c", copy], check=True, stdout=subprocess.DEVNULL, timeout=60)
            yield server, url
        finally:
            server.stop()


def trickle(client: StrategyClient, seconds: float) -> list[Submission]:
    """Submit at an even pace; return what was accepted."""
    accepted: list[Submission] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BrokerUnavailable):
            accepted.append(client.submit(CODE.format(number=len(accepted)), timeout=10))
        time.sleep(INTERVAL_SECONDS)
    return accepted


def endings(submissions: list[Submission]) -> Counter[str]:
    """Return how often each ending occurred."""
    return Counter(submission.result(timeout=90).status.value for submission in submissions)


def records(log: Path) -> list[dict[str, Any]]:
    """Return the log's records; what is none of them comes from Celery's start and end."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def news(log: Path) -> list[str]:
    """Return what the log tells of beside single submissions, from the moment the worker was ready.

    A message that was on its way when Redis went away is brought back, and the log says that, too.
    """
    told = [record["event"] for record in records(log)]
    ready = next(number for number, event in enumerate(told) if event.endswith(" ready."))
    single = {"execution ended", "brought back a submission whose message was lost"}
    return [event for event in told[ready + 1 :] if event not in single]


def test_redis_away(redis_server: tuple[Server, str], tmp_path: Path) -> None:
    """The worker waits and says so once; what was accepted runs, and runs that ended meanwhile have their result."""
    server, url = redis_server
    log = tmp_path / "worker.log"
    with private_worker(url, log=log), StrategyClient(Settings(redis_url=url)) as client:
        before = [*trickle(client, 1), client.submit("import time\ntime.sleep(2)\nprint('across')")]
        server.stop()
        during = trickle(client, OUTAGE_SECONDS)
        server.start()
        after = trickle(client, 2)
        assert during == []
        assert len(after) > 0
        assert endings(before + after) == {"succeeded": len(before) + len(after)}
    away, back = news(log)
    assert away == "Redis is away, waiting for it"
    assert back.startswith("Redis is back after ")


def test_engine_away(engine: tuple[Server, str], tmp_path: Path) -> None:
    """Strategies wait in the queue, one that ran is run again, and the log has a line at each end."""
    server, docker_host = engine
    log = tmp_path / "worker.log"
    with (
        private_redis() as url,
        private_worker(url, log=log, DOCKER_HOST=docker_host),
        StrategyClient(Settings(redis_url=url)) as client,
    ):
        before = [*trickle(client, 1), client.submit("import time\ntime.sleep(4)\nprint('again')")]
        while before[-1].status() is SubmissionState.QUEUED:
            time.sleep(0.1)
        server.stop()
        during = trickle(client, OUTAGE_SECONDS)
        server.start()
        after = trickle(client, 2)
        everything = before + during + after
        assert endings(everything) == {"succeeded": len(everything)}
    assert news(log) == ["no sandbox can be started, strategies wait", "sandboxes start again"]


def test_a_second_sigterm_is_cold(tmp_path: Path) -> None:
    """It ends the worker long before what it runs would end, and that goes back to the queue."""
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        with private_worker(url, concurrency=1, log=tmp_path / "log") as process:
            submission = client.submit("import time\ntime.sleep(50)", timeout=60)
            while submission.status() is not SubmissionState.RUNNING:
                time.sleep(0.1)
            process.terminate()
            time.sleep(1)
            assert process.poll() is None, "the first one waits for what runs"
            process.terminate()
            process.wait(20)
        with redis.Redis.from_url(url) as server:
            assert server.llen(f"{client.settings.queue}:{READY_PRIORITY}") == 1
            assert server.hlen("unacked") == 0
            assert server.zcard(f"stratbox:{client.settings.queue}:started") == 0
