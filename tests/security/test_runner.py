"""PID 1, the runner: killing, stopping, tracing, reading and slowing it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from tests.security.arena import Arena

STORM = """
    print('begun')
    numbers = set(range(1, 65)) - {32, 33}
    for _ in range(50):
        for number in numbers:
            os.kill(1, number)
    print('runner stormed')
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
    for number in numbers - {signal.SIGCHLD}:
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            break
    print('all stormed', len([os.waitpid(child, 0) for child in children]))
"""

STOP_ALL = """
    print('begun')
    for _ in range(5):
        if os.fork() == 0:
            while True: time.sleep(1)
    os.kill(1, signal.SIGSTOP)
    os.kill(-1, signal.SIGSTOP)
    os.kill(0, signal.SIGSTOP)
    print('not reached')
"""

#: All that belongs to /proc/1, read and opened for writing; what is a folder is listed.
PROC_1 = """
    read, written, listed = [], [], []
    for name in os.listdir('/proc/1'):
        path = '/proc/1/' + name
        if os.path.isdir(path) and not os.path.islink(path):
            if refusal(os.listdir, path) == 'done': listed.append(name)
            continue
        try:
            with open(path, 'rb') as file:
                file.read(1)
            read.append(name)
        except OSError:
            pass
        try:
            os.write(os.open(path, os.O_WRONLY), b'1')  # some open for everybody, and are checked when written
            written.append(name)
        except OSError:
            pass
    links = [name for name in ('exe', 'cwd', 'root', 'fd/0', 'fd/1', 'ns/net') if
             refusal(os.readlink, '/proc/1/' + name) == 'done']
    command = open('/proc/1/cmdline', 'rb').read().decode().split('\\0')
    print(json.dumps({'read': read, 'written': written, 'listed': listed, 'links': links, 'command': command}))
"""

#: What other processes of the same uid may never see of the runner.
CLOSED = set("mem environ maps smaps smaps_rollup numa_maps auxv stack syscall io pagemap personality".split())

SLOWING = """
    import resource
    zero = ctypes.create_string_buffer(64)
    pointer = ctypes.addressof(zero)
    mask = ctypes.create_string_buffer(b'\\1' + bytes(127))
    attributes = ctypes.create_string_buffer(48)
    ctypes.memmove(attributes, (48).to_bytes(4, 'little') + (5).to_bytes(4, 'little'), 8)  # SCHED_IDLE
    number = {'x86_64': 0, 'aarch64': 1}[os.uname().machine]
    ioprio_set, setattr_ = (251, 30)[number], (314, 274)[number]
    idle = 3 << 13
    print(json.dumps({
        'setpriority of PID 1': refusal(os.setpriority, os.PRIO_PROCESS, 1, 19),
        'setpriority of its group': refusal(os.setpriority, os.PRIO_PGRP, 1, 19),
        'setpriority of the user': refusal(os.setpriority, os.PRIO_USER, 1000, 19),
        'sched_setscheduler': refusal(os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0)),
        'sched_setparam': refusal(os.sched_setparam, 1, os.sched_param(0)),
        'sched_setattr': syscall(setattr_, 1, ctypes.addressof(attributes), 0),
        'sched_setaffinity': refusal(os.sched_setaffinity, 1, {0}),
        'prlimit nofile': refusal(resource.prlimit, 1, resource.RLIMIT_NOFILE, (4, 4)),
        'prlimit cpu': refusal(resource.prlimit, 1, resource.RLIMIT_CPU, (1, 1)),
        'prlimit as': refusal(resource.prlimit, 1, resource.RLIMIT_AS, (4096, 4096)),
        'ioprio_set': syscall(ioprio_set, 1, 1, idle),
    }))
"""


@pytest.mark.threat(
    "storm of signals at PID 1 and at everything",
    control="PID 1 of its namespace, no handlers",
    differs="PID 1 can be killed: `crashed` (`out_of_memory` with SIGKILL), output not yet read is lost",
)
def test_signal_storm(arena: Arena) -> None:
    """No signal reaches the runner; one that reaches everything else ends only that."""
    if arena.gvisor:
        # Of all of them PID 1 takes any first: SIGKILL is left out, and comes alone.
        result = arena.attack(STORM.replace("{32, 33}", "{32, 33, signal.SIGKILL}"))
        assert result.status is ExecutionStatus.CRASHED, result
        assert result.exit_code is not None
        assert 128 < result.exit_code != 128 + signal.SIGKILL, "by a signal"
        assert arena.attack("os.kill(1, signal.SIGKILL)").status is ExecutionStatus.OUT_OF_MEMORY, (
            "as the kernel does it"
        )
        return
    result = arena.attack(STORM)
    assert result.success, result
    assert result.output == "begun\nrunner stormed\nall stormed 4\n"


@pytest.mark.threat("stopping all that can be reached", control="PID 1 of its namespace; deadline")
def test_sigstop_of_everything(arena: Arena) -> None:
    """A strategy that stops itself and all others ends at its deadline, its output kept."""
    result = arena.attack(STOP_ALL, timeout=1.5)
    allowed = {ExecutionStatus.TIMED_OUT} | ({ExecutionStatus.CRASHED} if arena.gvisor else set())
    assert result.status in allowed, result
    assert result.output == "begun\n"


@pytest.mark.threat("killing its own process group", control="own session for the strategy")
def test_kill_of_the_own_group_is_a_crash(arena: Arena) -> None:
    """`kill(0, SIGKILL)` is the strategy's own end and nobody else's."""
    result = arena.attack("print('begun')\nos.kill(0, signal.SIGKILL)")
    assert result.status is ExecutionStatus.CRASHED
    assert result.output == "begun\n"
    assert result.signal == 9


@pytest.mark.threat(
    "reading or tracing PID 1 through /proc",
    control="not dumpable",
    differs="its environment, maps and descriptors can be read; its memory cannot",
)
def test_proc_1_is_closed(arena: Arena) -> None:
    """Of /proc/1 nothing can be written, and nothing that tells of memory, environment or descriptors be read."""
    seen = arena.probe(PROC_1)
    assert seen["written"] == []
    if arena.gvisor:
        assert "mem" not in seen["read"]
        return
    assert sorted(CLOSED & set(seen["read"])) == []
    assert sorted({"fd", "fdinfo", "map_files"} & set(seen["listed"])) == []
    assert seen["links"] == []
    assert "worker.sandbox.boot" in seen["command"], "all it tells is what it is"


@pytest.mark.threat(
    "slowing PID 1 down or starving it",
    control="seccomp: limits, priority and scheduling of oneself only",
    differs="can be done: the run ends as `crashed`, `out_of_memory` or `timed_out` if its runner suffers",
)
def test_priority_and_limits(arena: Arena) -> None:
    """Priority, scheduling class, affinity and resource limits of the runner cannot be changed."""
    result = arena.attack(SLOWING, timeout=5)
    if arena.gvisor:
        # A limit of CPU time ends PID 1 by SIGKILL, as the lack of memory does.
        killed = {ExecutionStatus.CRASHED, ExecutionStatus.OUT_OF_MEMORY, ExecutionStatus.TIMED_OUT}
        assert result.status in killed | {ExecutionStatus.SUCCEEDED}, result
        assert result.metrics.wall_seconds < 8, "the worker's own deadline is 2 s later"
        return
    assert result.success, (result.error, result.stderr)
    assert set(result.json().values()) == {"EPERM"}, result.json()
