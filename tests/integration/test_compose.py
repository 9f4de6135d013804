"""The stack of compose.yaml, really started: own project, own passwords, free ports. The tests run in their order."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from stack import environment

from tasks import Settings, StrategyClient, Submission
from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import docker
    from docker.models.containers import Container

COMPOSE = Path(__file__).resolve().parents[2] / "ops/stack/compose"
#: Busy for six seconds: long enough to be killed in.
SLOW = """
import datetime
end = datetime.datetime.now() + datetime.timedelta(seconds=6)
while datetime.datetime.now() < end:
    pass
print('done')
"""


@dataclass(frozen=True)
class Stack:
    """A project of compose, and what asks the engine and Flower about it."""

    name: str
    file: Path
    variables: dict[str, str]
    engine: docker.DockerClient

    def compose(self, *arguments: str) -> None:
        """Run a compose command."""
        command: list[str | Path] = [COMPOSE, "--env-file", self.file, *arguments]
        run = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True, check=False, timeout=100
        )
        assert run.returncode == 0, run.stderr

    def containers(self, service: str = "") -> list[Container]:
        """Return the project's containers, or those of a service, stopped ones included."""
        labels = [f"com.docker.compose.project={self.name}"]
        labels += [f"com.docker.compose.service={service}"] if service else []
        found: list[Any] = self.engine.containers.list(all=True, filters={"label": labels})
        return found

    def flower(self, path: str) -> Any:
        """Ask Flower's HTTP interface."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.variables['STRATBOX_FLOWER_PORT']}{path}")
        user = f"operator:{environment.read(self.file)['STRATBOX_FLOWER_PASSWORD']}"
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
        return None

    def redis_url(self) -> str:
        """Return where producers on this machine find its Redis."""
        return environment.redis_url(environment.read(self.file) | self.variables)


def free_port() -> str:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def stack(docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, one worker and Flower, up; down at the end, whatever happened."""
    name = f"stratbox-test-{uuid.uuid4().hex[:8]}"
    file = tmp_path_factory.mktemp("stack") / ".env"
    environment.write(file)
    ports = {f"STRATBOX_{service}_PORT": free_port() for service in ("REDIS", "FLOWER")}
    opened = Stack(name, file, ports | {"COMPOSE_PROJECT_NAME": name}, docker_client)
    try:
        opened.compose("up", "-d")
        yield opened
    finally:
        opened.compose("down", "--volumes", "--timeout", "10")


@pytest.fixture(scope="module")
def producer(stack: Stack) -> Iterator[StrategyClient]:
    """A producer on the host."""
    with StrategyClient(Settings(redis_url=stack.redis_url())) as opened:
        yield opened


def test_submit_from_the_host(producer: StrategyClient) -> None:
    """What a producer on this machine submits, the worker in its container runs."""
    result = producer.submit("print('hello')", user_id="tenant").result(timeout=60)
    assert result.success, result.error
    assert result.output == "hello\n"


def test_redis_wants_its_password(stack: Stack) -> None:
    """Nobody gets in without it, and nothing is ever evicted or lost with the server."""
    port = int(stack.variables["STRATBOX_REDIS_PORT"])
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis.from_url(stack.redis_url()) as known:
        configuration = known.config_get("maxmemory-policy", "appendonly")
        assert configuration == {"maxmemory-policy": "noeviction", "appendonly": "yes"}


def test_flower_wants_its_password(stack: Stack) -> None:
    """The pages and the interface answer only to who is known."""
    for page in ("/", "/tasks", "/api/workers"):
        url = f"http://127.0.0.1:{stack.variables['STRATBOX_FLOWER_PORT']}{page}"
        with pytest.raises(urllib.request.HTTPError) as refusal:
            urllib.request.urlopen(url, timeout=10)
        refusal.value.close()
        assert refusal.value.code == 401


def test_worker_is_confined(stack: Stack) -> None:
    """It can write nowhere but in /tmp, is not root, has no pip, and process 1 is Celery."""
    (worker,) = stack.containers("worker")
    code = """
import contextlib, importlib.util, json, os, pathlib
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
written = []
for folder in ("/", "/etc", "/opt/stratbox", "/var/lib/stratbox", "/tmp"):
    with contextlib.suppress(OSError):
        pathlib.Path(folder, "probe").touch()
        written.append(folder)
print(json.dumps({
    "uid": os.getuid(), "written": written, "capabilities": int(status["CapEff"], 16),
    "pip": importlib.util.find_spec("pip"),
    "first": "celery" in pathlib.Path("/proc/1/cmdline").read_text().split("\\0"),
}))
"""
    answer = worker.exec_run(["python", "-c", code])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.output) == {
        "uid": 10001, "written": ["/tmp"], "capabilities": 0, "pip": None, "first": True,
    }  # fmt: skip


