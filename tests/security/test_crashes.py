"""Ways to end: whatever a strategy does to itself is a status, never a hang or an error of the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from tests.security.arena import Arena


class Ending(NamedTuple):
    """A way to end, and what must come of it."""

    code: str
    status: str
    exit_code: int | None = None
    signal: int | None = None


#: In a thread whose stack is smaller than the interpreter's own count of nested calls allows for.
STACK_OVERFLOW = """
import threading
threading.stack_size(1 << 15)
def deeper(_): return sorted([1], key=deeper)
thread = threading.Thread(target=deeper, args=(1,))
thread.start()
thread.join()
"""

ENDINGS = {
    "segmentation fault": Ending("ctypes.string_at(0)", "crashed", None, signal=11),
    "abort": Ending("os.abort()", "crashed", None, signal=6),
    "illegal instruction": Ending("os.kill(os.getpid(), signal.SIGILL)", "crashed", None, signal=4),
    "corrupt heap": Ending("ctypes.memset(id(print), 255, 64)\nprint(1)", "crashed", None, signal=11),
    "stack overflow": Ending(STACK_OVERFLOW, "crashed", None, signal=11),
    "endless recursion": Ending("f = lambda: f()\nf()", "failed", 1),
    "os._exit(0)": Ending("os._exit(0)", "succeeded", 0),
    "exit code 256": Ending("sys.exit(256)", "succeeded", 0),
    "exit code -1": Ending("sys.exit(-1)", "failed", 255),
    "real-time signal": Ending("os.kill(os.getpid(), 40)", "crashed", None, signal=40),
    "an exception that cannot be told": Ending(
        "class E(Exception):\n    __str__ = __repr__ = property(lambda s: 1/0)\nE.__name__ = '\\ud800'\nraise E",
        "failed",
        1,
    ),
    "an exception of 64 MB": Ending("raise ValueError('\\N{PILE OF POO}' * (1 << 24))", "failed", 1),
    "a chain of ten thousand": Ending(
        "e = None\nfor _ in range(10_000):\n    n = ValueError()\n    n.__cause__, e = e, n\nraise e", "failed", 1
    ),
    "no builtins": Ending("import builtins\nbuiltins.__dict__.clear()\nraise_", "failed", 1),
    "no modules": Ending("sys.modules.clear()\nraise ValueError", "failed", 1),
    "no streams": Ending("del sys.stdout, sys.stderr, sys.stdin\n1/0", "failed", 1),
    "another program": Ending("os.execv('/python', ['python', '-c', 'import os; os._exit(5)'])", "failed", 5),
}


@pytest.mark.threat("crashing, lying exit codes, unprintable exceptions", control="statuses from the runner's own eyes")
@pytest.mark.parametrize("how", ENDINGS)
def test_every_ending_is_a_status(arena: Arena, how: str) -> None:
    """Each ends with its status, code or signal, and what was printed before is kept."""
    ending = ENDINGS[how]
    result = arena.attack(f"print('begun')\n{ending.code}")
    if arena.gvisor and how == "an exception of 64 MB" and result.status == "out_of_memory":
        return  # its own kernel takes a part of the memory
    assert (result.status, result.exit_code, result.signal) == ending[1:], result
    assert result.output == "begun\n"
