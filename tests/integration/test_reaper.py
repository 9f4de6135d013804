"""The reaper: removes what the dead left, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from worker import SandboxConfig, reaper
from worker.sandbox.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker


@pytest.fixture
def created(docker_client: docker.DockerClient) -> Iterator[dict[str, str]]:
    """Containers that were created and never started: of a dead owner, a live one, another host, and nobody."""
    me = Owner.current()
    owners = {
        "dead": str(dataclasses.replace(me, started=1)),
        "alive": str(me),
        "elsewhere": str(dataclasses.replace(me, host="elsewhere", started=1)),
        "strange": "somebody else's label",
    }
    api = docker_client.api
    ids = {
        name: api.create_container_from_config(SandboxConfig().container_spec(o))["Id"] for name, o in owners.items()
    }
    yield ids
    for container in docker_client.containers.list(all=True, ignore_removed=True):
        if container.id in ids.values():
            container.remove(force=True)


def test_only_the_dead_ones_containers_are_removed(docker_client: docker.DockerClient, created: dict[str, str]) -> None:
    """A sweep takes the dead owner's container, and a second finds nothing."""
    assert created["dead"] in reaper.sweep()
    left = {found["Id"] for found in docker_client.api.containers(all=True)}
    assert {name for name, container_id in created.items() if container_id in left} == {"alive", "elsewhere", "strange"}
    assert created["dead"] not in reaper.sweep()


def test_what_was_never_started_is_removed_in_the_end(
    docker_client: docker.DockerClient, created: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owned it: a worker in a container that is gone, too, cannot be asked for. One that runs is left alone."""
    listed = docker_client.api.containers(all=True, filters={"id": list(created.values())})
    assert len(listed) == len(created)
    assert not any(reaper._was_never_started(found) for found in listed)
    # Not by a sweep: others' sandboxes may be starting at this very moment.
    monkeypatch.setattr(reaper, "NEVER_STARTED_SECONDS", -60)
    assert all(reaper._was_never_started(found) for found in listed)
    assert not any(reaper._was_never_started({**found, "State": "running"}) for found in listed)


def test_no_engine_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the engine away, a sweep does nothing and says nothing."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert reaper.sweep() == []
