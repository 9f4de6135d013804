"""Which process owns a container, so that what the dead left behind can be told from what is in use."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["OWNER_LABEL", "Owner"]

#: Marks our containers with the process that owns them.
OWNER_LABEL = "stratbox.owner"
#: Field of /proc/PID/stat after the command's closing parenthesis: when the process started, in ticks since boot.
START_TIME_FIELD = 19
#: What Linux gives out as process numbers.
PIDS = range(1, 2**22 + 1)


@dataclass(frozen=True)
class Owner:
    """A process, told from every other that has had or will have its number."""

    host: str
    boot: str
    #: The pid namespace in which its number means anything: containers may share a host's name, but not this.
    namespace: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> Self:
        """Return the calling process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _start_time(pid) or 0)

    @classmethod
    def parse(cls, label: str) -> Self:
        """Read a label's value.

        Raises:
            ValueError: it is not one of ours.
        """
        host, boot, namespace, pid, started = label.split("/")
        if int(pid) not in PIDS:
            msg = f"{pid} is no process number"
            raise ValueError(msg)
        return cls(host, boot, namespace, int(pid), int(started))

    def __str__(self) -> str:
        """Return the label's value."""
        return f"{self.host}/{self.boot}/{self.namespace}/{self.pid}/{self.started}"

    def gone(self) -> bool:
        """Whether it has ended, for certain; False for what another host, boot or pid namespace has to judge."""
        if (self.host, self.boot, self.namespace) != (socket.gethostname(), _boot(), _namespace()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # it lives, as somebody else; /proc may hide it
        return _start_time(self.pid) not in (None, self.started)

    def of_another_boot(self) -> bool:
        """Whether it ran before the restart of this machine, or runs on a namesake: that cannot be told apart."""
        return self.host == socket.gethostname() and self.boot != _boot()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return Path("/proc/self/ns/pid").readlink().name


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[START_TIME_FIELD])
