"""The runner's end of its channel to the worker: a run comes in, frames go out.

Each process that stands by is a copy of the runner, and a worker may send one run after the other. So a run's code,
data and output go through memory of their own, which is freed with the run or which no child gets, and never through
the runner's heap: the next run's process would find there what is left of them. Standard library only.
"""

from __future__ import annotations

import fcntl
import functools
import json
import mmap
import os
import sys
from dataclasses import dataclass

from worker.sandbox.frames import CHUNK_BYTES, HEADER, MAX_PAYLOAD_BYTES, Frame, encode, read_header

CONTROL_IN, CONTROL_OUT = 0, 1
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass
class Run:
    """One strategy as it came over the wire, but for its code and data, which are where they are needed."""

    timeout: float
    output_bytes: int
    data_bytes: int
    check: bool
    #: Whether the worker sends no other after it.
    last: bool
    #: Length of options and source.
    task_bytes: int = 0


@functools.cache
def passage() -> memoryview:
    """Return the memory that output passes through, one frame's; no child has it."""
    memory = mmap.mmap(-1, HEADER.size + CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_DONTFORK)
    return memoryview(memory)


def pass_on(kind: Frame, count: int) -> None:
    """Write one frame to the worker, of so many bytes that stand after its header in the passage."""
    HEADER.pack_into(passage(), 0, kind, count)
    write(passage()[: HEADER.size + count])


def write(data: memoryview) -> None:
    """Write to the worker, all of it."""
    while data:
        data = data[os.write(CONTROL_OUT, data) :]


def send(kind: Frame, payload: bytes) -> None:
    """Write one frame to the worker, whole."""
    write(memoryview(encode(kind, payload)))


def send_json(kind: Frame, message: dict[str, object]) -> None:
    """Write one frame with a JSON payload."""
    send(kind, json.dumps(message).encode())


def read_into(memory: memoryview) -> None:
    """Fill the memory from the worker.

    Raises:
        EOFError: the worker hung up.
    """
    while memory:
        count = os.readv(CONTROL_IN, [memory])
        if not count:
            raise EOFError
        memory = memory[count:]


def expect(kind: Frame, most: int = MAX_PAYLOAD_BYTES) -> int:
    """Read the beginning of a frame and return the length of its payload."""
    beginning = bytearray(HEADER.size)
    read_into(memoryview(beginning))
    found, length = read_header(beginning)
    if found is not kind or length > most:
        sys.exit(f"unexpected frame {found!r} of {length} bytes")
    return length


def receive(task: mmap.mmap, data_fd: int) -> Run | None:
    """Read one strategy from the worker: its options and source into `task`, its data into a file that is sealed then.

    None when the worker hung up.
    """
    try:
        header = bytearray(expect(Frame.RUN))
        read_into(memoryview(header))
        run = Run(**json.loads(header))
        run.task_bytes = expect(Frame.CODE)
        with memoryview(task) as memory, memory[: run.task_bytes] as room:
            read_into(room)
        receive_data(data_fd, run.data_bytes)
    except EOFError:
        return None
    return run


def receive_data(data_fd: int, size: int) -> None:
    """Fill the data file, and seal it."""
    if size:
        os.pwrite(data_fd, b"\0", size - 1)  # grows it; a sandbox has no right to ftruncate
        with mmap.mmap(data_fd, size) as memory, memoryview(memory) as room:
            at = 0
            while at < size:
                end = at + expect(Frame.DATA, most=size - at)
                with room[at:end] as piece:
                    read_into(piece)
                at = end
    fcntl.fcntl(data_fd, fcntl.F_ADD_SEALS, SEALS)
