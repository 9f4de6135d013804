"""The Celery configuration: each setting is there for a failure that was measured without it."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import celery
import kombu
import pytest
from pydantic import SecretStr

from tasks.app import HARD_LIMIT_SECONDS, SOFT_LIMIT_SECONDS, STRATEGY_EXECUTION, create_app
from tasks.backend import LedgerBackend, LedgerSentinelBackend
from tasks.models import MAX_TIMEOUT_SECONDS
from tasks.settings import Settings
from worker.consumer import ExecutionConsumer
from worker.execution import LONGEST_PAUSE_SECONDS, ExecutionMessage, ExecutionTask, register
from worker.sandbox.config import SandboxConfig
from worker.sandbox.container import DEADLINE_GRACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of what a worker holds, and whether it is acknowledged.
TAGS = {"one": False, "two": False, "done": True}

SETTINGS = {
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    "task_reject_on_worker_lost": True,
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    "broker_pool_acquire_timeout": 10,
    "redis_socket_timeout": 30,
    "redis_socket_connect_timeout": 5,
    "redis_socket_keepalive": True,
    "redis_backend_health_check_interval": 25,
    "redis_retry_on_timeout": True,
    "result_backend_always_retry": True,
    "result_expires": 86_400,
    "result_failure_expires": 86_400,
    "task_track_started": False,
    "worker_send_task_events": True,
    "task_send_sent_event": False,
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "task_default_queue": "celery",
    "task_soft_time_limit": 100,
    "task_time_limit": 120,
    "worker_max_tasks_per_child": 10_000,
}
TRANSPORT = {
    "visibility_timeout": 240,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 10,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "queue_order_strategy": "priority",
    "sep": ":",
}


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """An app with the default settings; nothing connects."""
    created = create_app(Settings())
    yield created
    created.close()


@pytest.mark.parametrize(("name", "value"), SETTINGS.items())
def test_setting(app: celery.Celery, name: str, value: Any) -> None:
    """Set as measured; Celery's default loses or duplicates something."""
    assert app.conf[name] == value
    assert type(app.conf[name]) is type(value)


@pytest.mark.parametrize(("name", "value"), TRANSPORT.items())
def test_transport_option(app: celery.Celery, name: str, value: Any) -> None:
    """The broker's connection has options of its own, apart from the backend's."""
    assert app.conf.broker_transport_options[name] == value


def test_every_setting_is_one_celery_knows(app: celery.Celery) -> None:
    """A mistyped name would be ignored in silence."""
    unknown = {name for name in app.conf.changes if name not in celery.app.defaults.DEFAULTS}
    # The backend reads this one without a default; the last is Celery's own note.
    assert unknown <= {"redis_backend_health_check_interval", "deprecated_settings"}


def test_versions_have_the_restore_interval() -> None:
    """5.6 stops consuming after a reset, and kombu 5.7 brings `unacked_restore_interval`."""
    assert tuple(celery.VERSION[:2]) >= (5, 7)
    assert tuple(kombu.VERSION[:2]) >= (5, 7)


def test_time_limits_nest() -> None:
    """Each deadline gives the one inside it the time to act: nothing is killed by the wrong one."""
    runs_at_most = MAX_TIMEOUT_SECONDS + DEADLINE_GRACE_SECONDS + SandboxConfig().start_timeout_seconds
    shortest_visibility = Settings(visibility_timeout_seconds=180).visibility_timeout_seconds
    assert MAX_TIMEOUT_SECONDS < runs_at_most < SOFT_LIMIT_SECONDS < HARD_LIMIT_SECONDS < shortest_visibility


def test_pauses_stay_under_the_visibility_timeout() -> None:
    """Whoever waits between two tries waits in the ledger, and not for longer than a dead worker's tasks."""
    assert LONGEST_PAUSE_SECONDS < 180 - HARD_LIMIT_SECONDS + 1


def test_a_task_comes_back_when_its_worker_dies(app: celery.Celery) -> None:
    """How often, the ledger counts: Celery's own count is of its retries only."""
    register(app)
    task = app.tasks[STRATEGY_EXECUTION]
    assert task.acks_late is True
    assert task.reject_on_worker_lost is True
    assert not task.retry_on_worker_lost


