"""Many hostile runs in random order, honest ones between and after them."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from tests.security.arena import Arena

#: The whole count is for `HOSTILE_RUNS=200`; this many are in every run of the suite.
RUNS = int(os.environ.get("HOSTILE_RUNS", "40"))
SEED = 20_240_607

SUCCEEDED, FAILED, CRASHED, TIMED_OUT, OUT_OF_MEMORY = (
    {ExecutionStatus(name)} for name in ("succeeded", "failed", "crashed", "timed_out", "out_of_memory")
)

#: Code, and the statuses it may end with.
ATTACKS: dict[str, tuple[str, set[ExecutionStatus]]] = {
    "fork bomb": ("try:\n    while os.fork() >= 0: pass\nexcept OSError: pass", SUCCEEDED | TIMED_OUT),
    "memory": ("hold = [b'x' * (1 << 20) + bytes([i % 256]) for i in range(400)]", OUT_OF_MEMORY),
    "loop": ("while True: pass", TIMED_OUT),
    "segfault": ("ctypes.string_at(0)", CRASHED),
    "kill all": ("refusal(os.kill, -1, 9)\nos.kill(0, 9)", CRASHED),
    "stop all": ("refusal(os.kill, -1, 19)\nos.kill(0, 19)", TIMED_OUT),
    "flood": ("for _ in range(200): os.write(1, bytes(1 << 16))", SUCCEEDED),
    "close all": ("os.closerange(0, 256)", SUCCEEDED),
    "daemon": ("if os.fork() == 0:\n    os.setsid()\n    os.fork()\n    time.sleep(60)", SUCCEEDED),
    "forged report": ("for fd in range(256): refusal(os.write, fd, b'\\x13\\0\\0\\0\\2{}')\nos._exit(7)", FAILED),
    "poisoned modules": ("import numpy\nnumpy.linalg.norm = len\nsys.modules['pandas'] = None", SUCCEEDED),
    "poisoned heap": ("ctypes.memset(id(0), 255, 1 << 12)", CRASHED | SUCCEEDED | FAILED | TIMED_OUT),
    "exhaustion": ("while True: os.dup(3)", FAILED),
    "abort in a thread": ("import threading\nthreading.Thread(target=os.abort).start()\ntime.sleep(9)", CRASHED),
    "exit": ("os._exit(0)", SUCCEEDED),
}


@pytest.mark.timeout(60 + 5 * RUNS)
@pytest.mark.threat("one attack after the other", control="one container for one strategy, then it is destroyed")
def test_hostile_runs_do_not_touch_honest_ones(arena: Arena) -> None:
    """Each hostile run has its status, and every fourth run is an honest one with the right numbers."""
    draw = random.Random(SEED)
    names = [name for _ in range(RUNS // len(ATTACKS) + 1) for name in ATTACKS][:RUNS]
    draw.shuffle(names)
    wrong: Counter[Any] = Counter()
    for count, name in enumerate(names, 1):
        code, allowed = ATTACKS[name]
        status = arena.attack(code, timeout=0.6 if ExecutionStatus.TIMED_OUT in allowed else 20).status
        if arena.gvisor and status in CRASHED | OUT_OF_MEMORY:
            continue
        if status not in allowed:
            wrong[name, status.value] += 1
        if count % 4 == 0:
            arena.run_honest()
    assert not wrong, f"with seed {SEED}"
