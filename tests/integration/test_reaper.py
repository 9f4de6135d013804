"""The reaper: removes what the dead left, and nothing else."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import docker.errors
import pytest
from local import private_redis

from tests.waiting import until
from worker import SandboxConfig, reaper
from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ALIVE = Owner.current()
DEAD = replace(ALIVE, started=1)
OWNERS = {
    "alive": ALIVE,
    "dead": DEAD,
    "another boot": replace(DEAD, boot="another"),
    "another host": replace(DEAD, boot="another", host="elsewhere"),
    "another namespace": replace(DEAD, namespace="pid:[1]"),
}
#: Sweeps once it is told to, and says what it removed. Its host has a name of its own: no other reaper judges there.
SWEEP = """
import json, socket, sys
from worker import reaper
socket.gethostname = lambda: sys.argv[1]
print("?", flush=True)
input()
print(json.dumps(reaper.sweep()))
"""


def still_there(client: docker.DockerClient, ids: Iterable[str]) -> set[str]:
    """Return those of the containers that the engine still has."""
    return {found["Id"] for found in client.api.containers(all=True)} & set(ids)


def sweep_until_gone(client: docker.DockerClient, ids: list[str]) -> None:
    """Sweep once, and wait: the reaper of a worker beside these tests may be at it, and this one leaves it to that."""
    reaper.sweep()
    until(lambda: not still_there(client, ids))


def owned_by(client: docker.DockerClient, pids: set[int]) -> list[str]:
    """Return the sandboxes of these processes."""
    found = client.api.containers(all=True, filters={"label": OWNER_LABEL})
    return [one["Id"] for one in found if any(f"/{pid}/" in one["Labels"][OWNER_LABEL] for pid in pids)]


def children(process: subprocess.Popen[bytes]) -> set[int]:
    """Return the children of a process."""
    return {int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}


@pytest.fixture
def make(docker_client: docker.DockerClient) -> Iterator[Callable[..., str]]:
    """Make containers that cost next to nothing, with these labels and in this state; remove what is left of them."""
    api, made = docker_client.api, []

    def make_one(labels: dict[str, str], state: str = "created") -> str:
        seconds = 60 if state == "running" else 0
        spec = SandboxConfig().container_spec("") | {"Labels": labels}
        spec["Entrypoint"] = ["/python", "-I", "-S", "-c", f"import time; time.sleep({seconds})"]
        spec["HostConfig"]["AutoRemove"] = False  # what the engine failed to do
        made.append(container_id := api.create_container_from_config(spec)["Id"])
        with contextlib.suppress(docker.errors.NotFound):  # the reaper of a worker beside these tests was quicker
            if state != "created":
                api.start(container_id)
            if state == "exited":
                api.wait(container_id)
        return str(container_id)

    yield make_one
    for container_id in still_there(docker_client, made):
        with contextlib.suppress(docker.errors.APIError):
            api.remove_container(container_id, force=True)


def test_only_what_the_dead_left_is_removed(docker_client: docker.DockerClient, make: Callable[..., str]) -> None:
    """A dead owner's, whatever its state; another boot's once it has ended; nothing of who lives or is not seen."""
    states = ("created", "running", "exited")
    made = {(who, state): make({OWNER_LABEL: str(owner)}, state) for who, owner in OWNERS.items() for state in states}
    expected = {("dead", "created"), ("dead", "running"), ("dead", "exited"), ("another boot", "exited")}
    sweep_until_gone(docker_client, [made[case] for case in expected])
    left = still_there(docker_client, made.values())
    assert {case for case, container_id in made.items() if container_id not in left} == expected
    assert not set(reaper.sweep()) & set(made.values()), "there was nothing more to do"


@pytest.mark.parametrize("state", ["exited", "dead"])
def test_another_boots_is_an_orphan_in_either_end(state: str) -> None:
    """An engine calls `dead` what it could remove in part only; it cannot be made to."""
    label = {OWNER_LABEL: str(OWNERS["another boot"])}
    assert reaper._is_orphan({"Labels": label, "State": state})
    assert not reaper._is_orphan({"Labels": label, "State": "restarting"})


@pytest.mark.parametrize(
    "labels",
    [{}, {"owner": str(DEAD)}, {OWNER_LABEL: "somebody else's"}, {OWNER_LABEL: str(replace(DEAD, pid=10**20))}],
    ids=["none", "another name", "another value", "an impossible process"],
)
def test_what_is_not_ours_is_left_alone(
    docker_client: docker.DockerClient, make: Callable[..., str], labels: dict[str, str]
) -> None:
    """Containers without our label, or with one we did not write, do not stop a sweep, either."""
    theirs, ours = make(labels), make({OWNER_LABEL: str(DEAD)})
    sweep_until_gone(docker_client, [ours])
    assert still_there(docker_client, [theirs])


def test_two_at_once(docker_client: docker.DockerClient, make: Callable[..., str]) -> None:
    """Two reapers that sweep at the same moment remove everything, and neither fails nor counts what the other did."""
    host = f"host-{uuid.uuid4().hex}"
    command = [sys.executable, "-c", SWEEP, host]
    with (
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one,
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        ids = [make({OWNER_LABEL: str(replace(DEAD, host=host))}) for _ in range(10)]
        for process in (one, other):
            assert process.stdout
            assert process.stdout.readline() == "?\n"
        for process in (one, other):
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        said = [container_id for process in (one, other) for container_id in json.loads(process.communicate()[0])]
    assert not still_there(docker_client, ids)
    assert sorted(container_id for container_id in said if container_id in ids) == sorted(ids)


def test_what_was_never_started_is_removed_in_the_end(
    docker_client: docker.DockerClient, make: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owned it: a worker in a container that is gone, too, cannot be asked for. One that runs is left alone."""
    ids = [make({OWNER_LABEL: str(owner)}) for who, owner in OWNERS.items() if who != "dead"]
    listed = docker_client.api.containers(all=True, filters={"id": ids})
    assert len(listed) == len(ids)
    assert not any(reaper._was_never_started(found) for found in listed)
    # Not by a sweep: others' sandboxes may be starting at this very moment.
    monkeypatch.setattr(reaper, "NEVER_STARTED_SECONDS", -60)
    assert all(reaper._was_never_started(found) for found in listed)
    assert not any(reaper._was_never_started({**found, "State": "running"}) for found in listed)


