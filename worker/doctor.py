"""`stratbox doctor`: is everything there, and does every limit hold on this machine? Asked by real runs."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker.errors
import requests.exceptions
from rich.table import Table

from tasks.client import StrategyClient
from tasks.errors import StratboxError
from tasks.models import ExecutionRequest, ExecutionResult, ExecutionStatus
from worker.executor import CodeExecutor
from worker.sandbox.container import connect
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from worker.sandbox.config import SandboxConfig

__all__ = ["PROBES", "Finding", "Probe", "examine"]


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    name: str
    good: bool
    detail: str


@dataclass(frozen=True)
class Probe:
    """A program that tries a limit inside a sandbox, and what must come of it."""

    name: str
    code: str
    #: Judges the result under the limits in force; None when the limit held, else what went wrong.
    judge: Callable[[ExecutionResult, SandboxConfig], str | None]
    timeout: float = 20.0


def _expect(status: ExecutionStatus) -> Callable[[ExecutionResult, SandboxConfig], str | None]:
    return lambda result, _: None if result.status is status else f"{result.status} instead of {status}"


def _expect_output(text: str) -> Callable[[ExecutionResult, SandboxConfig], str | None]:
    return lambda result, _: None if result.output.strip() == text else (result.output or str(result.error)).strip()


def _judge_cpu(result: ExecutionResult, config: SandboxConfig) -> str | None:
    share = result.metrics.cpu_seconds / max(result.metrics.wall_seconds, 1e-9)
    # The quota comes in slices of 100 ms, and a run may begin with a full one.
    return None if share <= config.limits.cpus * 1.25 else f"{share:.2f} of a core"


def _judge_pids(result: ExecutionResult, config: SandboxConfig) -> str | None:
    born = int(result.output or -1)
    return None if 0 < born < config.limits.pids else f"{born} processes started"


def _judge_output(result: ExecutionResult, config: SandboxConfig) -> str | None:
    kept = len(result.output)
    return None if result.truncated and kept == config.limits.output_bytes else f"{kept} bytes kept"


PROBES = (
    Probe("data file", "print(open('/workspace/data.json').read())", _expect_output('{"probe":true}')),
    Probe("CPU share", "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass", _judge_cpu),
    Probe(
        "memory",
        "block = b'x' * (1 << 20)\nheld = [block + b'' + bytes([i % 256]) for i in range(1 << 20)]",
        _expect(ExecutionStatus.OUT_OF_MEMORY),
    ),
    Probe(
        "processes",
        """
import os, time
born = 0
try:
    while born < 5000:
        if os.fork() == 0:
            time.sleep(60)
        born += 1
except OSError:
    print(born)
""",
        _judge_pids,
    ),
    Probe(
        "no network",
        """
interfaces = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]
print(interfaces, len(open('/proc/net/route').readlines()) - 1, 'routes')
""",
        _expect_output("['lo'] 0 routes"),
    ),
    Probe(
        "read-only files",
        """
import os
written = []
for top, folders, names in os.walk('/'):
    folders[:] = [name for name in folders if os.path.join(top, name) not in ('/proc', '/sys')]
    try:
        open(os.path.join(top, 'probe'), 'w')
        written.append(top)
    except OSError:
        pass
print(written)
""",
        _expect_output("[]"),
    ),
    Probe(
        "no privileges",
        """
import os
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
names = ('CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs')
print(os.getuid(), os.getgid(), *(int(status[name], 16) for name in names), int(status['Seccomp']) > 0)
""",
        _expect_output("1000 1000 0 0 0 0 1 True"),
    ),
    Probe("timeout", "while True: pass", _expect(ExecutionStatus.TIMED_OUT), timeout=1.0),
    Probe("output cap", "print('x' * (2 << 20))", _judge_output),
)


def examine(console: Console) -> bool:
    """Print a table of findings as they come; return whether all are good."""
    table = Table("check", "", "finding")
    all_good = True
    with console.status("examining"):
        for finding in _findings():
            all_good &= finding.good
            table.add_row(finding.name, "[green]ok[/]" if finding.good else "[bold red]FAIL[/]", finding.detail)
    console.print(table)
    return all_good


def _findings() -> Iterator[Finding]:
    config = WorkerSettings().sandbox_config()
    engine = _check("engine", _engine)
    yield engine
    if engine.good:
        yield _check("image", lambda: _image(config))
        yield from _limits(config)
    yield from _queue()


def _check(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, good=True, detail=look())
    except (StratboxError, docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        return Finding(name, good=False, detail=str(exc))


def _engine() -> str:
    with contextlib.closing(connect()) as client:
        version, info = client.version(), client.info()
    return f"{version['Version']}, API {version['ApiVersion']}, cgroup v{info.get('CgroupVersion', '?')}"


def _image(config: SandboxConfig) -> str:
    try:
        with contextlib.closing(connect()) as client:
            size = client.inspect_image(config.image)["Size"]
    except docker.errors.ImageNotFound:
        msg = f"{config.image} is not there: run `make setup`"
        raise StratboxError(msg) from None
    return f"{config.image}, {size / 1e6:.0f} MB, runtime {config.runtime or 'default'}"


def _limits(config: SandboxConfig) -> Iterator[Finding]:
    # With the code policy off: it must not be what holds.
    with CodeExecutor(config, validator=None, warm=2) as executor:
        for probe in PROBES:
            try:
                yield _try(probe, executor)
            except StratboxError as exc:
                yield Finding(probe.name, good=False, detail=str(exc))
                return


def _try(probe: Probe, executor: CodeExecutor) -> Finding:
    timeout = min(probe.timeout, executor.config.limits.timeout_seconds)
    request = ExecutionRequest(code=probe.code, data={"probe": True}, timeout=timeout)
    result = executor.execute(request)
    problem = probe.judge(result, executor.config)
    return Finding(probe.name, good=problem is None, detail=problem or f"held ({result.status})")


def _queue() -> Iterator[Finding]:
    with StrategyClient() as client:
        redis = _check("redis", lambda: _redis(client.server_info()))
        yield redis
        if redis.good:
            yield _workers(client)


def _redis(info: dict[str, Any]) -> str:
    persistence = "on" if info.get("aof_enabled") else "OFF (what is queued is lost with the server)"
    return f"{info['redis_version']}, append-only file {persistence}, {info.get('maxmemory_policy', '?')}"


def _workers(client: StrategyClient) -> Finding:
    names = client.workers()
    detail = json.dumps(names) if names else "none answers: start one with `stratbox worker`"
    return Finding("workers", good=bool(names), detail=detail)
