"""What the runner asks of the kernel: usage, and kills for memory."""

from __future__ import annotations

import os
import resource
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from worker.sandbox import kernel
from worker.sandbox.kernel import Usage

if TYPE_CHECKING:
    from pathlib import Path


def rusage(utime: float, stime: float, maxrss: int) -> resource.struct_rusage:
    """Return what the kernel says of one process."""
    return cast("resource.struct_rusage", SimpleNamespace(ru_utime=utime, ru_stime=stime, ru_maxrss=maxrss))


def test_usage_adds_time_and_keeps_the_peak() -> None:
    """Time of all processes together; memory of the largest one, from KiB to bytes."""
    usage = Usage()
    usage.add(rusage(1.0, 0.5, 2048))
    usage.add(rusage(0.25, 0.125, 1024))
    assert usage == Usage(cpu_seconds=1.875, peak_memory_bytes=2048 * 1024)


def test_usage_takes_what_the_kernel_gives() -> None:
    """The real structure has those fields, in those units."""
    usage = Usage()
    usage.add(resource.getrusage(resource.RUSAGE_SELF))
    assert usage.cpu_seconds > 0
    assert 2**20 < usage.peak_memory_bytes < 2**36


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("low 0\nhigh 0\nmax 9\noom 5\noom_kill 3\noom_group_kill 0\n", 3),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7),
        ("oom_kill_disable 0\nunder_oom 0\n", 0),
        ("", 0),
    ],
)
def test_oom_kills_reads_both_kinds_of_cgroup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, count: int
) -> None:
    """`oom_kill` alone counts: `oom` is an attempt, `oom_kill_disable` a setting."""
    counter = tmp_path / "events"
    counter.write_text(text)
    monkeypatch.setattr(kernel, "OOM_COUNTERS", (str(tmp_path / "missing"), str(counter)))
    descriptor = kernel.open_oom_counter()
    assert descriptor is not None
    try:
        assert kernel.oom_kills(descriptor) == count
        counter.write_text(text.replace("oom_kill 3", "oom_kill 9"))
        assert kernel.oom_kills(descriptor) == (9 if count == 3 else count), "the open counter is read afresh"
    finally:
        os.close(descriptor)


def test_oom_kills_is_0_where_nobody_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As under gVisor."""
    monkeypatch.setattr(kernel, "OOM_COUNTERS", (str(tmp_path / "missing"),))
    assert kernel.open_oom_counter() is None
    assert kernel.oom_kills(None) == 0


def test_cpu_seconds_of_a_child_are_its_own() -> None:
    """What one process has had, told apart from this one's, to the microsecond and while it lives."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        os.write(write, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(read, 1)
        first = kernel.cpu_seconds(child)
        time.sleep(0.05)
        assert 0.1 <= first < 0.2
        assert kernel.cpu_seconds(child) == pytest.approx(first, abs=0.01), "it sleeps"
        assert kernel.cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
