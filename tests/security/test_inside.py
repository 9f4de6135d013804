"""A look around from inside: privileges, mounts, files, processes, secrets, network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.security.arena import Arena

STATUS = """
    status = dict(line.rstrip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
    print(json.dumps({
        'ids': [os.getresuid(), os.getresgid(), os.getgroups()],
        'capabilities': {name: int(value, 16) for name, value in status.items() if name.startswith('Cap')},
        'no_new_privileges': status.get('NoNewPrivs'), 'seccomp': status.get('Seccomp'),
        'dumpable': libc.prctl(3, 0, 0, 0, 0),
        'own_session': os.getsid(0) == os.getpgrp() == os.getpid(),
    }))
"""

MOUNTS = """
    rows = []
    for line in open('/proc/self/mountinfo'):
        left, _, right = line.partition(' - ')
        fields, (kind, source, *_) = left.split(), right.split()
        rows.append([fields[4], kind, source, fields[5].split(','), fields[3]])
    print(json.dumps(rows))
"""

#: Writes to all that is there but devices and its own pipes, and creates a file in each folder.
WALK = """
    import stat
    tried, written, created, devices = 0, [], [], []
    for top, folders, names in os.walk('/'):
        # Each process directory in /proc is the same again, once for each thread.
        folders[:] = [name for name in folders if not (top.startswith('/proc/') and name == 'task')]
        tried += 1
        try:
            os.close(os.open(os.path.join(top, 'planted'), os.O_CREAT | os.O_WRONLY, 0o600))
            created.append(top)
        except OSError:
            pass
        for name in names:
            path = os.path.join(top, name)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            except OSError:
                continue
            kind = os.fstat(fd).st_mode
            if stat.S_ISCHR(kind):
                devices.append(path.replace(str(os.getpid()), 'self'))
            # The kernel lets anybody open some of its files, the sealed data too, and checks what is written.
            elif not stat.S_ISFIFO(kind) and refusal(os.write, fd, b'1') == 'done':
                written.append(path.replace(str(os.getpid()), 'self'))
            os.close(fd)
    print(json.dumps({'tried': tried, 'written': written, 'created': created, 'devices': devices}))
"""

SURROUNDINGS = """
    import platform
    def read(path):
        try:
            return open(path, errors='replace').read()
        except OSError:
            return None
    print(json.dumps({
        'environment': dict(os.environ), 'hostname': platform.node(), 'argv': sys.argv,
        'processes': sorted(int(name) for name in os.listdir('/proc') if name.isdigit()), 'self': os.getpid(),
        'home': os.listdir('/workspace'), 'sockets': [path for path in (
            '/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/podman/podman.sock',
            '/var/run/secrets', '/run/secrets', '/root', '/home', '/etc/shadow', '/etc/ssl', '/etc/ssh') if
            os.path.exists(path)],
        'hosts': read('/etc/hosts'), 'keys': read('/proc/keys'),
    }))
"""

NETWORK = """
    interfaces = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]
    print(json.dumps([interfaces, open('/proc/net/route').readlines()[1:]]))
"""

CAPABILITY_SETS = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
#: What the engine mounts writable: process information, which the kernel guards by itself, and devices.
#: Message queues are there, and no byte for them: `test_memory.py`.
KERNEL_MOUNTS = {"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/mqueue": "mqueue"}
DEVICES = {f"/dev/{name}" for name in "null zero full random urandom tty ptmx pts/ptmx stdin".split()} | {
    "/proc/self/fd/0"
}
#: Of gVisor's own kernel; they need capabilities to be of use. Descriptor 3 of the runner is /dev/null.
GVISOR_DEVICES = {"/dev/fuse", "/dev/net/tun", "/proc/1/fd/3"}
#: How late its own timers may be: a matter of the process itself.
OWN = {"/proc/self/timerslack_ns"}
#: Paths that the engine hides behind /dev/null or an empty file system.
MASKED = re.compile(r"/(proc|sys)/[a-z_/]+")
ENVIRONMENT = set(
    "PATH HOME LANG HOSTNAME PYTHONUTF8 PYTHONHASHSEED PYTHONDONTWRITEBYTECODE PYTHONMALLOC "
    "MIMALLOC_ALLOW_LARGE_OS_PAGES OPENBLAS_NUM_THREADS OMP_NUM_THREADS".split()
)


@pytest.mark.threat(
    "privileges",
    control="uid and gid 1000, no capability, no-new-privileges, seccomp, not dumpable, own session",
    differs="gVisor reports no seccomp of its own",
)
def test_process_has_no_privilege(arena: Arena) -> None:
    """As /proc/self/status tells it."""
    status = arena.probe(STATUS)
    assert status["ids"] == [[1000] * 3, [1000] * 3, [1000]]
    if arena.gvisor:
        assert not any(status["capabilities"].values())
        return
    assert status["capabilities"] == dict.fromkeys(CAPABILITY_SETS, 0)
    assert status["no_new_privileges"] == "1"
    assert status["seccomp"] == "2"
    assert status["dumpable"] == 0
    assert status["own_session"]


@pytest.mark.threat(
    "mounts of the host, writable mounts",
    control="read-only root, no volume, no tmpfs; the engine's masks",
    differs="the list of mounts is gVisor's",
)
def test_every_mount_is_read_only_or_masked(arena: Arena) -> None:
    """But for process information and devices, every mount is read-only or hides something of the kernel's."""
    mounts = arena.probe(MOUNTS)
    writable = [row for row in mounts if "ro" not in row[3]]
    unexpected = [
        (path, kind)
        for path, kind, *_ in writable
        if KERNEL_MOUNTS.get(path) != kind and not (kind in {"tmpfs", "devtmpfs"} and MASKED.fullmatch(path))
    ]
    if arena.gvisor:
        assert [path for path, kind in unexpected if kind in {"ext4", "xfs", "overlay", "9p", "gofer"}] in ([], ["/"])
        return
    assert unexpected == []
    assert "ro" in next(row[3] for row in mounts if row[0] == "/")


@pytest.mark.threat(
    "writing a file, planting one for later", control="read-only root, `ipc=none`; files belong to root"
)
def test_nothing_is_writable(arena: Arena) -> None:
    """Of the whole tree no file opens for writing and no folder takes a new one, /proc and /sys included."""
    found = arena.probe(WALK, timeout=50)
    assert found["tried"] > 200
    assert found["created"] == []
    assert set(found["written"]) <= OWN
    devices = DEVICES | (GVISOR_DEVICES if arena.gvisor else set())
    assert {path for path in found["devices"] if not MASKED.fullmatch(path)} <= devices


@pytest.mark.threat(
    "secrets, the engine's socket, other processes", control="fixed environment, no mount, pid namespace"
)
def test_no_secret_and_a_fixed_environment(arena: Arena) -> None:
    """A constant host name, a fixed list of variables, no process but the runner, and no door to the engine."""
    seen = arena.probe(SURROUNDINGS)
    assert set(seen["environment"]) == ENVIRONMENT
    assert seen["hostname"] == "sandbox"
    assert seen["argv"] == ["strategy.py"]
    assert seen["processes"] == [1, seen["self"]]
    assert seen["home"] == ["data.json"]
    assert seen["sockets"] == []
    assert not seen["keys"]


@pytest.mark.threat("a network interface, a route", control="network mode `none`")
def test_only_loopback_and_no_route(arena: Arena) -> None:
    """Only `lo`, and no route."""
    assert arena.probe(NETWORK) == [["lo"], []]
