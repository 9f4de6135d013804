"""PID 1 of every sandbox: waits for one strategy, forks a child for it, and reports how the child ended.

It trusts nothing the child does. The child holds no descriptor of the control channel, and the verdict (exit code,
signal, deadline, out-of-memory count) is what this process saw itself. Where the worker asks for it, another child
checks the source first.

A worker may send one run after the other, all of one tenant. Standard library only; numpy and pandas are imported so
that a forked child finds them ready.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from worker.sandbox import channel, preload, strategy
from worker.sandbox.frames import CHUNK_BYTES, HEADER, PROTOCOL, Frame
from worker.sandbox.kernel import Usage, oom_kills, open_oom_counter, set_dumpable

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.sandbox.channel import Run

#: `/workspace/data.json` in the image links to this descriptor of whoever opens it.
DATA_FD = 3
#: A child is held back until the other end of this one is closed.
GATE_FD = 4
TOKEN_BYTES = 16
GRAMMAR = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass
class Outlet:
    """Forwards the child's output as frames until the budget is spent; then reads on and drops it."""

    budget: int
    kinds: dict[int, Frame] = field(default_factory=dict)
    truncated: bool = False

    def forward(self, fd: int) -> bool:
        """Move one piece from `fd` to the worker; False when there is nothing more to read for now."""
        view = channel.passage()
        try:
            count = os.readv(fd, [view[HEADER.size :]])
        except BlockingIOError:
            return False
        kept = min(count, self.budget)
        self.truncated |= kept < count
        self.budget -= kept
        if kept:
            channel.pass_on(self.kinds[fd], kept)
        return count > 0


@dataclass
class Supervisor:
    """Watches one child after the other: its output, its end, the deadline and the worker's hang-up, all at once."""

    outlet: Outlet
    deadline: float
    wakeup: int
    usage: Usage = field(default_factory=Usage)
    child: int = 0
    #: Open while the child is held back: until it is watched.
    gate: int = -1
    status: int | None = None
    timed_out: bool = False

    def start(self, descriptors: tuple[int, int, int, int], act: Callable[[], NoReturn]) -> None:
        """Fork a child that leaves the runner behind and, once it is watched, acts."""
        self.status = None
        held, self.gate = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            try:
                become_child(*descriptors, held)
                os.read(GATE_FD, 1)
                os.close(GATE_FD)
                act()
            finally:
                os._exit(1)  # whatever went wrong, the child never goes on as a second runner
        os.close(held)

    def watch(self) -> int | None:
        """Return the child's exit code, or -signal, once it or its time has ended: no process of it is left then."""
        poll = select.poll()
        for fd in (channel.CONTROL_IN, self.wakeup, *self.outlet.kinds):
            poll.register(fd, select.POLLIN)
        os.close(self.gate)
        while self.status is None and not self.timed_out:
            remaining = self.deadline - time.monotonic()
            if remaining <= 0:
                self.timed_out = True
                break
            for fd, _ in poll.poll(remaining * 1000):
                self._attend(poll, fd)
        self._end_all()
        for fd in self.outlet.kinds:
            while self.outlet.forward(fd):
                pass
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)

    def _attend(self, poll: select.poll, fd: int) -> None:
        if fd == channel.CONTROL_IN:
            # The worker hung up (it says nothing while a strategy runs): the sandbox dies with it.
            os._exit(0)
        elif fd == self.wakeup:
            os.read(self.wakeup, CHUNK_BYTES)
            self._reap(os.WNOHANG)
        elif not self.outlet.forward(fd):
            poll.unregister(fd)

    def _reap(self, flags: int) -> bool:
        """Reap what has ended; False when no child of any kind is left."""
        try:
            while True:
                pid, status, usage = os.wait4(-1, flags)
                if pid == 0:
                    return True
                self.usage.add(usage)
                if pid == self.child:
                    self.status = status
                if not flags:
                    return True
        except ChildProcessError:
            return False

    def _end_all(self) -> None:
        """Kill every other process of the container, daemonised grandchildren too, and wait until it is alone."""
        alive = True
        while alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            alive = self._reap(0)


