"""One tenant's strategies in one container, one after the other: what a run leaves there, and does to the next.

Under runc only: `SandboxConfig` refuses it for others.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionRequest, ExecutionStatus
from tests.security.arena import Arena
from tests.security.leavings import CHANGEABLE, HARMS, LEAVE, LOOK, MARKS, SEARCH, STAY, VANDALISE
from worker import CodeExecutor
from worker.executor import Cancellation

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

    from worker import SandboxConfig

RUNTIMES = ("runc",)
REFUSED = "refused there: a sandbox serves once"
RUNS = 1000
#: The limit, without the runner and the strategy itself.
OTHERS = 32 - 2

#: How a run ends that is not clean, and its status.
ENDS: dict[str, tuple[str, ExecutionStatus]] = {
    "exception": ("raise ValueError('mark')", ExecutionStatus.FAILED),
    "exit code 3": ("sys.exit(3)", ExecutionStatus.FAILED),
    "signal": ("os.kill(os.getpid(), signal.SIGTERM)", ExecutionStatus.CRASHED),
    "deadline": ("while True: time.sleep(1)", ExecutionStatus.TIMED_OUT),
    "a child out of memory": (
        "if os.fork() == 0: hold = [b'x' * (1 << 20) + bytes([i % 256]) for i in range(400)]\nelse: os.wait()",
        ExecutionStatus.OUT_OF_MEMORY,
    ),
    "output cut": ("for _ in range(20): os.write(1, bytes(1 << 16))", ExecutionStatus.SUCCEEDED),
}

#: A worker that keeps a sandbox for its tenant, and says which.
KEEPER = """
import time
from tasks import ExecutionRequest
from worker import CodeExecutor, SandboxConfig
executor = CodeExecutor(SandboxConfig(max_runs_per_container=9))
executor.warm()
print(executor.execute(ExecutionRequest(code="print(1)", user_id="ann")).success, flush=True)
(kept,) = executor._pool._kept
print(kept.sandbox.container_id, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def module_home(sandboxes: SandboxConfig, docker_client: docker.DockerClient) -> Iterator[Arena]:
    """One executor for all of this module; all of its strategies are one tenant's unless they say otherwise."""
    config = sandboxes.model_copy(update={"max_runs_per_container": RUNS})
    home = Arena(config, docker_client, tenant="ann")
    with home.executor:
        home.executor.warm()
        yield home
    home.assert_gone()


@pytest.fixture
def home(module_home: Arena) -> Iterator[Arena]:
    """A tenant's place; whatever was done there, the next strategy has its right numbers."""
    module_home.run_honest()
    yield module_home
    module_home.run_honest()


# What a run leaves.


@pytest.mark.threat(
    "code, data, output or explanation of the run before, in memory",
    control="they go through memory of their own, freed with the run or kept from forks, never the runner's heap",
    differs=REFUSED,
)
@pytest.mark.parametrize("times", [1, 8_000], ids=["small", "large"])
def test_nothing_of_a_run_is_in_the_memory_of_the_next(home: Arena, times: int) -> None:
    """All that the next one's process can read is searched; the same search in the run itself finds all of it."""
    code = LEAVE.replace("TIMES", str(times))
    code += "\n".join(f"# {MARKS['code']}" for _ in range(times))
    with home.one_container():
        left = home.attack(SEARCH + code, data=[MARKS["data"]] * times)
        then = home.probe(SEARCH + "print(json.dumps(occurrences()))")
    assert left.success, (left.error, left.stderr)
    assert left.output == MARKS["output"] * times
    pages, found, read = json.loads(left.stderr)
    assert pages >= 2, "options and source; explanation"
    assert all(found[name] >= times for name in ("code", "data", "output")), found
    assert found["page"] > 10_000
    assert read > 60 << 20
    assert then[1] > 60 << 20
    assert then[0] == dict.fromkeys(MARKS, 0)


@pytest.mark.threat(
    "state that the run before has changed: modules, environment, limits, handlers, timers, locale, generators",
    control="a fork of the runner for each run; the runner itself is out of reach",
    differs=REFUSED,
)
def test_nothing_a_run_changes_is_changed_for_the_next(home: Arena) -> None:
    """Some forty things, each changed or tried: the next one finds them as the first did, and no timer goes off."""
    with home.one_container():
        vandal = home.attack(LOOK + VANDALISE)
        after = home.probe(LOOK + "found = look()\ntime.sleep(1.2)\nprint(json.dumps(found))")
    assert vandal.success, (vandal.error, vandal.stderr)
    before, changed = vandal.json(), set(json.loads(vandal.stderr))
    assert changed >= CHANGEABLE, CHANGEABLE - changed
    assert {name: after[name] for name in before if after[name] != before[name]} == {}


@pytest.mark.threat(
    "random numbers that the run before has fixed, or knows",
    control="generators get a seed of their own with each run",
    differs=REFUSED,
)
def test_draws_are_fresh_unless_a_seed_says_otherwise(home: Arena) -> None:
    """A seed is of its one run, whoever set it."""
    draw = "import random, numpy\nprint(json.dumps([random.random(), numpy.random.random()]))"
    spoil = "import random, numpy\nrandom.seed(7)\nnumpy.random.seed(7)\n" + draw

    def drawn(code: str, seed: int | None = None) -> list[float]:
        source = "import json\n" + code
        request = ExecutionRequest.build(source, user_id=home.tenant, seed=seed)
        numbers: list[float] = home.executor.execute(request).json()
        return numbers

    with home.one_container():
        fixed, spoilt, again = drawn(draw, 7), drawn(spoil), drawn(draw, 7)
        fresh = [drawn(draw) for _ in range(3)]
    assert fixed == spoilt == again == [random.Random(7).random(), fixed[1]]
    for generator in (0, 1):
        assert len({fixed[generator], *(numbers[generator] for numbers in fresh)}) == 4


@pytest.mark.threat(
    "processes and threads that stay for the next run",
    control="the runner kills all others, and reaps until alone, before it reports",
    differs=REFUSED,
)
def test_no_process_stays_for_the_next(home: Arena) -> None:
    """Daemons, stopped ones, zombies, threads, odd clones: the next one is alone with PID 1, and stays so."""
    alone = """
        def others(): return [name for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]
        first = others()
        time.sleep(0.3)
        print(json.dumps([first, others(), refusal(os.wait)]))
    """
    with home.one_container():
        left = home.attack(STAY)
        seen = home.probe(alone)
    assert left.success, (left.error, left.stderr)
    assert int(left.output) > 15
    assert seen == [["1"], ["1"], "ECHILD"]


@pytest.mark.threat(
    "the data of the run before, by its descriptor or its file", control="a new memfd for each run", differs=REFUSED
)
def test_the_data_of_a_run_goes_with_it(home: Arena) -> None:
    """The next one has its own data and no other, however its predecessor held on to it."""
    hold = """
        import mmap
        held = [os.dup(3) for _ in range(50)] + [os.open('/workspace/data.json', os.O_RDONLY) for _ in range(50)]
        mapped = mmap.mmap(3, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        if os.fork() == 0: time.sleep(600)
    """
    find = """
        files, inodes = [], []
        for pid in [name for name in os.listdir('/proc') if name.isdigit()]:
            try:
                for fd in os.listdir(f'/proc/{pid}/fd'):
                    target = os.readlink(f'/proc/{pid}/fd/{fd}')
                    if 'memfd' in target: files.append([pid == str(os.getpid()), int(fd)])
            except OSError: pass
        mapped = [line for line in open('/proc/self/maps') if 'memfd' in line]
        print(json.dumps([files, mapped, json.load(open('/workspace/data.json')), os.fstat(3).st_size]))
    """
    with home.one_container():
        assert home.attack(hold, data=["first"] * 1000).success
        assert home.probe(find, data=["next"]) == [[[True, 3]], [], ["next"], len('["next"]')]


# What a run does to the next.


@pytest.mark.threat(
    "harm to the runner that shows in the next run",
    control="PID 1 of its namespace; what a run may touch ends with it; not dumpable; seccomp",
    differs=REFUSED,
)
@pytest.mark.parametrize("harm", HARMS)
def test_harm_ends_with_the_run_that_does_it(home: Arena, harm: str) -> None:
    """It ends well, and the next one in the same container has its right numbers, at once, and no word of the first."""
    with home.one_container():
        harmful = home.attack(HARMS[harm])
        started = time.monotonic()
        home.run_honest()
        took = time.monotonic() - started
    assert harmful.success, (harmful.error, harmful.stderr)
    assert took < 3


@pytest.mark.threat(
    "using up what the next run needs",
    control="limits are of the container, and a run's end frees all",
    differs=REFUSED,
)
def test_the_next_has_all_that_the_first_had(home: Arena) -> None:
    """Processes, descriptors, memory: as many again, three times."""
    take = """
        import mmap
        opened = 4
        try:
            while True:
                os.dup(3)
                opened += 1
        except OSError: pass
        born = 0
        try:
            while born < 400:
                if os.fork() == 0: time.sleep(600)
                born += 1
        except OSError: pass
        hold = mmap.mmap(-1, 110 << 20)
        for at in range(0, len(hold), 4096): hold[at] = 1
        print(json.dumps([opened, born, len(hold) >> 20]))
    """
    with home.one_container():
        assert [home.probe(take) for _ in range(3)] == [[256, OTHERS, 110]] * 3


@pytest.mark.threat("a runner that wears out", control="what a run had is freed with it", differs=REFUSED)
def test_many_runs_wear_nothing_out(home: Arena) -> None:
    """Eighty in one container, each with its own data and output: more than it could lose descriptors for."""
    with home.one_container():
        for number in range(80):
            request = ExecutionRequest.build(
                "import json\nprint(json.load(open('/workspace/data.json')))", number, user_id=home.tenant
            )
            result = home.executor.execute(request)
            assert (result.status, result.output) == (ExecutionStatus.SUCCEEDED, f"{number}\n"), result


# Who gets a used sandbox.


def is_gone(home: Arena, container: str) -> bool:
    """Whether a container ends in a moment."""
    deadline = time.monotonic() + 8
    while home.client.api.containers(all=True, filters={"id": container}):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def assert_used_up(home: Arena) -> None:
    """The container of the last run serves no other: it goes, and the tenant's next strategy gets another."""
    used = home.last_container
    home.run_honest()
    assert home.last_container != used
    assert is_gone(home, used)


@pytest.mark.threat(
    "what a run leaves that did not end well",
    control="after anything but a clean end the container goes",
    differs=REFUSED,
)
@pytest.mark.parametrize("end", ENDS)
def test_after_any_other_end_the_container_goes(home: Arena, end: str) -> None:
    """An exception, an exit code, a signal, the deadline, a kill for memory, output that was cut."""
    code, status = ENDS[end]
    assert home.attack(code, timeout=0.6 if status is ExecutionStatus.TIMED_OUT else 20.0).status is status
    assert_used_up(home)


@pytest.mark.threat(
    "what a refused source leaves in its parser",
    control="after anything but a clean end the container goes",
    differs=REFUSED,
)
def test_after_a_refusal_the_container_goes(home: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it ran, but a process has read it."""
    monkeypatch.setattr(CodeExecutor, "_same_grammar", lambda _: False)
    monkeypatch.setattr(home.executor, "_extra_modules", {})
    assert home.attack("import os").status is ExecutionStatus.REJECTED
    monkeypatch.undo()
    assert_used_up(home)


@pytest.mark.threat(
    "what a cancelled run leaves", control="after anything but a clean end the container goes", differs=REFUSED
)
@pytest.mark.parametrize("when", ["while it runs", "as it ends"])
def test_after_a_cancel_the_container_goes(home: Arena, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Even where it had ended well by then."""
    cancellation = Cancellation()
    if when == "as it ends":
        # The last the executor does with it while the run is not over: it has its ending by then.
        monkeypatch.setattr(cancellation, "uncover", cancellation.cancel)
        code = "print('begun')"
    else:
        threading.Timer(0.3, cancellation.cancel).start()
        code = "import time\nprint('begun')\ntime.sleep(20)"
    request = ExecutionRequest.build(code, user_id=home.tenant)
    result = home.executor.execute(request, cancellation=cancellation)
    assert result.output == "begun\n"
    assert result.success == (when == "as it ends")
    assert_used_up(home)


@pytest.mark.threat(
    "another tenant's sandbox", control="kept for its one tenant; none for an empty `user_id`", differs=REFUSED
)
def test_no_two_tenants_ever_share(home: Arena) -> None:
    """Each has its own, whoever comes between, and nobody's strategies have a new one each."""
    had: list[tuple[str, str]] = []
    for tenant in ("ann", "bob", "ann", "", "bob", "", "Ann", "ann"):
        assert home.attack("print(1)", tenant=tenant).success
        had.append((tenant, home.last_container))
    owners = {container: {tenant for tenant, other in had if other == container} for _, container in had}
    assert all(len(tenants) == 1 for tenants in owners.values())
    assert len({container for tenant, container in had if tenant == ""}) == 2
    assert [len({container for tenant, container in had if tenant == name}) for name in ("ann", "bob")] == [1, 1]


@pytest.mark.threat(
    "a container that serves for ever", control="`max_runs_per_container`, `max_age_seconds`", differs=REFUSED
)
def test_runs_and_age_have_a_bound(home: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that reaches one is its container's last."""
    (kept,) = [kept for kept in home.executor._pool._kept if kept.tenant == home.tenant]
    kept.sandbox.first_used -= home.config.max_age_seconds
    old = kept.sandbox.container_id
    home.run_honest()
    assert home.last_container != old
    assert is_gone(home, old)
    monkeypatch.setattr(home.executor._pool, "_max_runs", 3)
    had = []
    for _ in range(5):
        home.run_honest()
        had.append(home.last_container)
    # One run of the first was before.
    assert had[0] == had[1] != had[2] == had[3] == had[4]
    assert is_gone(home, had[0])
    assert is_gone(home, had[4])


@pytest.mark.threat("a kept container that dies", control="it is looked after, and skipped", differs=REFUSED)
def test_a_kept_one_that_dies_is_replaced(home: Arena) -> None:
    """The tenant's next strategy runs elsewhere."""
    home.client.api.kill(home.last_container)
    assert_used_up(home)


@pytest.mark.threat(
    "kept containers that outlive their worker",
    control="end of input ends the runner, AutoRemove the container",
    differs=REFUSED,
)
def test_a_kept_one_ends_with_its_worker(home: Arena) -> None:
    """After kill -9 as well."""
    command = [sys.executable, "-c", textwrap.dedent(KEEPER)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "True\n"
        kept = worker.stdout.readline().strip()
        assert home.client.api.containers(filters={"id": kept})
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
    assert is_gone(home, kept)
