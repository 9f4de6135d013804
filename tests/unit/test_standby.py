"""A process that stands by, forked from a program of its own: this one is no runner, and has threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.sandbox import standby

ROOT = Path(standby.__file__).parents[2]

#: What stands for a runner. Its modules are the standard library only, as in the image; numpy need not be here.
PROGRAM = """
import json, os, select, signal, sys, time, types
for name in ("tasks", "worker", "worker.sandbox"):  # without what only workers and producers have
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [os.path.join(sys.argv[1], *name.split("."))]
sys.path.insert(0, sys.argv[1])
from worker.sandbox import preload, standby, strategy
from worker.sandbox.standby import Standby

preload.rehearse = lambda: time.sleep(0.1)

def run(standing, source, **options):
    assert standing.take(give(standing, source, **options), check=False)
    standing.run()

def give(standing, source, **options):
    task = json.dumps({"seed": None, "extra_modules": {}, **options}).encode() + b"\\n" + source.encode()
    standing.task[: len(task)] = task
    return len(task)

def left(standing):
    status = os.waitstatus_to_exitcode(os.waitpid(standing.pid, 0)[1])
    return status, [os.read(fd, 1 << 16).decode() for fd in (standing.stdout, standing.stderr)]

def descriptors():
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]  # the last is of this very look

def tell(*what):
    print(json.dumps(what))
"""


def act(code: str) -> Any:
    """Return what a program says that has a process stand by."""
    command = [sys.executable, "-S", "-c", PROGRAM + code, str(ROOT)]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("pause", [0, 0.005, 0.3], ids=["at once", "in the pause", "after the rehearsal"])
def test_a_strategy_runs_whenever_it_comes(pause: float) -> None:
    """Its source, its streams and its exit code are its own."""
    code = f"""
standing = Standby.ready()
time.sleep({pause})
run(standing, "import sys\\nprint('é')\\nprint('b', file=sys.stderr)\\nsys.exit(3)\\n")
tell(*left(standing))
"""
    assert act(code) == [3, ["é\n", "b\n"]]


def test_one_that_comes_at_once_waits_for_no_rehearsal() -> None:
    """The machine is busy then: it would only be late."""
    code = """
preload.rehearse = lambda: os._exit(9)
answers = []
for standby.PAUSE_SECONDS in (20, 0.001):
    standing = Standby.ready()
    if standby.PAUSE_SECONDS < 1:
        os.waitid(os.P_PID, standing.pid, os.WEXITED | os.WNOWAIT)
    else:
        run(standing, "pass")
    answers.append(left(standing)[0])
tell(*answers)
"""
    assert act(code) == [0, 9]


def test_a_source_is_held_back_until_it_may_run() -> None:
    """Checked or not, the word comes first, and the run when the gate opens a second time."""
    code = """
answers = []
for check in (False, True):
    standing = Standby.ready()
    taken = standing.take(give(standing, "print('has run')"), check=check)
    clean = standing.found_it_clean() if check else None
    early = bool(select.select([standing.stdout], [], [], 0.2)[0])
    standing.run()
    answers.append([taken, clean, early, *left(standing), standing.left(100).decode()])
tell(*answers)
"""
    ran = [0, ["has run\n", ""], ""]
    assert act(code) == [[True, None, False, *ran], [True, True, False, *ran]]


def test_a_source_that_is_refused_never_runs() -> None:
    """Violations in its shared memory, exit code 0, and no word."""
    code = """
standing = Standby.ready()
taken = standing.take(give(standing, "print('has run')\\nimport os\\n"), check=True)
tell(taken, standing.found_it_clean(), *left(standing), [v["rule"] for v in json.loads(standing.left(1 << 16))])
"""
    assert act(code) == [True, False, 0, ["", ""], ["R2"]]


@pytest.mark.parametrize(("check", "clean"), [({"textwrap": ["dedent"]}, True), ({}, False)])
def test_the_options_of_a_run_reach_it(check: dict[str, list[str]], *, clean: bool) -> None:
    """What the operator allows, for the check; the seed, for the strategy."""
    code = f"""
standing = Standby.ready()
source = "import textwrap\\nimport random\\nprint(textwrap.dedent(' a'), random.random())"
standing.take(give(standing, source, seed=7, extra_modules={check!r}), check=True)
clean = standing.found_it_clean()
if clean:
    standing.run()
