"""A process that stands by for a strategy: forked before the strategy comes, and as far as it can get without it.

What takes time in a fork is the copy of the page tables, and then of each page of Python's, numpy's and pandas' that is
touched, if only to count a reference. So this process rehearses: what strategies touch is its own by then.

Both halves are here, the runner's and the process' own. They share two pieces of memory without a descriptor, and two
pipes: the runner opens a gate, the process says a word. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import select
import signal
import struct
import sys
from dataclasses import dataclass
from typing import NoReturn

from worker.sandbox import preload, strategy
from worker.sandbox.frames import MAX_PAYLOAD_BYTES
from worker.sandbox.kernel import set_dumpable

#: `/workspace/data.json` in the image links to this descriptor of whoever opens it.
DATA_FD = 3
#: The process reads one and writes the other, until the strategy begins.
GATE_FD, WORD_FD = 4, 5
#: What goes through the gate first: whether to check the source, and how long options and source are, bytes. A second
#: time it opens for the run.
ORDER = struct.Struct("?I")
RUN = b"r"
#: The words: that it stands by, that it has taken the order, and, of a check, that the source is clean.
READY, TAKEN, CLEAN = b"r", b"t", b"c"
#: Where a strategy comes this soon, seconds, the machine is busy, and a rehearsal would only keep it longer.
PAUSE_SECONDS = 0.1


@dataclass
class Standby:
    """The runner's ends of what it shares with the process."""

    pid: int
    #: Options and source: a line of JSON, then text.
    task: mmap.mmap
    #: What the process leaves: the violations of a check, or the explanation of an exception.
    answer: mmap.mmap
    data: int
    stdout: int
    stderr: int
    gate: int
    word: int

    @classmethod
    def ready(cls) -> Standby:
        """Start a process, and return when it waits."""
        task, answer = (mmap.mmap(-1, MAX_PAYLOAD_BYTES) for _ in range(2))
        data = os.memfd_create("data.json", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        null = os.open(os.devnull, os.O_RDONLY)
        (out, out_end), (err, err_end), (gate_end, gate), (word, word_end) = (os.pipe() for _ in range(4))
        pid = os.fork()
        if pid == 0:
            try:
                become_child(null, out_end, err_end, data, gate_end, word_end)
                stand_by(task, answer)
            finally:
                os._exit(1)  # whatever went wrong, the child never goes on as a second runner
        for fd in (null, out_end, err_end, gate_end, word_end):
            os.close(fd)
        for fd in (out, err):
            os.set_blocking(fd, False)
        standby = cls(pid, task, answer, data, out, err, gate, word)
        if not standby._says(READY):
            sys.exit("the process that is to run a strategy ended before it was ready")
        return standby

    def take(self, task_bytes: int, *, check: bool) -> bool:
        """Have it take the options and source, and check that where it is told to; False when it has ended instead."""
        self._open_gate(ORDER.pack(check, task_bytes))
        return self._says(TAKEN)

    def found_it_clean(self) -> bool:
        """Return what it says of the source; False when it has ended instead."""
        return self._says(CLEAN)

    def run(self) -> None:
        """Have it run the strategy."""
        self._open_gate(RUN)

    def _open_gate(self, order: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, as whoever watches it will see
            os.write(self.gate, order)

    def _says(self, word: bytes) -> bool:
        return os.read(self.word, len(word)) == word

    def left(self, most: int) -> bytes:
        """Return what it has left, up to the first NUL; the runner only passes it on."""
        return self.answer[:most].partition(b"\0")[0]

    def close(self) -> None:
        """Free all of it."""
        self.task.close()
        self.answer.close()
        for fd in (self.data, self.stdout, self.stderr, self.gate, self.word):
            os.close(fd)


def become_child(*descriptors: int) -> None:
    """Leave the runner behind: own session, own descriptors from 0 on and no other, first in line to be killed."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Above all that is to be overwritten, first.
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD, len(descriptors)) for fd in descriptors]
    for target, source in enumerate(above):
        os.dup2(source, target)
    os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))
    # Of a process that is not dumpable, /proc/self belongs to root: open that door for one write only.
    set_dumpable(True)
    with contextlib.suppress(OSError):  # gVisor has no such file, and kills the sandbox as a whole
        adjustment = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(adjustment, b"1000")
        os.close(adjustment)
    set_dumpable(False)


def stand_by(task: mmap.mmap, answer: mmap.mmap) -> NoReturn:
    """Say that this process is ready, and do what it is told."""
    strategy.open_streams()
    os.write(WORD_FD, READY)
    if not select.select([GATE_FD], [], [], PAUSE_SECONDS)[0]:
        rehearse()
    check_first, task_bytes = ORDER.unpack(os.read(GATE_FD, ORDER.size))
    line, _, source = task[:task_bytes].decode().partition("\n")
    options = json.loads(line)
    os.write(WORD_FD, TAKEN)
    if check_first:
        from worker.sandbox import check  # noqa: PLC0415  # where the worker's Python is this one, no run needs it

        check.run(options["extra_modules"], source, answer)
        os.write(WORD_FD, CLEAN)
    if os.read(GATE_FD, len(RUN)) != RUN:  # held back until the worker knows
        os._exit(1)
    os.close(GATE_FD)
    os.close(WORD_FD)
    strategy.run(options["seed"], source, answer)


def rehearse() -> None:
    """Do once what strategies do, and what may be done with one before."""
    preload.rehearse()
    from worker.sandbox import check  # noqa: F401, PLC0415
