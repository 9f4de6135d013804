"""From limits to a container: what every sandbox is created with."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.models import ExecutionLimits
from worker.sandbox.config import SandboxConfig
from worker.sandbox.owner import OWNER_LABEL

#: What would open the sandbox, in either half of the engine's call, unless it is empty.
OPENINGS = {
    *("Env", "ExposedPorts", "Volumes", "Healthcheck", "Tty"),
    *(
        "Binds",
        "Mounts",
        "Tmpfs",
        "VolumesFrom",
        "Devices",
        "DeviceRequests",
        "DeviceCgroupRules",
        "CapAdd",
        "GroupAdd",
    ),
    *("PortBindings", "PublishAllPorts", "Links", "ExtraHosts", "Dns", "Sysctls", "RestartPolicy", "ShmSize"),
    *("PidMode", "UTSMode", "UsernsMode", "CgroupnsMode", "CgroupParent", "ContainerIDFile"),
}


def test_the_container_is_locked_down() -> None:
    """Each line of the design's list of limits."""
    spec = SandboxConfig().container_spec("host/7")
    host = spec["HostConfig"]
    assert spec["User"] == "1000:1000"
    assert spec["NetworkDisabled"] is True
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert not [option for option in host["SecurityOpt"] if "unconfined" in option or option == "label=disable"]
    assert host["IpcMode"] == "none"
    assert host["Privileged"] is False
    assert host["OomKillDisable"] is False
    assert host["LogConfig"] == {"Type": "none"}


@pytest.mark.parametrize(("name", "limit"), [("msgqueue", 0), ("nofile", 256), ("core", 0)])
def test_ulimits(name: str, limit: int) -> None:
    """Soft and hard alike, so that a strategy cannot raise its own."""
    ulimits = SandboxConfig().container_spec("host/7")["HostConfig"]["Ulimits"]
    assert {"Name": name, "Soft": limit, "Hard": limit} in ulimits


def test_the_container_dies_with_its_worker() -> None:
    """The end of its input ends the runner, and the engine then removes the container."""
    spec = SandboxConfig().container_spec("host/7")
    assert (spec["OpenStdin"], spec["StdinOnce"], spec["AttachStdin"]) == (True, True, True)
    assert spec["HostConfig"]["AutoRemove"] is True


def test_nothing_opens_the_sandbox() -> None:
    """No variable, mount, device, capability, port, namespace of the host, nor second life."""
    spec = SandboxConfig(runtime="runsc").container_spec("host/7")
    assert sorted(OPENINGS & (spec.keys() | spec["HostConfig"].keys())) == []


def test_the_owner_is_on_the_label() -> None:
    """So that what a dead worker left can be found."""
    assert SandboxConfig().container_spec("host/7")["Labels"] == {OWNER_LABEL: "host/7"}


def test_the_hostname_tells_nothing() -> None:
    """Neither the container's id nor the worker's name."""
    assert SandboxConfig().container_spec("host/7")["Hostname"] == "sandbox"


def test_the_runtime_is_the_engine_s_unless_one_is_named() -> None:
    """An empty name would be an error to the engine."""
    assert "Runtime" not in SandboxConfig().container_spec("host/7")["HostConfig"]
    assert SandboxConfig(runtime="runsc").container_spec("host/7")["HostConfig"]["Runtime"] == "runsc"


@pytest.mark.parametrize("runtime", ["runsc", "runsc-systrap"])
def test_gvisor_bounds_processes_itself(runtime: str) -> None:
    """The cgroup counts gVisor's own threads too: with the strategy's limit alone there it would not even start."""
    host = SandboxConfig(runtime=runtime).container_spec("host/7")["HostConfig"]
    assert {"Name": "nproc", "Soft": 32, "Hard": 32} in host["Ulimits"]
    assert host["PidsLimit"] == 32 + 256


