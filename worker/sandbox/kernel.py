"""What the runner asks of the kernel: to keep this process closed, and what its children consumed.

Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource  # noqa: F401  # wait4() imports it when first called, which must not depend on the strategy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resource import struct_rusage

PR_SET_DUMPABLE = 4
#: Of the clocks of a process, the one that counts its CPU time exactly; see clock_getcpuclockid(3).
CPUCLOCK_SCHED = 2
#: Where the kernel counts out-of-memory kills: cgroup v2, then v1.
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
#: Both files are far shorter, bytes.
COUNTER_BYTES = 4096

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Usage:
    """What the processes that have been reaped so far consumed."""

    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, usage: struct_rusage) -> None:
        """Count one reaped process."""
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        self.peak_memory_bytes = max(self.peak_memory_bytes, usage.ru_maxrss * 1024)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a living child has had."""
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


def open_oom_counter() -> int | None:
    """Return a descriptor of the kernel's counter, open before any strategy can see to it that nothing opens."""
    for counter in OOM_COUNTERS:
        with contextlib.suppress(OSError):
            return os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
    return None


def oom_kills(counter: int | None) -> int:
    """Return how many processes of this container the kernel has killed for memory; 0 where nobody counts."""
    if counter is not None:
        for line in os.pread(counter, COUNTER_BYTES, 0).decode().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def set_dumpable(dumpable: bool) -> None:
    """Allow or forbid this uid's other processes to trace this one or to read its memory and descriptors."""
    if _libc.prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
