"""CIS Docker Benchmark 1.6, section 5, on a waiting sandbox as the engine describes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.security.arena import Arena

Attributes = dict[str, Any]
#: Answers for one item, from the container's own and its host configuration.
Check = Callable[[Attributes, Attributes], bool]

#: Not here, as they are about how people use the engine and not about a container: 5.22 and 5.23 (`docker exec`: the
#: worker never calls it), 5.27 (image versions: named by tag). 5.26 (health checks) is for services: a sandbox is
#: asked whether it lives before its one run, and has a deadline in it.
ITEMS: dict[str, Check] = {
    "5.3 capabilities": lambda _, host: host["CapDrop"] == ["ALL"] and not host["CapAdd"],
    "5.4 not privileged": lambda _, host: host["Privileged"] is False,
    "5.5 no directory of the host": lambda own, host: (
        not own["Mounts"] and not host["Binds"] and not host.get("Mounts")
    ),
    "5.6 no ssh": lambda own, _: own["Path"] == "/python" and "worker.sandbox.boot" in " ".join(own["Args"]),
    "5.7 no privileged port": lambda _, host: not host["PortBindings"],
    "5.8 no open port": lambda own, _: not own["Config"].get("ExposedPorts"),
    "5.9 network namespace of its own": lambda _, host: host["NetworkMode"] == "none",
    "5.10 memory limited, swap too": lambda _, host: host["Memory"] == host["MemorySwap"] == 256 << 20,
    "5.11 CPU limited": lambda _, host: host["NanoCpus"] == 500_000_000,
    "5.12 read-only root": lambda _, host: host["ReadonlyRootfs"] is True,
    "5.13 no port on any interface": lambda own, _: not own["NetworkSettings"]["Ports"],
    "5.14 never restarted": lambda _, host: host["RestartPolicy"]["Name"] in {"", "no"},
    "5.15 process namespace of its own": lambda _, host: host["PidMode"] == "",
    "5.16 IPC namespace of its own": lambda _, host: host["IpcMode"] == "none",
    "5.17 no device of the host": lambda _, host: not host["Devices"] and not host["DeviceRequests"],
    "5.18 ulimits": lambda _, host: (
        {one["Name"]: one["Hard"] for one in host["Ulimits"]}.items()
        >= {"nofile": 256, "core": 0, "msgqueue": 0}.items()
    ),
    "5.19 no shared mount": lambda own, _: not [one for one in own["Mounts"] if one["Propagation"] == "shared"],
    "5.20 UTS namespace of its own": lambda _, host: host["UTSMode"] == "",
    "5.21 seccomp on": lambda _, host: "seccomp=unconfined" not in host["SecurityOpt"],
    "5.24 the engine's own cgroup": lambda _, host: host["CgroupParent"] == "",
    "5.25 no new privileges": lambda _, host: "no-new-privileges:true" in host["SecurityOpt"],
    "5.28 processes limited": lambda _, host: 0 < host["PidsLimit"] <= 32 + 256,
    "5.29 not on the default bridge": lambda own, _: "bridge" not in own["NetworkSettings"]["Networks"],
    "5.30 user namespace not the host's by choice": lambda _, host: host["UsernsMode"] != "host",
    "5.31 no engine socket": lambda own, host: (
        "docker.sock" not in f"{own['Mounts']}{host['Binds']}{host.get('Mounts')}"
    ),
}


@pytest.fixture(scope="module")
def inspected(module_arena: Arena) -> Attributes:
    """What the engine says of one waiting sandbox."""
    module_arena.executor.wait_until_warm()
    return module_arena.own_containers()[0]


@pytest.mark.threat("what the CIS Docker Benchmark, section 5, warns of", control="the container's settings")
@pytest.mark.parametrize("item", ITEMS)
def test_item_holds(inspected: Attributes, item: str) -> None:
    """One item of the benchmark."""
    assert ITEMS[item](inspected, inspected["HostConfig"]), inspected


@pytest.mark.threat("what the CIS Docker Benchmark, section 5, warns of", control="the container's settings")
def test_mandatory_access_control_is_not_switched_off(module_arena: Arena, inspected: Attributes) -> None:
    """5.1 and 5.2: where the engine has AppArmor or SELinux, a sandbox is under it."""
    options = " ".join(module_arena.client.info()["SecurityOptions"])
    assert not [
        option for option in inspected["HostConfig"]["SecurityOpt"] if "apparmor" in option or "label" in option
    ]
    assert inspected["AppArmorProfile"] == ("docker-default" if "apparmor" in options else "")
    assert bool(inspected["ProcessLabel"]) == ("selinux" in options)