tell(clean, left(standing)[1][0])
"""
    expected = "a 0.32383276483316237\n" if clean else ""
    assert act(code) == [clean, expected]


def test_it_has_four_descriptors_and_no_other() -> None:
    """Standard streams and the data file; whatever its runner has open, gate and word included."""
    code = """
kept = [os.dup(1) for _ in range(20)]
os.set_inheritable(kept[0], True)
standing = Standby.ready()
source = '''
import os
print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], [os.readlink(f'/proc/self/fd/{fd}')[:6] for fd in range(4)])
'''
run(standing, source)
tell(*left(standing))
"""
    assert act(code) == [0, ["[0, 1, 2, 3] ['/dev/n', 'pipe:[', 'pipe:[', '/memfd']\n", ""]]


def test_it_leaves_its_runner_behind() -> None:
    """A session of its own, no signal handler nor descriptor that wakes the runner, first to be killed."""
    code = """
signal.signal(signal.SIGCHLD, lambda *_: None)
read, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write)
standing = Standby.ready()
source = '''
import os, signal
print(os.getsid(0) == os.getpid() == os.getpgrp(), signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)
print(signal.set_wakeup_fd(-1), open('/proc/self/oom_score_adj').read().strip())
'''
run(standing, source)
tell(*left(standing))
"""
    assert act(code) == [0, ["True True\n-1 1000\n", ""]]


def test_it_ends_with_its_runner() -> None:
    """A closed gate is no order."""
    code = """
answers = []
for orders in range(2):
    standing = Standby.ready()
    if orders:
        standing.take(give(standing, "print('has run')"), check=False)
    os.close(standing.gate)
    answers.append(left(standing))
tell(*answers)
"""
    assert act(code) == [[1, ["", ""]], [1, ["", ""]]]


def test_one_that_has_ended_takes_nothing() -> None:
    """The runner is told, and may say whose fault it was."""
    code = """
standing = Standby.ready()
os.kill(standing.pid, signal.SIGKILL)
left(standing)
tell(standing.take(give(standing, "print('has run')"), check=False))
"""
    assert act(code) == [False]


def test_an_order_is_taken_when_the_rehearsal_is_over() -> None:
    """What a rehearsal takes is nobody's time: the runner's clocks start when the order is taken."""
    code = """
standby.PAUSE_SECONDS = 0
began = time.monotonic()
standing = Standby.ready()
ready = time.monotonic() - began
time.sleep(0.02)
standing.take(give(standing, "pass"), check=False)
tell(ready < 0.1 <= time.monotonic() - began)
"""
    assert act(code) == [True]


def test_one_that_ends_before_it_is_ready_ends_its_runner() -> None:
    """With a line that says so."""
    code = """
strategy.open_streams = lambda: os._exit(0)
try:
    Standby.ready()
except SystemExit as exc:
    tell(exc.code)
"""
    assert act(code) == ["the process that is to run a strategy ended before it was ready"]


def test_what_it_left_is_read_to_the_first_nul_and_no_further_than_asked() -> None:
    """The runner only passes it on."""
    code = """
standing = Standby.ready()
standing.answer[:6] = b"abc\\0de"
tell(standing.left(100).decode(), standing.left(2).decode(), len(standing.left(0)))
"""
    assert act(code) == ["abc", "ab", 0]


def test_nothing_of_it_stays() -> None:
    """Its memory and its descriptors are given back, fifty times over."""
    code = """
before = descriptors(), open("/proc/self/maps").read().count("/dev/zero")
for _ in range(50):
    standing = Standby.ready()
    run(standing, "print('x')")
    left(standing)
    standing.close()
closed = 0
for memory in (standing.task, standing.answer):
    try:
        memory[:1]
    except ValueError:
        closed += 1
tell(before == (descriptors(), open("/proc/self/maps").read().count("/dev/zero")), closed)
"""
    assert act(code) == [True, 2]


def test_its_data_file_is_inherited_by_nobody_else() -> None:
    """Only the strategy's own process has it, at its one number."""
    code = """
standing = Standby.ready()
tell(*(os.get_inheritable(fd) for fd in (standing.data, standing.gate, standing.word, standing.stdout)))
"""
    assert act(code) == [False] * 4
