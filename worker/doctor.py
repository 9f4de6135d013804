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
from tasks.errors import OutputNotJSON, StratboxError
from tasks.models import ExecutionRequest, ExecutionResult, ExecutionStatus
from worker.executor import CodeExecutor
from worker.sandbox.container import connect
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

    from worker.sandbox.config import SandboxConfig

__all__ = ["PROBES", "Finding", "Probe", "examine", "examine_limits"]


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    name: str
    good: bool
    detail: str


@dataclass(frozen=True)
class Probe:
    """A program that tries a limit inside a sandbox, and what must come of it. The limits in force are its data."""

    name: str
    code: str
    #: How it must end.
    status: ExecutionStatus = ExecutionStatus.SUCCEEDED
    #: Judges what it left behind, once it has ended so: None when the limit held, else what went wrong.
    judge: Callable[[ExecutionResult, SandboxConfig], str | None] = lambda *_: None
    timeout: float = 20.0
    #: What holds under gVisor, where that is less or not all of it is told.
    under_gvisor: str = ""


def _judge_data(result: ExecutionResult, config: SandboxConfig) -> str | None:
    return None if result.json() == config.limits.model_dump() else f"it reads {result.output}"


def _judge_cpu(result: ExecutionResult, config: SandboxConfig) -> str | None:
    share = int(result.output) / 10_000
    # The quota comes in slices of 100 ms, and a run may begin with a full one.
    return None if share <= config.limits.cpus * 1.25 else f"{share:.2f} of a core"


def _judge_pids(result: ExecutionResult, config: SandboxConfig) -> str | None:
    born = int(result.output)
    return None if 0 < born < config.limits.pids else f"{born} threads started"


def _judge_sockets(result: ExecutionResult, config: SandboxConfig) -> str | None:
    loose = [
        f"{family} {answer}"
        for family, answer in result.json().items()
        if answer == "connected" or not (config.gvisor or answer == "EPERM")
    ]
    return ", ".join(loose) or None


def _judge_privileges(result: ExecutionResult, config: SandboxConfig) -> str | None:
    expected = "1000 1000 {0}\n" if config.gvisor else "1000 1000 {0}\n1 2\n"
    return None if result.output.startswith(expected) else " ".join(result.output.split())


def _judge_output(result: ExecutionResult, config: SandboxConfig) -> str | None:
    kept = len(result.output)
    return None if result.truncated and kept == config.limits.output_bytes else f"{kept} bytes kept"


def _expect_output(text: str) -> Callable[[ExecutionResult, SandboxConfig], str | None]:
    return lambda result, _: None if result.output.strip() == text else result.output.strip()


PROBES = (
    Probe("data file", "print(open('/workspace/data.json').read())", judge=_judge_data),
    # In how many tenths of a millisecond did it run? Its own clock tells the same under every kernel.
    Probe(
        "CPU share",
        """
import time
ran = set()
end = time.monotonic() + 1
while (now := time.monotonic()) < end:
    ran.add(int(now * 10_000))
print(len(ran))
""",
        judge=_judge_cpu,
    ),
    # Twice the limit and no more: where nothing holds, it is the host's memory.
    Probe(
        "memory",
        """
import json
limit = json.load(open('/workspace/data.json'))['memory_bytes']
held = [b'x' * (1 << 20) for _ in range(2 * limit >> 20)]
""",
        status=ExecutionStatus.OUT_OF_MEMORY,
    ),
    # Threads count as processes do. Under gVisor forks run out of memory first, and would show another limit.
    Probe(
        "processes",
        """
import json, os, threading, time
limit = json.load(open('/workspace/data.json'))['pids']
born = 0
try:
    while born < 2 * limit:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        born += 1
except RuntimeError:
    pass
print(born, flush=True)
os._exit(0)
""",
        judge=_judge_pids,
    ),
    Probe(
        "no network",
        """
interfaces = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]
print(interfaces, len(open('/proc/net/route').readlines()) - 1, 'routes')
""",
        judge=_expect_output("['lo'] 0 routes"),
    ),
    Probe(
        "no sockets",
        """
import errno, json, socket
answers = {}
for name, family, address in (
    ('AF_UNIX', 1, '/var/run/docker.sock'), ('AF_INET', 2, ('169.254.169.254', 80)),
    ('AF_INET6', 10, ('fd00::1', 80)), ('AF_NETLINK', 16, None), ('AF_VSOCK', 40, (2, 1024)),
):
    try:
        made = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as exc:
        answers[name] = errno.errorcode[exc.errno]
        continue
    answers[name] = 'made'
    if address:
        try:
            made.connect(address)
            answers[name] = 'connected'
        except OSError:
            pass
print(json.dumps(answers))
""",
        judge=_judge_sockets,
        under_gvisor="gVisor makes some; none leads out",
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
        judge=_expect_output("[]"),
    ),
    Probe(
        "no privileges",
        """
import os
status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)
print(os.getuid(), os.getgid(), {int(value, 16) for name, value in status.items() if name.startswith('Cap')})
print(*(status.get(name, 'unknown').strip() for name in ('NoNewPrivs', 'Seccomp')))
""",
        judge=_judge_privileges,
        under_gvisor="no capabilities; gVisor tells no more",
    ),
    Probe("timeout", "while True: pass", status=ExecutionStatus.TIMED_OUT, timeout=1.0),
    Probe("output cap", "print('x' * (2 << 20))", judge=_judge_output),
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
        yield from examine_limits(config)
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


def examine_limits(config: SandboxConfig, probes: Iterable[Probe] = PROBES) -> Iterator[Finding]:
    """Try limits, each by a run in a sandbox of its own."""
    # With the code policy off: it must not be what holds.
    with CodeExecutor(config, validator=None, warm=2) as executor:
        for probe in probes:
            try:
                yield _try(probe, executor)
            except StratboxError as exc:
                yield Finding(probe.name, good=False, detail=str(exc))
                return


def _try(probe: Probe, executor: CodeExecutor) -> Finding:
    config = executor.config
    timeout = min(probe.timeout, config.limits.timeout_seconds)
    result = executor.execute(ExecutionRequest(code=probe.code, data=config.limits.model_dump(), timeout=timeout))
    if result.status is not probe.status:
        why = f" ({result.error})" if result.error else ""
        return Finding(probe.name, good=False, detail=f"{result.status} instead of {probe.status}{why}")
    try:
        problem = probe.judge(result, config)
    except (ValueError, OutputNotJSON):
        problem = f"unexpected output {result.output[:200]!r}"
    held = (config.gvisor and probe.under_gvisor) or result.status
    return Finding(probe.name, good=problem is None, detail=problem or f"held ({held})")


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