def test_task_survives_the_loss_of_redis_under_celery_5_7(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is marked before the state is stored, which raises while Redis is away."""

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("celery.worker.request.Request._announce_cancelled", unreachable)
    message = ExecutionMessage.__new__(ExecutionMessage)
    message._already_cancelled = False
    with pytest.raises(ConnectionError):
        message._announce_cancelled()
    assert message._already_cancelled is True
    assert ExecutionTask.Request is ExecutionMessage


@pytest.mark.parametrize("closed", [True, False])
def test_nothing_is_acknowledged_by_a_connection_that_is_lost(closed: bool) -> None:  # noqa: FBT001  # a parameter
    """The attempt would end the worker; the message is put back, and who gets it finds the result."""
    attempts: list[str] = []
    message = ExecutionMessage.__new__(ExecutionMessage)
    message._message = SimpleNamespace(channel=SimpleNamespace(closed=closed))
    message._connection_errors, message._eventer, message.acknowledged = (), None, False
    message._on_ack = lambda *_: attempts.append("acknowledged")
    message._on_reject = lambda *_: attempts.append("rejected")
    message._task = SimpleNamespace(backend=SimpleNamespace(ledger=SimpleNamespace(died=attempts.append)))
    message.id = "id"
    message.acknowledge()
    assert message.acknowledged is not closed
    message.acknowledged = False
    message.reject(requeue=True)
    assert message.acknowledged is not closed
    assert attempts == ([] if closed else ["acknowledged", "id", "rejected"])


def test_a_lost_connection_restores_nothing_itself_and_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not acknowledged is noted, and given back by the next connection: once, and for good."""
    monkeypatch.setattr("celery.worker.consumer.Consumer.__init__", lambda *_, **__: None)
    monkeypatch.setattr("celery.worker.consumer.Consumer.on_connection_error_after_connected", lambda *_: None)
    monkeypatch.setattr("celery.worker.consumer.Consumer.on_ready", lambda _: None)
    noted = SimpleNamespace(_delivered=dict.fromkeys(TAGS), _dirty={tag for tag, done in TAGS.items() if done})
    channel = SimpleNamespace(do_restore=True, qos=noted)
    consumer = ExecutionConsumer()
    released: list[str] = []
    ledger = SimpleNamespace(release=lambda: released.append("all that ran"))
    consumer.app = SimpleNamespace(backend=SimpleNamespace(ledger=ledger))
    consumer.connection = SimpleNamespace(transport=SimpleNamespace(channels=[channel]))
    consumer.on_connection_error_after_connected(ConnectionError())
    assert channel.do_restore is False
    restored: list[str] = []
    qos = SimpleNamespace(restore_by_tag=restored.append)
    consumer.task_consumer = SimpleNamespace(channel=SimpleNamespace(qos=qos))
    consumer.on_ready()
    consumer.on_ready()
    assert sorted(restored) == ["one", "two"]
    assert released == ["all that ran"], "nobody died: the ledger is told before the messages are back"


def test_no_password_is_told_to_those_who_inspect() -> None:
    """Celery masks it in URLs that it can read, ours with the backend's name before it included."""
    app = create_app(Settings(redis_url="redis://user:hunter2@redis.example:6380/3"))
    assert "hunter2" in str(app.conf.result_backend)
    assert "hunter2" not in str(app.conf.table(with_defaults=False, censored=True))
    assert "hunter2" not in app.backend.as_uri()
    app.close()


def test_settings_reach_the_app() -> None:
    """What an operator sets is what Celery uses, for queue and results alike."""
    settings = Settings(
        redis_url="redis://:word@redis.example:6380/3",
        queue="fast",
        result_expires_seconds=600,
        visibility_timeout_seconds=300,
    )
    app = create_app(settings)
    assert app.conf.broker_url == app.backend.url == settings.redis_url
    assert isinstance(app.backend, LedgerBackend)
    assert app.conf.task_default_queue == "fast"
    assert app.conf.result_expires == app.conf.result_failure_expires == 600
    assert app.conf.broker_transport_options["visibility_timeout"] == 300
    app.close()


def test_tls_checks_certificates_for_queue_and_results() -> None:
    """Told nothing, kombu takes any certificate for `rediss://`, and Celery's results refuse the URL."""
    app = create_app(Settings(redis_url="rediss://user:word@redis.example:6380/3"))
    tls = app.conf.broker_use_ssl
    assert app.conf.redis_backend_use_ssl == tls
    assert (tls["ssl_cert_reqs"], tls["ssl_check_hostname"], tls["ssl_ca_certs"]) == ("required", True, None)
    assert app.backend.connparams["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    app.close()


def test_without_tls_nothing_is_encrypted_by_chance(app: celery.Celery) -> None:
    """No half of Celery is told of certificates when the URL says `redis://`."""
    assert app.conf.broker_use_ssl is app.conf.redis_backend_use_ssl is None
    assert app.conf.result_backend_transport_options == {}


def test_sentinels_reach_queue_and_results() -> None:
    """Both halves ask for the same master, and give up on a Sentinel that does not answer after 2 s."""
    settings = Settings(
        redis_url="sentinel://one.example:26379/0;sentinel://two.example:26379/0",
        redis_sentinel_master="strategies",
        redis_sentinel_password=SecretStr("watch"),
    )
    app = create_app(settings)
    results = app.conf.result_backend_transport_options
    broker = app.conf.broker_transport_options
    assert results["master_name"] == broker["master_name"] == "strategies"
    assert isinstance(app.backend, LedgerSentinelBackend)
    for options in (results["sentinel_kwargs"], broker["sentinel_kwargs"]):
        assert (options["password"], options["socket_timeout"], options["socket_connect_timeout"]) == ("watch", 2, 2)
    app.close()


def test_two_apps_do_not_share_anything(app: celery.Celery) -> None:
    """A producer's app leaves the one its host program may have alone."""
    other = create_app(Settings(queue="other"))
    assert app.conf.task_default_queue == "celery"
    assert celery.current_app._get_current_object() not in (app, other)
    other.close()


def test_the_task_is_named_as_producers_know_it() -> None:
    """The name is part of the contract: producers without our code send it as a string."""
    assert STRATEGY_EXECUTION == "STRATEGY_EXECUTION"
    assert ExecutionTask.name == STRATEGY_EXECUTION