@pytest.mark.parametrize("runtime", [None, "runc", "crun", "kata-runsc"])
def test_the_host_s_kernel_bounds_processes_by_cgroup(runtime: str | None) -> None:
    """Its RLIMIT_NPROC is shared by all containers of a uid: one strategy would use up another's."""
    host = SandboxConfig(runtime=runtime).container_spec("host/7")["HostConfig"]
    assert "nproc" not in {ulimit["Name"] for ulimit in host["Ulimits"]}
    assert host["PidsLimit"] == 32


def test_default_limits_reach_the_engine() -> None:
    """In the engine's own units."""
    host = SandboxConfig().container_spec("host/7")["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (5 * 10**8, 2**28, 2**28, 32)


@given(
    limits=st.builds(
        ExecutionLimits,
        cpus=st.floats(0.01, 64),
        memory_bytes=st.integers(96 * 2**20, 2**40),
        pids=st.integers(4, 4096),
    ),
    owner=st.text(max_size=20),
)
def test_limits_reach_the_engine_exactly(limits: ExecutionLimits, owner: str) -> None:
    """No swap whatever the memory, and the engine is sent JSON, the same for the same input."""
    config = SandboxConfig(limits=limits)
    spec = config.container_spec(owner)
    host = spec["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == limits.memory_bytes
    assert host["NanoCpus"] == pytest.approx(limits.cpus * 1e9, abs=1)
    assert host["PidsLimit"] == limits.pids
    assert json.loads(json.dumps(spec)) == spec == config.container_spec(owner)


def test_no_accepted_share_of_a_core_means_unlimited() -> None:
    """To the engine, 0 stands for all there is."""
    with pytest.raises(ValidationError):
        ExecutionLimits(cpus=1e-10)
    assert SandboxConfig(limits=ExecutionLimits(cpus=0.01)).container_spec("host/7")["HostConfig"]["NanoCpus"] > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"image": ""},
        {"start_timeout_seconds": 0},
        {"start_timeout_seconds": 60.1},
        {"network": "host"},
        {"max_spares": 0},
        {"max_runs_per_container": 0},
        {"max_runs_per_container": 10_001},
        {"max_runs_per_container": 1.5},
        {"max_age_seconds": 0},
        {"max_age_seconds": float("nan")},
    ],
)
def test_wrong_settings_are_refused(fields: dict[str, object]) -> None:
    """Unknown names included: nothing is opened by a name this version does not know."""
    with pytest.raises(ValidationError, match=next(iter(fields))):
        SandboxConfig.model_validate(fields)


def test_a_container_serves_once_unless_the_operator_allows_more() -> None:
    """The safe setting is the default."""
    assert SandboxConfig().max_runs_per_container == 1


@pytest.mark.parametrize("runtime", [None, "runc"])
def test_under_runc_a_container_may_serve_many(runtime: str | None) -> None:
    """Nothing of a run is left there for the next."""
    assert SandboxConfig(runtime=runtime, max_runs_per_container=20).max_runs_per_container == 20


@pytest.mark.parametrize("runtime", ["runsc", "runsc-systrap", "crun", "kata", "runc-patched", "RUNC", ""])
def test_under_another_runtime_it_may_not(runtime: str) -> None:
    """The message says what to leave out; once for each container it may be any."""
    with pytest.raises(ValidationError, match=r"max_runs_per_container: under .* STRATBOX_SANDBOX_RUNTIME"):
        SandboxConfig(runtime=runtime, max_runs_per_container=2)
    assert SandboxConfig(runtime=runtime, max_runs_per_container=1).runtime == runtime


def test_how_often_a_container_serves_changes_nothing_about_it() -> None:
    """One that serves many is as locked down as one that serves once; and never under the engine's own default."""
    many = SandboxConfig(max_runs_per_container=20).container_spec("host/7")
    assert many["HostConfig"]["Runtime"] == "runc"
    assert many == SandboxConfig(runtime="runc").container_spec("host/7")
