"""The way to Redis, for Celery's two halves and for ours: TLS and Sentinel.

Celery takes the same options for queue and results under different names, and `redis.asyncio` under others again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.exceptions
import redis.sentinel
from kombu.exceptions import OperationalError
from kombu.utils.url import parse_url
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.errors import BrokerUnavailable, StratboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tasks.settings import Settings

__all__ = ["cancel_check", "connection_options", "open_async", "open_client", "redis_errors", "sentinel_options"]

#: Celery's own with the ledger before them; the second by way of Sentinels.
_BACKENDS = ("tasks.backend.LedgerBackend", "tasks.backend.LedgerSentinelBackend")

SENTINEL_TIMEOUT_SECONDS = 2.0
#: When a Sentinel does not answer the next one is asked. redis-py would first try it again for several seconds, and for
#: each connection.
SENTINEL_RETRIES = 0


@contextlib.contextmanager
def redis_errors() -> Iterator[None]:
    """Turn whatever Redis and kombu raise into `BrokerUnavailable`."""
    try:
        yield
    except StratboxError:
        raise  # a ResultTimeout is an OSError, too
    except (redis.exceptions.RedisError, OperationalError, OSError, RuntimeError) as exc:
        # kombu says RuntimeError("Retry limit exceeded …") for a broker that is away.
        if isinstance(exc, RuntimeError) and "etry limit" not in str(exc):
            raise
        cause = exc.__cause__ or exc
        reason = " ".join(str(cause).split()) or type(cause).__name__
        msg = f"Redis does not answer as it should ({reason}): start it, or set STRATBOX_REDIS_URL"
        raise BrokerUnavailable(msg) from exc


def connection_options(settings: Settings) -> dict[str, Any]:
    """Return the part of Celery's configuration that says how to reach Redis.

    Without `ssl_cert_reqs` kombu would take any certificate for `rediss://`, with a warning.
    """
    tls = _tls(settings) if settings.redis_over_tls else None
    return {
        "broker_url": settings.redis_url,
        "result_backend": f"{_BACKENDS[settings.redis_by_sentinel]}+{settings.redis_url}",
        "broker_use_ssl": tls,
        "redis_backend_use_ssl": tls,
        "result_backend_transport_options": sentinel_options(settings),
    }


def sentinel_options(settings: Settings) -> dict[str, Any]:
    """Return what the transport and the result backend need to ask Sentinels; nothing without them."""
    if not settings.redis_by_sentinel:
        return {}
    timeouts = {"socket_timeout": SENTINEL_TIMEOUT_SECONDS, "socket_connect_timeout": SENTINEL_TIMEOUT_SECONDS}
    password = settings.redis_sentinel_password.get_secret_value() or None
    tls = {"ssl": True, **_tls(settings)} if settings.redis_over_tls else {}
    return {
        "master_name": settings.redis_sentinel_master,
        "sentinel_kwargs": {**timeouts, "retry": Retry(NoBackoff(), SENTINEL_RETRIES), "password": password, **tls},
    }


def _tls(settings: Settings) -> dict[str, Any]:
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": _text(settings.redis_ca_certs),
        "ssl_certfile": _text(settings.redis_client_cert),
        "ssl_keyfile": _text(settings.redis_client_key),
    }


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def open_client(conf: Any, **options: Any) -> redis.Redis:
    """Return a client of the caller's own for the Redis that an app's configuration names; it connects when used.

    Args:
        conf: `app.conf`.
        options: of redis-py, such as timeouts.
    """
    options = (conf.redis_backend_use_ssl or {}) | options
    if not (master := conf.result_backend_transport_options.get("master_name")):
        return redis.Redis.from_url(conf.broker_url, **options)
    client: redis.Redis = _sentinel(redis.sentinel.Sentinel, Retry, conf, options).master_for(master)
    return client


@contextlib.asynccontextmanager
async def open_async(conf: Any) -> AsyncIterator[redis.asyncio.Redis]:
    """Give an asyncio client for the same Redis, as patient as Celery's own; closed at the end.

    Who was cancelled meanwhile and was not told, is told at the end (`cancel_check`).
    """
    check_cancelled = cancel_check()
    patience = {
        "socket_timeout": conf.redis_socket_timeout,
        "socket_connect_timeout": conf.redis_socket_connect_timeout,
        "socket_keepalive": conf.redis_socket_keepalive,
    }
    options = (conf.redis_backend_use_ssl or {}) | patience
    async with contextlib.AsyncExitStack() as stack:
        if master := conf.result_backend_transport_options.get("master_name"):
            sentinel = _sentinel(redis.asyncio.sentinel.Sentinel, redis.asyncio.retry.Retry, conf, options)
            for one in sentinel.sentinels:
                stack.push_async_callback(one.aclose)
            client = sentinel.master_for(master)
        else:
            client = redis.asyncio.Redis.from_url(conf.broker_url, **options)
        yield await stack.enter_async_context(client)
    check_cancelled()


def cancel_check() -> Callable[[], None]:
    """Return what raises CancelledError where the running task has been cancelled meanwhile and was not told.

    `asyncio.wait_for` of Python 3.11, beneath redis-py, drops a cancel that comes in the moment in which what it waits
    for is done. Whoever waits for the next thing would wait on, though a deadline has passed.
    """
    task = asyncio.current_task()
    known = task.cancelling() if task else 0

    def check() -> None:
        if task and task.cancelling() > known:
            raise asyncio.CancelledError

    return check


def _sentinel(kind: Any, retry: Any, conf: Any, options: dict[str, Any]) -> Any:
    addresses = [parse_url(address) for address in conf.broker_url.split(";")]
    first = addresses[0]
    return kind(
        [(address["hostname"], address["port"]) for address in addresses],
        sentinel_kwargs=conf.result_backend_transport_options["sentinel_kwargs"]
        | {"retry": retry(NoBackoff(), SENTINEL_RETRIES)},
        username=first["userid"],
        password=first["password"],
        db=int(first["virtual_host"] or 0),
        ssl=bool(conf.redis_backend_use_ssl),
        **options,
    )
