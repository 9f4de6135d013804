"""What the queue takes and costs: submissions a second, bytes of Redis, an answer with 100,000 others there."""

from __future__ import annotations

import contextlib
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis
from local import private_redis, private_worker

from bench.contenders import DATA, PATIENCE_SECONDS, STRATEGY
from bench.measure import Spread, calm
from tasks import ExecutionRequest, StrategyClient, message
from tasks.app import create_app
from tasks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 1_000
FEW = 100
PRODUCERS = 2
LATER_SECONDS = 3600.0


@dataclass(frozen=True)
class Broker:
    """The queue's figures."""

    #: Of one producer, nobody running anything.
    submits_per_second: Spread
    #: The code, data and all else of one queued submission.
    bytes_each: float
    #: From submission to result, milliseconds, the machine idle before each: with nothing else in the queue, and with
    #: so many others there, which are not due yet.
    empty_milliseconds: Spread
    deep_milliseconds: Spread
    #: The same of one user's strategy while another user's keep the worker busy: 100 of them, and so many.
    busy_milliseconds: Spread
    flooded_milliseconds: Spread
    queued: int


def broker(queued: int, samples: int, tell: Callable[[str], None]) -> Broker:
    """Measure them all."""
    with private_redis() as url:
        tell("queue: submissions of one producer")
        rates, bytes_each = _submit_alone(url, 5)
    with private_redis() as url, _client(url) as client, private_worker(url, concurrency=1):
        tell("queue: latency with nothing queued")
        empty = _latencies(client, samples)
        tell(f"queue: latency with {queued:,} queued for later")
        _fill(url, queued, later=True)
        deep = _latencies(client, samples)
    busy, flooded = (_behind(number, samples, tell) for number in (FEW, queued))
    return Broker(rates, bytes_each, empty, deep, busy, flooded, queued)


def _behind(queued: int, samples: int, tell: Callable[[str], None]) -> Spread:
    tell(f"queue: latency behind {queued:,} of another user")
    with private_redis() as url, _client(url) as client:
        _fill(url, queued)
        with private_worker(url, concurrency=1):
            times = []
            for _ in range(samples):
                times.append(_latency(client))
                for _ in range(queued - client.ledger.waiting()[0]):
                    client.submit(STRATEGY, DATA, user_id="bob")
    return Spread.of(times)


@contextlib.contextmanager
def _client(url: str) -> Iterator[StrategyClient]:
    with StrategyClient(Settings(redis_url=url, max_queued=1_000_000, max_per_tenant=1_000_000)) as client:
        yield client


def _submit_alone(url: str, batches: int) -> tuple[Spread, float]:
    rates = []
    with _client(url) as client, redis.Redis.from_url(url) as server:
        client.submit(STRATEGY, DATA)
        before = server.info("memory")["used_memory"]
        for _ in range(batches):
            begun = time.perf_counter()
            for _ in range(BATCH):
                client.submit(STRATEGY, DATA)
            rates.append(BATCH / (time.perf_counter() - begun))
        used = server.info("memory")["used_memory"] - before
    return Spread.of(rates), used / (batches * BATCH)


def _latencies(client: StrategyClient, samples: int) -> Spread:
    _latency(client)
    times = []
    for _ in range(samples):
        calm()
        times.append(_latency(client))
    return Spread.of(times)


def _latency(client: StrategyClient) -> float:
    begun = time.perf_counter()
    client.submit(STRATEGY, DATA, user_id="alice").result(PATIENCE_SECONDS)
    return (time.perf_counter() - begun) * 1000


def _fill(url: str, count: int, *, later: bool = False) -> None:
    shares = [count // PRODUCERS + (number < count % PRODUCERS) for number in range(PRODUCERS)]
    with ProcessPoolExecutor(PRODUCERS) as pool:
        list(pool.map(_queue_for_later if later else _queue, [url] * PRODUCERS, shares))


def _queue(url: str, count: int) -> None:
    with _client(url) as client:
        for _ in range(count):
            client.submit(STRATEGY, DATA, user_id="bob")


def _queue_for_later(url: str, count: int) -> None:
    """As a worker takes in what a plain Celery producer has sent with a countdown."""
    request = ExecutionRequest.build(STRATEGY, DATA, user_id="bob")
    app = create_app(Settings(redis_url=url))
    due = time.time() + LATER_SECONDS
    for _ in range(count):
        task_id = str(uuid.uuid4())
        text = message.encode(app, task_id, request, {}).text
        app.backend.ledger.adopt(task_id, text, tenant="bob", priority=0, due=due)
