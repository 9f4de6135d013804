"""Memory: bombs in every kind of it, and who dies of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from tests.security.arena import Arena

#: Each fills 400 MiB or more, in bounded steps: where no limit holds, it ends by itself and says so.
BOMBS = {
    "heap": "hold = [b'x' * (1 << 20) + bytes([i % 256]) for i in range(400)]",
    "numpy": "import numpy\nhold = [numpy.ones(1 << 17) for _ in range(400)]",
    "memfd": """
        fd = os.memfd_create('bomb')
        for _ in range(400): os.write(fd, b'x' * (1 << 20))
    """,
    "shared mapping": """
        import mmap
        shared = mmap.mmap(-1, 400 << 20)
        for at in range(0, 400 << 20, 4096): shared[at] = 1
    """,
    "children": """
        for _ in range(20):
            if os.fork() == 0:
                hold = [b'x' * (1 << 20) + bytes([i % 256]) for i in range(40)]
                time.sleep(2)
                os._exit(0)
        while refusal(os.wait) == 'done': pass
    """,
}

HIDDEN = """
    if os.fork() == 0:
        hold = [b'x' * (1 << 20) + bytes([i % 256]) for i in range(400)]
        os._exit(0)
    os.wait()
    print('all fine')
"""

#: Leaves the runner no descriptor to open, if it can, before a process dies of memory.
BLINDED = (
    """
    import resource
    try:
        resource.prlimit(1, resource.RLIMIT_NOFILE, (4, 4))
    except PermissionError:
        pass
"""
    + HIDDEN
)

LIMITS = """
    import resource
    names = ['RLIMIT_CORE', 'RLIMIT_MSGQUEUE', 'RLIMIT_NOFILE']
    found = {name: resource.getrlimit(getattr(resource, name)) for name in names}
    raised = []
    for name in names:
        try:
            resource.setrlimit(getattr(resource, name), (1 << 20, 1 << 20))
            raised.append(name)
        except (OSError, ValueError):
            pass
    print(json.dumps([found, raised]))
"""

#: Where memory could outlive a process: nothing there, or no way to make it.
SHARED = """
    print(json.dumps({
        'shm': refusal(os.open, '/dev/shm/x', os.O_CREAT | os.O_RDWR),
        'mqueue': refusal(os.open, '/dev/mqueue/x', os.O_CREAT | os.O_RDWR),
        'shm_open': answer(libc.shm_open, b'/x', os.O_CREAT | os.O_RDWR, 0o600),
        'sem_open': 'EPERM' if libc.sem_open(b'/x', os.O_CREAT, 0o600, 1) in (0, -1) else 'done',
        'mq_open': answer(libc.mq_open, b'/x', os.O_CREAT | os.O_RDWR, 0o600, None),
        'shmget': answer(libc.shmget, 0, 4096, 0o1600),
        'semget': answer(libc.semget, 0, 1, 0o1600),
        'msgget': answer(libc.msgget, 0, 0o1600),
    }))
"""


@pytest.mark.threat(
    "memory bombs: heap, numpy, memfd, shared mapping, children",
    control="memory 256 MiB, no swap",
    differs="the whole sandbox goes",
)
@pytest.mark.parametrize("kind", BOMBS)
def test_memory_bomb(arena: Arena, kind: str) -> None:
    """It ends as out of memory, and what was printed before is kept."""
    code = "print('begun')\n" + "\n".join(line.removeprefix(" " * 8) for line in BOMBS[kind].splitlines())
    result = arena.attack(code)
    assert result.status is ExecutionStatus.OUT_OF_MEMORY, result
    assert result.output == "begun\n"


@pytest.mark.threat(
    "hiding that a child died of memory",
    control="the runner asks the kernel's count",
    differs="the whole sandbox goes",
)
@pytest.mark.parametrize("code", [HIDDEN, BLINDED], ids=["in a child", "and blinds the runner"])
def test_kill_of_a_child_is_not_hidden(arena: Arena, code: str) -> None:
    """When only a child process dies of memory, a parent that prints success does not make it one."""
    result = arena.attack(code)
    assert result.status is ExecutionStatus.OUT_OF_MEMORY, result
    assert result.output == ("" if arena.gvisor else "all fine\n")


@pytest.mark.threat(
    "a memory kill that takes the runner",
    control="`oom_score_adj` 1000 for the strategy",
    differs="the whole sandbox goes",
)
def test_child_dies_first(arena: Arena) -> None:
    """The strategy is first in line for the kernel's killer, and cannot put itself out of its reach."""
    code = """
        path = '/proc/self/oom_score_adj'
        score = int(open(path).read()) if os.path.exists(path) else None
        libc.prctl(4, 1, 0, 0, 0)
        print(json.dumps([score, refusal(lambda: os.write(os.open(path, os.O_WRONLY), b'-1000'))]))
    """
    score, lowered = arena.probe(code)
    if not arena.gvisor:
        assert score == 1000
        assert lowered in {"EACCES", "EPERM"}


@pytest.mark.threat(
    "a strategy that moves back in the line of the memory killer",
    control="the engine tells of a runner that was killed for memory",
)
def test_a_lower_score_changes_no_verdict(arena: Arena) -> None:
    """Down to 0 it may; the kernel may then take the runner, with output not yet read, and the verdict stays."""
    lowered = """
        libc.prctl(4, 1, 0, 0, 0)
        refusal(lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'0'))
    """
    result = arena.attack("\n".join(line.removeprefix(" " * 8) for line in (lowered + BOMBS["children"]).splitlines()))
    assert result.status is ExecutionStatus.OUT_OF_MEMORY, result


@pytest.mark.threat("core dumps, message queues", control="core 0, msgqueue 0, both hard")
def test_limits_cannot_be_raised(arena: Arena) -> None:
    """No core file, no byte in queues, 256 descriptors: soft, hard and for good."""
    found, raised = arena.probe(LIMITS)
    assert found == {"RLIMIT_CORE": [0, 0], "RLIMIT_MSGQUEUE": [0, 0], "RLIMIT_NOFILE": [256, 256]}
    assert raised == []


@pytest.mark.threat(
    "memory outside of processes: /dev/shm, /dev/mqueue, POSIX and SysV IPC",
    control="`ipc=none`; msgqueue 0; seccomp",
    differs="SysV IPC and message queues are gVisor's own and end with the sandbox",
)
def test_no_shared_memory_can_be_made(arena: Arena) -> None:
    """Each of its doors is shut."""
    answers = arena.probe(SHARED)
    if arena.gvisor:
        answers = {name: answers[name] for name in ("shm", "mqueue", "shm_open")}
    assert "done" not in answers.values(), answers
