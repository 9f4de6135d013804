"""Where the time of a start goes, and what a sandbox weighs."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.contenders import CONFIG, DATA, STRATEGY
from bench.measure import Spread, calm
from tasks import ExecutionRequest
from worker.executor import CodeExecutor
from worker.sandbox.container import Sandbox, connect
from worker.sandbox.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a sandbox does until it is ready, and when it has come so far, by the kernel's clock, which is the same in every
#: container.
TELLING = """
import gc, time
marks = [time.monotonic()]
gc.disable()
from worker.sandbox import archive
archive.use()
from worker.sandbox import preload, runner
marks.append(time.monotonic())
import numpy
marks.append(time.monotonic())
import pandas
marks.append(time.monotonic())
preload.libraries()
marks.append(time.monotonic())
print(*marks, flush=True)
"""
PHASES = ("create", "start", "interpreter", "runner", "numpy", "pandas", "first use")


@dataclass(frozen=True)
class Anatomy:
    """Of one sandbox."""

    #: Milliseconds of each phase of a start, one after the other.
    phases: dict[str, Spread]
    #: From the first call to a sandbox that is ready, milliseconds.
    ready_milliseconds: Spread
    #: Of a sandbox that waits, everything the kernel counts as its memory, bytes.
    idle_bytes: int
    #: Peak resident memory of the strategy's process, most of it shared with the runner, bytes.
    strategy_peak_bytes: int
    image_bytes: int


def anatomy(samples: int, tell: Callable[[str], None]) -> Anatomy:
    """Measure all of it."""
    tell("anatomy of a start")
    phases: dict[str, list[float]] = {name: [] for name in PHASES}
    ready = []
    for _ in range(samples):
        calm()
        for name, seconds in zip(PHASES, _start(), strict=True):
            phases[name].append(seconds * 1000)
        calm()
        begun = time.perf_counter()
        sandbox = Sandbox(CONFIG)
        ready.append((time.perf_counter() - begun) * 1000)
        sandbox.destroy()
    spreads = {name: Spread.of(values) for name, values in phases.items()}
    return Anatomy(spreads, Spread.of(ready), _idle_bytes(), _peak_bytes(), _image_bytes())


def _start() -> list[float]:
    """Start an interpreter in a container like a sandbox's; return the seconds of each phase."""
    spec = CONFIG.container_spec(str(Owner.current())) | {"Entrypoint": ["/python", "-s", "-P", "-c", TELLING]}
    with contextlib.closing(connect()) as client:
        moments = [time.monotonic()]
        container = client.create_container_from_config(spec, f"stratbox-bench-{uuid.uuid4().hex[:12]}")["Id"]
        said = client.attach(container, stdout=True, stream=True)
        moments.append(time.monotonic())
        client.start(container)
        moments.append(time.monotonic())
        moments += [float(text) for text in b"".join(said).split()]
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


def _idle_bytes() -> int:
    sandbox = Sandbox(CONFIG)
    with contextlib.closing(connect()) as client:
        time.sleep(1.0)
        stats = client.stats(sandbox.container_id, stream=False)["memory_stats"]
    sandbox.destroy()
    return int(stats["usage"])


def _peak_bytes() -> int:
    with CodeExecutor(CONFIG) as executor:
        return executor.execute(ExecutionRequest.build(STRATEGY, DATA)).metrics.peak_memory_bytes


def _image_bytes() -> int:
    with contextlib.closing(connect()) as client:
        return int(client.inspect_image(CONFIG.image)["Size"])
