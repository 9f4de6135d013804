"""What the doctor says of limits: each holds under every runtime, and its row fails where nothing holds it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionLimits
from tests.security.controls import Control, all_of, allowing, container, host, sandbox_config
from worker import SandboxConfig
from worker.doctor import PROBES, Probe, examine_limits

if TYPE_CHECKING:
    import docker

    from tests.security.controls import Change

#: Row, and what takes its control away. Output and deadline have no row here: runner and worker both hold them.
WITHOUT: dict[str, Change] = {
    "CPU share": host(NanoCpus=0),
    "memory": host(Memory=0, MemorySwap=0),
    "processes": host(PidsLimit=0),
    "no network": all_of(container(NetworkDisabled=False), host(NetworkMode="bridge")),
    "no sockets": allowing("socket"),
    "read-only files": host(IpcMode="private"),
    "no privileges": host(CapDrop=[]),
}


@pytest.fixture(params=["runc", "runsc"])
def runtime(request: pytest.FixtureRequest, docker_client: docker.DockerClient) -> str:
    """Each runtime that the engine has."""
    name: str = request.param
    if name not in docker_client.info()["Runtimes"]:
        pytest.skip(f"the engine has no runtime {name}: `make gvisor` installs and registers runsc")
    return name


def probe(name: str) -> Probe:
    """Return the probe behind a row."""
    (found,) = (one for one in PROBES if one.name == name)
    return found


def test_every_limit_holds(runtime: str) -> None:
    """One good row for each probe, in their order; under gVisor those that hold less say so."""
    config = SandboxConfig(runtime=runtime)
    findings = list(examine_limits(config))
    assert [found for found in findings if not found.good] == []
    assert [found.name for found in findings] == [one.name for one in PROBES]
    lesser = {found.name for found in findings if "gVisor" in found.detail}
    assert lesser == ({"no sockets", "no privileges"} if config.gvisor else set())


@pytest.mark.parametrize("row", WITHOUT)
def test_a_row_fails_without_its_control(row: str) -> None:
    """Whatever else holds; and it is the probe that failed, not the sandbox's start."""
    config = sandbox_config(None, Control((), WITHOUT[row]))
    if row == "CPU share":  # so low that a busy machine does not look like a quota
        config = config.model_copy(update={"limits": ExecutionLimits(cpus=0.05)})
    (found,) = examine_limits(config, [probe(row)])
    assert not found.good
    assert "sandbox" not in found.detail


def test_a_socket_that_can_be_made_is_named() -> None:
    """Each family that the filter lets through."""
    (found,) = examine_limits(sandbox_config(None, Control((), allowing("socket"))), [probe("no sockets")])
    assert {"AF_UNIX made", "AF_INET made", "AF_INET6 made", "AF_NETLINK made"} <= set(found.detail.split(", "))


def test_what_cannot_be_judged_does_not_hold() -> None:
    """A program that says something else, or ends otherwise, is a bad row; the next limit is tried all the same."""
    odd = [dataclasses.replace(probe(name), code="print('?')") for name in ("data file", "CPU share", "output cap")]
    broken = dataclasses.replace(probe("processes"), code="1 / 0")
    assert [(found.good, found.detail) for found in examine_limits(SandboxConfig(), [*odd, broken])] == [
        (False, "unexpected output '?\\n'"),
        (False, "unexpected output '?\\n'"),
        (False, "2 bytes kept"),
        (False, "failed instead of succeeded (ZeroDivisionError: division by zero (line 1))"),
    ]