def test_no_engine_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the engine away, a sweep does nothing and says nothing."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert reaper.sweep() == []


def test_the_engine_comes_back(
    docker_client: docker.DockerClient,
    make: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A reaper whose engine is away goes on, and does its work once it is back."""
    monkeypatch.setattr(reaper, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(reaper, "LAST_SWEEPS", ())
    caplog.set_level(logging.DEBUG, "worker.reaper")
    read, lifeline = os.pipe()
    watching = threading.Thread(target=reaper.watch, args=[read])
    try:
        with monkeypatch.context() as patch:
            patch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
            watching.start()
            until(lambda: caplog.text.count("no sweep this time") >= 2)
            orphan = make({OWNER_LABEL: str(DEAD)})
        until(lambda: not still_there(docker_client, [orphan]))
    finally:
        os.close(lifeline)
        watching.join()
        os.close(read)


def kill_as_it_starts(client: docker.DockerClient, redis_url: str) -> set[int]:
    """Start a worker, kill its process group as soon as it has a container, and return what were its processes."""
    env = os.environ | {"STRATBOX_REDIS_URL": redis_url, "STRATBOX_METRICS_PORT": "0"}
    command = [sys.executable, "-m", "worker.cli", "worker", "--concurrency", "2"]
    quiet = subprocess.DEVNULL
    creations = client.api.events(filters={"event": "create", "label": OWNER_LABEL}, decode=True)
    with (
        contextlib.closing(creations),
        subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet, start_new_session=True) as worker,
    ):
        try:
            # Not by asking again and again: the instant before the start of a container is short.
            owners = (Owner.parse(event["Actor"]["Attributes"][OWNER_LABEL]) for event in creations)
            next(owner for owner in owners if owner.pid in children(worker))
            return children(worker)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)


def test_a_worker_that_restarts_in_a_loop_leaves_nothing(docker_client: docker.DockerClient) -> None:
    """Killed with -9 each time its first sandboxes are created, or just started: all of them are gone soon after."""
    with private_redis() as url:
        owners = set[int]().union(*(kill_as_it_starts(docker_client, url) for _ in range(4)))
        until(lambda: not owned_by(docker_client, owners), seconds=10)
        time.sleep(0.5)
        assert not owned_by(docker_client, owners), "nothing came up after the kill"
