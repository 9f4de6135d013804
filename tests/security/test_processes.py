"""Processes, threads and time: bombs, daemons and strategies that will not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from tests.security.arena import Arena

#: The limit, without the runner and the strategy itself.
OTHERS = 32 - 2

FORK_BOMB = """
    born = 0
    try:
        while born < 400:
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            born += 1
    except OSError as exc:
        print(json.dumps([born, errno.errorcode[exc.errno]]))
"""

THREAD_BOMB = """
    import threading
    born = 0
    try:
        while born < 400:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            born += 1
    except RuntimeError:
        print(born, flush=True)
        os._exit(0)
"""

#: Every copy goes on forking for as long as it lives.
WILD_FORK_BOMB = """
    print('begun')
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""

#: The double fork: its grandchild has a session of its own, belongs to PID 1 and holds both pipes.
DAEMON = """
    if os.fork() == 0:
        os.setsid()
        for _ in range(5):
            os.fork()
        if os.fork() == 0:
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            for _ in range(600):
                time.sleep(1)
                print('daemon')
        os._exit(0)
    os.wait()
    print('done')
"""

ENDLESS = {
    "busy loop": "while True: pass",
    "sleep": "time.sleep(600)",
    "all signals blocked": """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True: time.sleep(1)
    """,
    "inside one call of C": "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    "threads": """
        import threading
        def spin():
            while True: pass
        for _ in range(8): threading.Thread(target=spin).start()
        spin()
    """,
}


@pytest.mark.threat(
    "fork bomb, daemonised children",
    control="pids cgroup, 32",
    differs="the limit on processes is another",
)
def test_fork_bomb(arena: Arena) -> None:
    """It stops at 31 processes beside the runner, and takes nobody with it."""
    result = arena.attack(FORK_BOMB, timeout=10)
    if arena.gvisor and not result.success:
        assert result.status in {ExecutionStatus.OUT_OF_MEMORY, ExecutionStatus.CRASHED, ExecutionStatus.TIMED_OUT}
        return
    assert result.success, result.error
    born, error = result.json()
    assert error == "EAGAIN"
    assert born < 400 if arena.gvisor else born == OTHERS
    assert result.metrics.wall_seconds < 5, "what it left behind delays nothing"


@pytest.mark.threat("fork bomb that goes on for ever", control="pids cgroup, 32; deadline")
def test_wild_fork_bomb(arena: Arena) -> None:
    """Every copy forks on: the deadline ends them all, and what was printed first is kept."""
    result = arena.attack(WILD_FORK_BOMB, timeout=2)
    allowed = {ExecutionStatus.TIMED_OUT}
    if arena.gvisor:
        allowed |= {ExecutionStatus.OUT_OF_MEMORY, ExecutionStatus.CRASHED}
    assert result.status in allowed, result
    assert result.output.startswith("begun\n")


@pytest.mark.threat("thread bomb", control="pids cgroup, 32", differs="the limit on threads is another")
def test_thread_bomb(arena: Arena) -> None:
    """Threads count as processes do."""
    result = arena.attack(THREAD_BOMB, timeout=10)
    if arena.gvisor and not result.success:
        assert result.status in {ExecutionStatus.OUT_OF_MEMORY, ExecutionStatus.CRASHED, ExecutionStatus.TIMED_OUT}
        return
    assert result.success, (result.error, result.stderr)
    assert int(result.output) < 400 if arena.gvisor else int(result.output) == OTHERS


@pytest.mark.threat(
    "daemons that outlive the run and hold its pipes",
    control="the runner kills all others, and reaps until alone",
    differs="each process costs memory of gVisor's own: `out_of_memory` may come first",
)
def test_daemons_end_with_the_run(arena: Arena) -> None:
    """A double fork in a session of its own neither delays the result nor adds to it."""
    result = arena.attack(DAEMON, timeout=8)
    if arena.gvisor and result.status is ExecutionStatus.OUT_OF_MEMORY:
        return
    assert result.success, result.error
    assert result.output.splitlines().count("done") == 1
    assert result.metrics.wall_seconds < 4


@pytest.mark.threat("running for ever", control="deadline in the runner; 2 s later the worker's")
@pytest.mark.parametrize("how", ENDLESS)
def test_deadline(arena: Arena, how: str) -> None:
    """Whatever it waits in, it ends at its deadline, and what was printed before is kept."""
    code = "print('begun')\n" + "\n".join(line.removeprefix(" " * 8) for line in ENDLESS[how].splitlines())
    result = arena.attack(code, timeout=1)
    assert result.status is ExecutionStatus.TIMED_OUT, result
    assert result.output == "begun\n"
    assert 1 <= result.metrics.wall_seconds < 1.9, "the runner's deadline, not the worker's"


@pytest.mark.threat(
    "hogging the CPU",
    control="CPU quota, 0.5 core",
    differs="gVisor's own account is of no use, it counts waiting; the quota is seen on the container",
)
def test_cpu_share(arena: Arena) -> None:
    """Four busy processes together get half a core."""
    code = """
        for _ in range(2): os.fork()
        end = time.monotonic() + 1.5
        while time.monotonic() < end: pass
        while True:
            try: os.wait()
            except ChildProcessError: break
    """
    result = arena.attack(code)
    assert result.success, result.error
    if arena.gvisor:
        assert {own["HostConfig"]["NanoCpus"] for own in arena.own_containers()} == {500_000_000}
        return
    # The quota comes in slices of 100 ms, and a run may begin with a full one.
    assert result.metrics.cpu_seconds <= 0.5 * result.metrics.wall_seconds * 1.25