def serve(run: Run, wakeup: int, oom_counter: int | None) -> None:
    """Run one strategy in a child, if it passes the check that the worker may ask for, and report how it ended."""
    oom_before = oom_kills(oom_counter)
    started = time.monotonic()
    supervisor = Supervisor(Outlet(run.output_bytes), started + run.timeout, wakeup)
    exit_code, explanation, token = None, "", ""
    if not run.check or passes_check(run, supervisor):
        exit_code, explanation, token = run_strategy(run, supervisor)
    run.close()
    channel.send_json(
        Frame.REPORT,
        {
            "exit_code": exit_code if exit_code is not None and exit_code >= 0 else None,
            "signal": -exit_code if exit_code is not None and exit_code < 0 else None,
            "timed_out": supervisor.timed_out,
            "oom_kills": oom_kills(oom_counter) - oom_before,
            "truncated": supervisor.outlet.truncated,
            "wall_seconds": time.monotonic() - started,
            "cpu_seconds": supervisor.usage.cpu_seconds,
            "peak_memory_bytes": supervisor.usage.peak_memory_bytes,
            "explanation": explanation,
            "token": token,
        },
    )


def passes_check(run: Run, supervisor: Supervisor) -> bool:
    """Tell whether the code policy lets the strategy run; where it does not, send the worker its violations."""
    from worker.sandbox import check  # noqa: PLC0415  # see prepare()

    verdict = mmap.mmap(-1, check.VERDICT_BYTES)
    null = os.open(os.devnull, os.O_RDWR)
    supervisor.start((null, null, null, null), lambda: check.run(*run.options(), verdict))
    exit_code = supervisor.watch()
    os.close(null)
    found = written(verdict)
    if exit_code == 0 and not found:
        return True
    if not supervisor.timed_out:
        # The process that checks leaves with 0 whatever it finds: the source has ended one that does not.
        channel.send(Frame.VIOLATIONS, found if exit_code == 0 else check.encode([check.UNREADABLE]))
    return False


def run_strategy(run: Run, supervisor: Supervisor) -> tuple[int | None, str, str]:
    """Run the strategy to its end; return how it ended, as `watch()` does, its explanation and the run's token."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    explanation = mmap.mmap(-1, strategy.EXPLANATION_BYTES)
    descriptors = os.open(os.devnull, os.O_RDONLY), out_write, err_write, run.data_fd
    supervisor.start(descriptors, lambda: strategy.run(*run.options(), explanation))
    # Made after the fork, so that the child's memory has no copy, and sent while the child is held back.
    token = os.urandom(TOKEN_BYTES).hex()
    channel.send(Frame.STARTED, token.encode())
    for fd in descriptors[:3]:
        os.close(fd)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    supervisor.outlet.kinds = {out_read: Frame.STDOUT, err_read: Frame.STDERR}
    exit_code = supervisor.watch()
    os.close(out_read)
    os.close(err_read)
    explained = written(explanation).decode("ascii", "replace") if exit_code else ""
    return exit_code, explained, token


def written(shared: mmap.mmap) -> bytes:
    """Return what a child left in shared memory, which has no descriptor; this process only passes it on."""
    with shared:
        return shared[:].partition(b"\0")[0]


def become_child(*descriptors: int) -> None:
    """Leave the runner behind: own session, own descriptors from 0 on and no other, first in line to be killed."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, source in enumerate(descriptors):
        os.dup2(source, target)
    os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))
    # Of a process that is not dumpable, /proc/self belongs to root: open that door for one write only.
    set_dumpable(True)
    with contextlib.suppress(OSError):  # gVisor has no such file, and kills the sandbox as a whole
        Path("/proc/self/oom_score_adj").write_text("1000")
    set_dumpable(False)


def prepare() -> int:
    """Seal this process and import what strategies use; return the descriptor that wakes on a child's end."""
    set_dumpable(False)
    # What has no handler cannot be delivered to PID 1 from inside; Python's own for SIGINT would be one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Hold the data descriptor's number, so that nothing else opened here ever has it.
    os.dup2(os.open(os.devnull, os.O_RDONLY), DATA_FD)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if GRAMMAR not in sys.argv:  # of the worker's own grammar, hardly any run needs it: 20 ms saved
        from worker.sandbox import check  # noqa: F401, PLC0415
    preload.libraries()
    return wakeup_read


def main() -> NoReturn:
    """Serve strategies until the worker hangs up."""
    if os.getpid() != 1:  # _end_all() kills every process it can see
        sys.exit("the runner is PID 1 of a sandbox container and runs nowhere else")
    wakeup = prepare()
    oom_counter = open_oom_counter()
    channel.send_json(Frame.READY, {"protocol": PROTOCOL, "python": sys.version.split()[0]})
    while run := channel.receive():
        serve(run, wakeup, oom_counter)
        if run.last:
            break
    os._exit(0)


if __name__ == "__main__":
    main()