def test_data_sets_are_kept_in_memory(stack: Stack, producer: StrategyClient) -> None:
    """The worker has a place for them in spite of its read-only root: /tmp, which ends with the container."""
    ref = producer.datasets.put({"price": 7})
    result = producer.submit("print(open('/workspace/data.json').read())", ref).result(timeout=60)
    assert result.output == '{"price":7}\n', result.error
    (worker,) = stack.containers("worker")
    assert ref.digest in worker.exec_run(["sh", "-c", "ls /tmp/stratbox-datasets-*"]).output.decode()


def test_scale_to_three(stack: Stack) -> None:
    """After scaling, Flower shows three workers."""
    stack.compose("up", "-d", "--no-recreate", "--scale", "worker=3", "worker")
    names = {f"celery@{container.id[:12]}" for container in stack.containers("worker")}
    assert len(names) == 3
    until(lambda: set(stack.flower("/api/workers?refresh=1") or ()) == names)


def test_killed_worker_loses_nothing(stack: Stack, producer: StrategyClient) -> None:
    """A worker container killed in the middle of its runs: every submission succeeds, and no sandbox of its is left."""
    submissions = [producer.submit(SLOW, timeout=20) for _ in range(10)]
    until(lambda: len(set(where_they_run(producer, submissions).values())) == 3)
    time.sleep(2.5)  # the next sandboxes are warm by then: see docs/security.md, gap 3
    running = where_they_run(producer, submissions)
    victim = stack.engine.containers.get(next(iter(running.values())))
    lost = {submission for submission, worker in running.items() if victim.id.startswith(worker)}
    victim.kill()
    for submission in submissions:
        if submission.id not in lost:
            assert submission.result(timeout=60).success
    let_deliveries_age(stack)
    for submission in submissions:
        result = submission.result(timeout=40)
        assert result.success, result.error
        assert result.output == "done\n"
    until(lambda: not sandboxes_of(stack.engine, victim.id), seconds=10)


def test_containers_become_healthy(stack: Stack) -> None:
    """The checks of Redis, Flower and the workers that live find them well."""

    def unwell() -> list[str]:
        living = [container for container in stack.containers() if container.status == "running"]
        return [one.name for one in living if one.attrs["State"]["Health"]["Status"] != "healthy"]

    until(lambda: not unwell())


def test_down_leaves_nothing(stack: Stack) -> None:
    """SIGTERM reaches Celery, which leaves at once when idle; no container, network, volume or sandbox is left."""
    workers = [container.id for container in stack.containers("worker")]
    started = time.monotonic()
    stack.compose("down", "--volumes")
    assert time.monotonic() - started < 60, "they were killed at the end of their grace period"
    assert stack.containers() == []
    filters = {"label": f"com.docker.compose.project={stack.name}"}
    assert stack.engine.networks.list(filters=filters) == []
    assert stack.engine.volumes.list(filters=filters) == []
    until(lambda: not any(sandboxes_of(stack.engine, worker) for worker in workers), seconds=10)


def where_they_run(producer: StrategyClient, submissions: list[Submission]) -> dict[str, str]:
    """Return the id of each submission that runs, and the container of its worker."""
    meta = {one.id: producer.meta(one.id) for one in submissions}
    return {id_: it["result"]["hostname"].split("@")[1] for id_, it in meta.items() if it["status"] == "STARTED"}


def let_deliveries_age(stack: Stack) -> None:
    """Make what was delivered and not acknowledged older than the visibility timeout, instead of waiting for it."""
    with redis.Redis.from_url(stack.redis_url()) as server:
        deliveries = server.zrange("unacked_index", 0, -1)
        assert deliveries, "nothing was running when the worker was killed"
        for delivery in deliveries:
            for index in ("stratbox:celery:started", "unacked_index"):
                server.zadd(index, {delivery: -Settings().visibility_timeout_seconds}, xx=True, incr=True)


def sandboxes_of(engine: docker.DockerClient, worker: str) -> list[str]:
    """Return the ids of the sandboxes of a worker in a container."""
    found = engine.api.containers(all=True, filters={"label": OWNER_LABEL})
    return [one["Id"] for one in found if worker.startswith(Owner.parse(one["Labels"][OWNER_LABEL]).host)]
