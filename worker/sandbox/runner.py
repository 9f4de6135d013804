"""PID 1 of every sandbox: keeps a process that stands by for a strategy, has it run one, and reports how that ended.

It trusts nothing that process does. The process holds no descriptor of the control channel, and the verdict (exit code,
signal, deadline, out-of-memory count) is what this one saw itself. A worker may send one run after the other, all of
one tenant. Standard library only; numpy and pandas are imported so that a process that stands by, a fork, finds them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from worker.sandbox import channel, preload, strategy
from worker.sandbox.frames import CHUNK_BYTES, HEADER, PROTOCOL, Frame
from worker.sandbox.kernel import Usage, cpu_seconds, oom_kills, open_oom_counter, set_dumpable
from worker.sandbox.standby import Standby

if TYPE_CHECKING:
    from worker.sandbox.channel import Run

TOKEN_BYTES = 16


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
    """Watches a strategy's process: its output, its end, the deadline and the worker's hang-up, all at once."""

    child: int
    outlet: Outlet
    deadline: float
    wakeup: int
    usage: Usage
    status: int | None = None
    timed_out: bool = False

    @property
    def exit_code(self) -> int | None:
        """The process' exit code, or -signal; None while it has not ended."""
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)

    def watch(self, until: int | None = None) -> None:
        """Return when the process or its time has ended, or when `until` can be read."""
        poll = select.poll()
        for fd in (channel.CONTROL_IN, self.wakeup, *self.outlet.kinds):
            poll.register(fd, select.POLLIN)
        if until is not None:
            poll.register(until, select.POLLIN)
        while self.status is None and not self.timed_out:
            remaining = self.deadline - time.monotonic()
            self.timed_out = remaining <= 0
            for fd, _ in poll.poll(max(remaining, 0) * 1000):
                if fd == until:
                    return
                self._attend(poll, fd)

    def _attend(self, poll: select.poll, fd: int) -> None:
        if fd == channel.CONTROL_IN:
            leave()  # the worker hung up: it says nothing while a strategy runs
        elif fd == self.wakeup:
            forget_signals(self.wakeup)
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

    def end(self) -> None:
        """Kill every other process of the container, daemonised grandchildren too, wait until alone, and drain."""
        alive = True
        while alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            alive = self._reap(0)
        forget_signals(self.wakeup)
        for fd in self.outlet.kinds:
            while self.outlet.forward(fd):
                pass


def serve(run: Run, standby: Standby, wakeup: int, oom_counter: int | None) -> None:
    """Have one strategy run, if it passes the check that the worker may ask for, and report how it ended."""
    if not standby.take(run.task_bytes, check=run.check):
        leave()
    oom_before = oom_kills(oom_counter)
    started = time.monotonic()
    usage = Usage(cpu_seconds=-cpu_seconds(standby.pid))  # what it has had is not the strategy's
    supervisor = Supervisor(standby.pid, Outlet(run.output_bytes), started + run.timeout, wakeup, usage)
    token = ""
    if not run.check or passes_check(standby, supervisor):
        # Made after the fork, so that the process' memory has no copy, and sent while it is held back.
        token = os.urandom(TOKEN_BYTES).hex()
        channel.send(Frame.STARTED, token.encode())
        supervisor.outlet.kinds = {standby.stdout: Frame.STDOUT, standby.stderr: Frame.STDERR}
        standby.run()
        supervisor.watch()
    supervisor.end()
    exit_code = supervisor.exit_code if token else None
    explanation = standby.left(strategy.EXPLANATION_BYTES) if exit_code else b""
    channel.send_json(
        Frame.REPORT,
        {
            "exit_code": exit_code if exit_code is not None and exit_code >= 0 else None,
            "signal": -exit_code if exit_code is not None and exit_code < 0 else None,
            "timed_out": supervisor.timed_out,
            "oom_kills": oom_kills(oom_counter) - oom_before,
            "truncated": supervisor.outlet.truncated,
            "wall_seconds": time.monotonic() - started,
            "cpu_seconds": max(usage.cpu_seconds, 0.0),  # of two of the kernel's accounts, the difference
            "peak_memory_bytes": usage.peak_memory_bytes,
            "explanation": explanation.decode("ascii", "replace"),
            "token": token,
        },
    )


def passes_check(standby: Standby, supervisor: Supervisor) -> bool:
    """Tell whether the code policy lets the strategy run; where it does not, send the worker its violations."""
    supervisor.watch(until=standby.word)
    if not supervisor.timed_out and standby.found_it_clean():
        return True
    supervisor.watch()
    if not supervisor.timed_out:
        from worker.sandbox import check  # noqa: PLC0415  # hardly any source is refused here

        # It leaves with 0 when it has found something: another end is that of a source which ends who reads it.
        found = standby.left(check.VERDICT_BYTES) if supervisor.exit_code == 0 else b""
        channel.send(Frame.VIOLATIONS, found or check.encode([check.UNREADABLE]))
    return False


def prepare() -> int:
    """Seal this process and import what strategies use; return the descriptor that wakes on a child's end."""
    set_dumpable(False)
    # What has no handler cannot be delivered to PID 1 from inside; Python's own for SIGINT would be one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_read, False)
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    preload.libraries()
    return wakeup_read


def forget_signals(wakeup: int) -> None:
    """Take what the descriptor that wakes on a child's end has to say: one look at all children is enough for it."""
    with contextlib.suppress(BlockingIOError):
        os.read(wakeup, CHUNK_BYTES)


def receive(standby: Standby, wakeup: int) -> Run | None:
    """Wait for a run, and for the end of who is to run it; None when the worker hung up."""
    poll = select.poll()
    for fd in (channel.CONTROL_IN, wakeup):
        poll.register(fd, select.POLLIN)
    while not any(fd == channel.CONTROL_IN for fd, _ in poll.poll()):
        forget_signals(wakeup)
        if os.waitpid(standby.pid, os.WNOHANG)[0]:
            leave()
    return channel.receive(standby.task, standby.data)


def leave() -> NoReturn:
    """End the sandbox: the worker hung up, or the process that stood by has ended. No strategy has to do with it."""
    os._exit(0)


def main() -> NoReturn:
    """Serve strategies until the worker hangs up."""
    if os.getpid() != 1:  # Supervisor.end() kills every process it can see
        sys.exit("the runner is PID 1 of a sandbox container and runs nowhere else")
    wakeup = prepare()
    oom_counter = open_oom_counter()
    standby = Standby.ready()
    channel.send_json(Frame.READY, {"protocol": PROTOCOL, "python": sys.version.split()[0]})
    while run := receive(standby, wakeup):
        serve(run, standby, wakeup, oom_counter)
        if run.last:
            os.read(channel.CONTROL_IN, 1)  # an end takes a processor, which the result needs: wait for the hang-up
            break
        standby.close()
        preload.random()
        standby = Standby.ready()
    leave()


if __name__ == "__main__":
    main()
