"""Run thousands of pieces of honest work under our seccomp profile and under the engine's: `make soak`.

Every piece runs once under each profile, with the same seed, in containers that are as hardened as any. It fails when a
piece that succeeds under the engine's profile fails under ours, or returns something else.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from worker.sandbox.config import SandboxConfig
from worker.sandbox.container import How, Sandbox

SOURCE = Path(__file__).with_name("workloads.py").read_text()
PIECES = tuple(
    line[4 : line.index("(")]
    for line in SOURCE.splitlines()
    if line.startswith("def ") and not line.startswith(("def prices(", "def main("))
)
TIMEOUT_SECONDS = 30.0
#: A container serves this many pieces, one after the other: what is soaked is the profile, not the start of containers.
PIECES_PER_SANDBOX = 50
MAX_EXECUTIONS = 100_000
SHOWN = 5


class EngineProfileConfig(SandboxConfig):
    """The same hardened container with the engine's own profile: what ours is compared with."""

    def container_spec(self, owner: str) -> dict[str, Any]:
        """Return the usual body without our profile."""
        spec = super().container_spec(owner)
        options = spec["HostConfig"]["SecurityOpt"]
        spec["HostConfig"]["SecurityOpt"] = [one for one in options if not one.startswith("seccomp=")]
        return spec


class Piece(NamedTuple):
    """One piece of work."""

    name: str
    seed: int


class Outcome(NamedTuple):
    """How a piece ended."""

    succeeded: bool
    output: str
    detail: str


def plan(executions: int, seed: int) -> list[Piece]:
    """Return as many pieces, each kind equally often, in random order."""
    dice = random.Random(seed)
    pieces = [Piece(name, dice.randrange(2**31)) for name in itertools.islice(itertools.cycle(PIECES), executions)]
    dice.shuffle(pieces)
    return pieces


def run_chunk(config: SandboxConfig, chunk: list[Piece]) -> dict[Piece, Outcome]:
    """Run pieces one after the other in one container."""
    sandbox = Sandbox(config)
    try:
        return {piece: run_piece(sandbox, piece) for piece in chunk}
    finally:
        sandbox.destroy()


def run_piece(sandbox: Sandbox, piece: Piece) -> Outcome:
    """Run one piece in a sandbox that may have served others."""
    data = json.dumps({"piece": piece.name, "seed": piece.seed}).encode()
    ending = sandbox.run(SOURCE, data, TIMEOUT_SECONDS, last=False)
    report = ending.report
    succeeded = ending.how is How.REPORTED and report is not None and report.exit_code == 0
    return Outcome(succeeded, ending.stdout.decode(errors="replace"), ending.stderr.decode(errors="replace")[-2_000:])


def soak(executions: int, seed: int, console: Console) -> tuple[dict[Piece, Outcome], dict[Piece, Outcome]]:
    """Run the plan under both profiles at once, so that the machine's moods hit both alike."""
    pieces = plan(executions, seed)
    chunks = [pieces[start : start + PIECES_PER_SANDBOX] for start in range(0, len(pieces), PIECES_PER_SANDBOX)]
    runs = {"stratbox": SandboxConfig(), "engine": EngineProfileConfig()}
    with Progress(console=console, transient=True) as progress, ThreadPoolExecutor(len(runs)) as threads:

        def whole(name: str) -> dict[Piece, Outcome]:
            bar = progress.add_task(f"{name} profile", total=len(pieces))
            found: dict[Piece, Outcome] = {}
            for chunk in chunks:
                found |= run_chunk(runs[name], chunk)
                progress.advance(bar, len(chunk))
            return found

        ours, engines = threads.map(partial(whole), runs)
    return ours, engines


def compare(ours: dict[Piece, Outcome], engines: dict[Piece, Outcome]) -> dict[Piece, str]:
    """Return what our profile broke, and how it showed."""
    broken = {}
    for piece, engine in engines.items():
        if engine.succeeded and not ours[piece].succeeded:
            broken[piece] = ours[piece].detail or "ended without a report"
        elif engine.succeeded and engine.output != ours[piece].output:
            broken[piece] = f"returned {ours[piece].output!r:.300}, under the engine's profile {engine.output!r:.300}"
    return broken


def main() -> int:
    """Run the soak and print its counts; 1 when our profile broke something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=2_000, help="how many, under each profile")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run")
    options = parser.parse_args()
    if not 1 <= options.executions <= MAX_EXECUTIONS:
        parser.error(f"--executions must lie between 1 and {MAX_EXECUTIONS}")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    console, started = Console(), time.monotonic()
    ours, engines = soak(options.executions, seed, console)
    broken = compare(ours, engines)
    table = Table("piece", "executions", "failed, our profile", "failed, the engine's", "broken by ours")
    for name in PIECES:
        counts = [sum(not o.succeeded for p, o in found.items() if p.name == name) for found in (ours, engines)]
        total = collections.Counter(piece.name for piece in ours)[name]
        table.add_row(name, *map(str, (total, *counts, sum(piece.name == name for piece in broken))))
    console.print(table)
    for piece, detail in itertools.islice(broken.items(), SHOWN):
        console.print(f"[red]{piece.name}, seed {piece.seed}:[/] {detail}", markup=True)
    failed = [sum(not outcome.succeeded for outcome in found.values()) for found in (ours, engines)]
    console.print(
        f"{len(ours):,} executions under each profile in {time.monotonic() - started:.0f} s (--seed {seed}): "
        f"{failed[0]} failed under ours, {failed[1]} under the engine's, {len(broken)} broken by ours"
    )
    return 1 if broken or any(failed) else 0


if __name__ == "__main__":
    sys.exit(main())
