"""What is looked at when a run of the chaos suite is over: verdicts, leftovers, memory."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import docker
import redis

from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.chaos.faults import Fleet
    from tests.chaos.servers import RedisServer

#: Inherited by every process of a run, so that one that outlives it is found.
SESSION_VARIABLE = "CHAOS_SESSION"
SAMPLE_SECONDS = 0.5
#: Keys that may stay for ever: kombu's tables of queues.
LASTING = "_kombu.binding"
LEDGER = "stratbox:celery:"
ENDED = b'"event": "execution ended"'
#: So many executions and a main process has imported and cached what it will.
SETTLED_AFTER = 100


def leaked_containers(docker_host: str | None) -> list[str]:
    """Return the containers of an engine whose owner has ended."""
    with closing(docker.DockerClient(base_url=docker_host) if docker_host else docker.from_env()) as client:
        found = client.api.containers(all=True, filters={"label": OWNER_LABEL})
    return [f"container {one['Id'][:12]}" for one in found if Owner.parse(one["Labels"][OWNER_LABEL]).gone()]


def leaked_processes(session: str) -> list[str]:
    """Return the processes of a run, other than this one."""
    return [
        f"process {process.name}"
        for process in Path("/proc").glob("[0-9]*")
        if int(process.name) != os.getpid() and _is_of(session, process)
    ]


def _is_of(session: str, process: Path) -> bool:
    try:
        return f"{SESSION_VARIABLE}={session}".encode() in (process / "environ").read_bytes()
    except OSError:
        return False  # it has just ended


def leaked_keys(client: redis.Redis) -> list[str]:
    """Return the keys in Redis that nothing will ever remove."""
    keys = [key for key in client.scan_iter(count=1000) if not key.startswith(LASTING)]
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.ttl(key)
        return sorted(f"key {key}" for key, ttl in zip(keys, pipe.execute(), strict=True) if ttl == -1)


def patiently(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """Return what is still left after up to so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def executions(logs: Iterable[Path]) -> Counter[str]:
    """Return how often each submission ran to its end, by the workers' logs."""
    lines = (line for log in logs for line in log.read_bytes().splitlines() if ENDED in line)
    return Counter(json.loads(line)["task_id"] for line in lines)


def last_words(log: Path) -> str:
    """Return what a worker that ended said of it: its last grave line, or its last one."""
    lines = log.read_text(errors="replace").splitlines()
    grave = [line for line in lines if '"level": "critical"' in line]
    return (grave or lines or ["nothing"])[-1]


class Memory(NamedTuple):
    """What the elder's main process held, and after how many executions of its pool."""

    executions: int
    bytes: int


class Watch(threading.Thread):
    """Samples what is gone at the end: how often each submission was begun, and the elder's memory."""

    def __init__(self, server: RedisServer, fleet: Fleet) -> None:
        super().__init__(name="watch")
        self._url, self._elder = server.url, fleet.elder
        self._over = threading.Event()
        #: As far as the samples show.
        self.starts: Counter[str] = Counter()
        self.memory: list[Memory] = []

    def run(self) -> None:
        """Look until told to stop."""
        with redis.Redis.from_url(self._url, decode_responses=True) as client:
            while not self._over.wait(SAMPLE_SECONDS):
                self.memory.append(Memory(self._elder.log.read_bytes().count(ENDED), self._elder.memory_bytes()))
                with contextlib.suppress(redis.RedisError):  # it is away
                    self._count_starts(client)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self.is_alive():
            self.join()

    def growth(self) -> tuple[Memory, Memory] | None:
        """Return the elder's memory when it had settled, and at the end; None when it did too little."""
        settled = [one for one in self.memory if one.executions >= SETTLED_AFTER and one.bytes]
        return (settled[0], settled[-1]) if settled else None

    def _count_starts(self, client: redis.Redis) -> None:
        with client.pipeline(transaction=False) as pipe:
            for name in ("started", "ready", "later"):
                pipe.zrange(LEDGER + name, 0, -1)
            under_way = sorted({task_id for found in pipe.execute() for task_id in found})
            for task_id in under_way:
                pipe.hget(f"{LEDGER}task:{task_id}", "starts")
            for task_id, starts in zip(under_way, pipe.execute(), strict=True):
                self.starts[task_id] = max(self.starts[task_id], int(starts or 0))
