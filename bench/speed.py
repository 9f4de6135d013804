"""`make bench`: how fast strategies run here, beside a plain `docker run` on the same machine in the same minutes.

Ratios are the result; the times they come from belong to the machine that the results name.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bench import anatomy, broker, contenders, measure, peers, report, validator


def machine() -> dict[str, object]:
    """Return what the times depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    engine = json.loads(subprocess.check_output(["docker", "version", "--format", "{{json .Server}}"], text=True))
    return {
        "cpus": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "engine": engine["Version"],
        "python": platform.python_version(),
    }


def positive(text: str) -> int:
    """Read a number of at least one."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    """Measure everything, print it, and write it down where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=100, help="times each contender runs on an idle machine")
    parser.add_argument("--windows", type=positive, default=3, help="saturated windows of each contender")
    parser.add_argument("--seconds", type=positive, default=8, help="of a window")
    parser.add_argument("--at-once", type=positive, nargs="+", default=[1, 2, 4, 8], help="sandboxes at once")
    parser.add_argument("--queued", type=positive, default=100_000, help="how many are queued for the deep queue")
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    parser.add_argument("--json", type=Path, help="write the results here")
    given = parser.parse_args()
    if given.json and not given.json.parent.is_dir():
        parser.error(f"--json: there is no folder {given.json.parent}")  # not after half an hour
    console = Console()
    for name in [name for name in os.environ if name.startswith("STRATBOX_")]:
        del os.environ[name]
    with console.status("") as status:
        begun = time.time()
        ways: list[type[contenders.Contender]] = [contenders.DockerRun, *peers.PEERS, *contenders.OURS, contenders.Fork]
        results = {
            "when": time.strftime("%Y-%m-%d", time.gmtime(begun)),
            "machine": machine(),
            "idle": [asdict(one) for one in measure.idle(ways, given.rounds, given.seed, status.update)],
            "saturated": [
                asdict(one)
                for one in measure.saturated(
                    ways,
                    given.at_once,
                    windows=given.windows,
                    seconds=given.seconds,
                    seed=given.seed,
                    tell=status.update,
                )
            ],
            "broker": asdict(broker.broker(given.queued, max(given.rounds // 4, 5), status.update)),
            "anatomy": asdict(anatomy.anatomy(max(given.rounds // 10, 3), status.update)),
            "validator": [asdict(validator.measure(lines, validator.REPEATS)) for lines in validator.LINES],
            "seconds": round(time.time() - begun),
        }
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    for table in report.tables(results):
        console.print(table)


if __name__ == "__main__":
    main()
