"""Answers one scrape: the values of all processes of a worker, the queue in Redis, and what this worker is."""

# Parts of prometheus_client have no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.connection import open_client
from tasks.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import Metric

    from tasks.app import StratboxApp

__all__ = ["ProcessValues", "QueueInRedis", "serve"]

logger = logging.getLogger(__name__)

#: A scrape with Redis away must end well before Prometheus gives up on it, which is after 10 s.
REDIS_SECONDS = 1.0
#: How often to read the files of processes, of which one may be making a file at the very moment.
ATTEMPTS = 3
#: Stands where a number of a process stands, in the name of the file with the values of all that have ended.
ENDED = "ended"


def serve(address: str, port: int, app: StratboxApp) -> WSGIServer:
    """Answer scrapes from a thread of this process.

    Args:
        address: to listen on.
        port: to listen on.
        app: whose ledger to look into.

    Raises:
        OSError: the port cannot be had.
    """
    registry = CollectorRegistry()
    # Without tries again: the next scrape is one.
    options = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    ledger = Ledger(app.settings, open_client(app.conf, retry=Retry(NoBackoff(), 0), **options))
    for collector in (ProcessValues(), QueueInRedis(ledger), Build()):
        registry.register(collector)
    server, _ = start_http_server(port, address, registry)
    return server


class ProcessValues(Collector):
    """What the processes of this worker have counted, the ended ones included."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        """Add them up."""
        with self._lock:  # two scrapes at once: one would read what the other puts away
            self._put_ended_away()
            return self._read()

    def _read(self) -> Iterable[Metric]:
        for attempt in range(ATTEMPTS):
            try:
                return list(MultiProcessCollector(None, str(self._folder)).collect())
            except Exception as exc:  # noqa: BLE001  # a file half made shows itself in many ways
                logger.debug("attempt %d to read the metrics of the processes failed: %s", attempt + 1, exc)
                time.sleep(0.01)
        return []

    def _put_ended_away(self) -> None:
        """Put the values of processes that have ended into one file for each kind.

        Pool processes are replaced every so often; a scrape that read the files of a month's would take seconds.
        """
        ended: dict[str, list[Path]] = {}
        for file in self._folder.glob("*.db"):
            kind, _, pid = file.stem.rpartition("_")
            if pid == ENDED or _is_ours(int(pid)):
                continue
            if kind.startswith("gauge"):
                mark_process_dead(int(pid), str(self._folder))
            else:
                ended.setdefault(kind, []).append(file)
        for kind, files in ended.items():
            self._merge(files, self._folder / f"{kind}_{ENDED}.db")

    def _merge(self, files: Sequence[Path], into: Path) -> None:
        merged = [str(file) for file in (*files, into) if file.exists()]
        values = MmapedDict(str(fresh := into.with_suffix(".new")))
        for metric in MultiProcessCollector.merge(merged, accumulate=False):
            for sample in metric.samples:
                labels = (list(sample.labels), list(sample.labels.values()))
                values.write_value(mmap_key(metric.name, sample.name, *labels, metric.documentation), sample.value, 0.0)
        values.close()
        fresh.replace(into)
        for file in files:
            file.unlink()


def _is_ours(pid: int) -> bool:
    """Whether a process of this worker lives under the number, and not another that got it later."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    parent = int(stat.rpartition(")")[2].split()[1])
    return os.getpid() in {pid, parent}


class QueueInRedis(Collector):
    """How long the queue is, the same from every worker that is asked.

    Args:
        ledger: of a client that is impatient.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        """Ask Redis; without an answer say only that."""
        try:
            depth, oldest = self._ledger.waiting()
        except (redis.RedisError, OSError) as exc:
            logger.debug("Redis does not tell the length of the queue: %s", exc)
            yield GaugeMetricFamily("stratbox_redis_up", "Whether Redis told the length of the queue.", 0)
            return
        yield GaugeMetricFamily("stratbox_redis_up", "Whether Redis told the length of the queue.", 1)
        yield GaugeMetricFamily("stratbox_queue_depth", "Executions that wait in the queue.", depth)
        age = max(0.0, time.time() - oldest) if oldest is not None else 0.0
        text = "How long ago the oldest submission that waits was accepted."
        yield GaugeMetricFamily("stratbox_queue_oldest_seconds", text, age)


class Build(Collector):
    """Which version this is."""

    def collect(self) -> Iterator[Metric]:
        """Say it."""
        versions = {"version": version("stratbox"), "python": platform.python_version(), "celery": version("celery")}
        yield InfoMetricFamily("stratbox_build", "Versions of what runs here.", versions)
