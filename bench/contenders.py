"""Ways to run one strategy under the same limits: the plain `docker run` that all ratios refer to, ours, the floor.

Each takes the same source and data, is checked for the same answer, and may be called from several threads.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Self

from local import private_redis, private_worker

from tasks import ExecutionRequest, StrategyClient
from tasks.settings import Settings
from worker.executor import CodeExecutor
from worker.sandbox.config import SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks import ExecutionResult

HERE = Path(__file__).resolve().parent
STRATEGY = (HERE / "rsi.py").read_text()
BARS = 250
DATA = {"close": json.loads((HERE.parent / "examples" / "data" / "sp500.json").read_text())["bars"]["close"][:BARS]}
CONFIG = SandboxConfig()
PATIENCE_SECONDS = 120.0
USER = "alice"
#: Of a sandbox that may be used again: no other is needed during a measurement.
MOST_RUNS = 10_000

#: What the floor runs: an interpreter that has imported everything forks for each line it reads. No deadline, no limit
#: on output, no data but what is there already, nothing sealed: what no honest sandbox can be faster than.
FORKING = """
import os, sys
import numpy, pandas
code = compile(open("/workspace/strategy.py").read(), "strategy", "exec")
print("ready", flush=True)
for line in sys.stdin:
    if os.fork() == 0:
        exec(code, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


class Contender(ABC):
    """One way to run the strategy, prepared for so many at once."""

    name: ClassVar[str]

    def __init__(self, at_once: int) -> None:
        self._stack = contextlib.ExitStack()
        #: How many to ask for at a time to keep it saturated.
        self.callers = at_once

    @abstractmethod
    def run(self) -> str:
        """Run the strategy and return what it printed."""

    def __enter__(self) -> Self:
        """Return itself, ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
        self._stack.close()


class DockerRun(Contender):
    """A container per strategy, started when it is asked for, by the command line."""

    name = "docker run"

    def __init__(self, at_once: int) -> None:
        super().__init__(at_once)
        self._command = ["docker", "run", "--rm", *_limits(self._stack.enter_context(_workspace())), CONFIG.image]
        self._command += ["-s", "-P", "/workspace/strategy.py"]

    def run(self) -> str:
        """Run the strategy and return what it printed."""
        return subprocess.run(
            self._command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        ).stdout


class Strict(Contender):
    """Stratbox without a queue: a warm container per strategy, used once."""

    name = "strict"
    runs_per_container: ClassVar[int] = 1

    def __init__(self, at_once: int) -> None:
        super().__init__(at_once)
        config = SandboxConfig(max_runs_per_container=self.runs_per_container)
        self._executor = self._stack.enter_context(CodeExecutor(config, warm=at_once))
        self._executor.warm()
        self._executor.wait_until_warm()

    def run(self) -> str:
        """Run the strategy and return what it printed."""
        return _output(self._executor.execute(ExecutionRequest.build(STRATEGY, DATA, user_id=USER)))


class Reuse(Strict):
    """Stratbox where the operator lets one user's strategies share a sandbox, one after the other."""

    name = "reuse"
    runs_per_container = MOST_RUNS


class StrictQueued(Contender):
    """Stratbox as it is meant to be used: through Redis and a worker, from submission to result."""

    name = "strict, queued"
    runs_per_container: ClassVar[int] = 1

    def __init__(self, at_once: int) -> None:
        super().__init__(at_once)
        self.callers = 2 * at_once  # a worker is not to wait for its next strategy
        url = self._stack.enter_context(private_redis())
        runs = {"STRATBOX_SANDBOX_MAX_RUNS_PER_CONTAINER": str(self.runs_per_container)}
        self._stack.enter_context(private_worker(url, concurrency=at_once, **runs))
        self._client = self._stack.enter_context(StrategyClient(Settings(redis_url=url)))

    def run(self) -> str:
        """Run the strategy and return what it printed."""
        return _output(self._client.submit(STRATEGY, DATA, user_id=USER).result(PATIENCE_SECONDS))


class ReuseQueued(StrictQueued):
    """The same where one user's strategies share a sandbox of each pool process."""

    name = "reuse, queued"
    runs_per_container = MOST_RUNS


class Fork(Contender):
    """The floor: a bare fork of a warm interpreter, in a container that serves for ever."""

    name = "floor: fork"

    def __init__(self, at_once: int) -> None:
        super().__init__(at_once)
        self._free: queue.Queue[tuple[IO[str], IO[str]]] = queue.Queue()
        folder = self._stack.enter_context(_workspace())
        command = ["docker", "run", "--rm", "--interactive", *_limits(folder), CONFIG.image, "-s", "-P", "-c", FORKING]
        for _ in range(at_once):
            process = self._stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            if not (process.stdin and process.stdout and process.stdout.readline()):
                msg = "the container of the floor ended before it was ready"
                raise RuntimeError(msg)
            self._free.put((process.stdin, process.stdout))

    def run(self) -> str:
        """Run the strategy and return what it printed."""
        question, answer = free = self._free.get(timeout=PATIENCE_SECONDS)
        try:
            print(file=question, flush=True)
            return answer.readline()
        finally:
            self._free.put(free)


OURS: list[type[Contender]] = [Strict, StrictQueued, Reuse, ReuseQueued]


@contextlib.contextmanager
def _workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stratbox-bench-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "strategy.py").write_text(STRATEGY)
        (path / "data.json").write_text(json.dumps(DATA))
        yield path


def _limits(workspace: Path) -> list[str]:
    """Return the limits of a sandbox, as the command line has them."""
    limits = CONFIG.limits
    return [
        *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--user", "1000:1000", "--cpus", f"{limits.cpus:g}", "--pids-limit", f"{limits.pids}"),
        *("--memory", f"{limits.memory_bytes}", "--memory-swap", f"{limits.memory_bytes}"),
        *("--volume", f"{workspace}:/workspace:ro", "--entrypoint", "/python"),
    ]


def _output(result: ExecutionResult) -> str:
    if not result.success:
        msg = f"the strategy ended as {result.status}: {result.error}"
        raise RuntimeError(msg)
    return result.output
