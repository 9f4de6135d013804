"""Redis over TLS with the users of ops/redis/users.acl, and behind Sentinels: real servers, a CA made for the test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import secrets
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from kombu.exceptions import OperationalError
from local import private_worker
from pydantic import SecretStr

from tasks import Settings, StrategyClient
from tasks.app import STRATEGY_EXECUTION, create_app
from tasks.connection import open_async, open_client
from tasks.errors import (
    BrokerUnavailable,
    DatasetsFull,
    InvalidRequest,
    QueueFull,
    TenantLimit,
    UnknownDataset,
    UnknownSubmission,
)
from tasks.script import SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks import Submission
    from tasks.errors import Backpressure

ROOT = Path(__file__).resolve().parent.parent.parent
USERS = ("admin", "producer", "worker")
#: What the ledger asks a producer to wait when nothing has ended lately.
NO_PACE_SECONDS = 5.0
#: What Redis says when a command, by itself or in a script, is not allowed.
NOT_PERMITTED = re.compile("ACL failure|no permissions|user executing the script can't")


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=10)


def make_certificates(folder: Path) -> None:
    """Make a CA, and a server's and a client's certificate that it signed, for this host's loopback address."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
    openssl(folder, "req", "-x509", *key, "-days", "2", "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(folder, "req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-extfile", "names")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Ask until the answer is yes; a Redis that cannot be asked has not said so."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, BrokerUnavailable):
            if true():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def server(folder: Path, port: int, *options: str, tls: str = "optional") -> Iterator[subprocess.Popen[bytes]]:
    """Run a redis-server that speaks TLS only; `tls` says whether clients need a certificate."""
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    listen = ("--bind", "127.0.0.1", "--port", "0", "--tls-port", str(port), "--tls-auth-clients", tls)
    command = ["redis-server", *options, *listen, *files, "--save", ""]
    with (folder / "log").open("ab") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.terminate()


@dataclass(frozen=True)
class Guarded:
    """A Redis with TLS and users."""

    port: int
    certificates: Path
    passwords: dict[str, str]

    def url(self, user: str) -> str:
        """Return the URL with which a user logs in."""
        return f"rediss://{user}:{self.passwords[user]}@127.0.0.1:{self.port}/0"

    def settings(self, user: str, **bounds: int) -> Settings:
        """Return what STRATBOX_REDIS_URL, STRATBOX_REDIS_CA_CERTS and the variables of bounds would say."""
        settings = Settings(redis_url=self.url(user), redis_ca_certs=self.certificates / "ca.pem")
        return settings.model_copy(update=bounds)

    def worker(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a worker with the rights of one, for one strategy at a time."""
        ca_certs = str(self.certificates / "ca.pem")
        return private_worker(self.url("worker"), concurrency=1, STRATBOX_REDIS_CA_CERTS=ca_certs)

    def login(self, user: str) -> redis.Redis:
        """Connect as a user, without any of our code."""
        return redis.Redis.from_url(self.url(user), ssl_ca_certs=str(self.certificates / "ca.pem"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA's, a server's and a client's certificate."""
    folder = tmp_path_factory.mktemp("redis-tls")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def guarded(certificates: Path) -> Iterator[Guarded]:
    """A Redis as ops/redis describes it."""
    (port,) = free_ports(1)
    found = Guarded(port, certificates, {user: secrets.token_hex(24) for user in USERS})
    passwords = {f"STRATBOX_{user.upper()}_PASSWORD": word for user, word in found.passwords.items()}
    users = subprocess.run([ROOT / "ops/redis/acl"], env=passwords, check=True, capture_output=True, timeout=10)
    (certificates / "users.acl").write_bytes(users.stdout)
    with server(certificates, port, "--aclfile", "users.acl"), found.login("admin") as admin:
        wait_until(admin.ping)
        yield found


@pytest.fixture
def admin(guarded: Guarded) -> Iterator[redis.Redis]:
    """The user who may do everything; Redis is empty, and has refused nothing yet."""
    with guarded.login("admin") as client:
        client.flushdb()
        client.acl_log_reset()
        yield client


async def read_async(client: StrategyClient, submission_id: str) -> bool:
    """Look, as an event loop that waits for a result would, whether there is one."""
    async with open_async(client._app.conf) as connection:
        return await connection.get(f"celery-task-meta-{submission_id}") is not None


def begun(client: StrategyClient, code: str) -> Submission:
    """Submit a strategy and wait for its start."""
    submission = client.submit(code)
    wait_until(lambda: client.meta(submission.id)["status"] == "STARTED")
    return submission


def test_producer_has_no_right_missing(guarded: Guarded, admin: redis.Redis) -> None:
    """Submit, with and without a key, wait, cancel in any state: Redis notes nothing that it refused to either side."""
    with guarded.worker(), StrategyClient(guarded.settings("producer")) as client:
        keyed = client.submit("print(1)", user_id="ann", key="first")
        assert client.submit("print(1)", user_id="ann", key="first").id == keyed.id
        with pytest.raises(InvalidRequest, match="key"):
            client.submit("print(2)", user_id="ann", key="first")
        assert keyed.result(20).output == "1\n"
        assert not keyed.cancel()

        running = begun(client, "import time\ntime.sleep(50)")
        # Two for Celery's list, one for each lane.
        waiting = [client.submit("print(3)", user_id=user, priority=9) for user in ("ann", "bob", "ann", "bob")]
        assert admin.lrange("stratbox:celery:ring", 0, -1) == [b"ann", b"bob"]
        assert all(one.cancel() for one in waiting)
        assert running.cancel()
        assert {one.result(20).status for one in (running, *waiting)} == {"cancelled"}

        last = client.submit("print(4)", priority=3)
        assert asyncio.run(last.result_async(20)).output == "4\n"
        with pytest.raises(UnknownSubmission):
            client.submission("none").cancel()
    assert admin.acl_log() == []
    assert not admin.exists(*(f"stratbox:celery:{name}" for name in ("waiting", "ring", "inflight", "bytes")))


@pytest.mark.parametrize(
    ("bound", "refusal"),
    [("max_queued", QueueFull), ("max_queued_bytes", QueueFull), ("max_per_tenant", TenantLimit), (None, QueueFull)],
)
def test_producer_learns_that_there_is_no_room(
    guarded: Guarded, admin: redis.Redis, bound: str | None, refusal: type[Backpressure]
) -> None:
    """The bounds are looked up with a producer's rights, by a producer's script; None stands for Redis' memory."""
    one = 1_500 if bound == "max_queued_bytes" else 1  # a message has some 1,000 bytes
    bounds = {bound: one} if bound else {}
    with (
        StrategyClient(guarded.settings("producer")) as client,
        StrategyClient(guarded.settings("producer", **bounds)) as bounded,
    ):
        assert client.submit("print(1)").cancel()  # from now on ends have a pace
        held = client.submit("print(2)")
        if not bound:
            admin.config_set("maxmemory", int(admin.info("memory")["used_memory"] * 1.08))
        try:
            with pytest.raises(refusal) as caught:
                bounded.submit("print(3)")
        finally:
            admin.config_set("maxmemory", 0)
        assert caught.value.retry_after < NO_PACE_SECONDS
        assert held.cancel()
    assert admin.acl_log() == []


def test_producer_may_share_data(guarded: Guarded, admin: redis.Redis) -> None:
    """Put, put again, submit with what is there and what is not, cancel, learn that there is no room."""
    with (
        guarded.worker(),
        StrategyClient(guarded.settings("producer")) as client,
        StrategyClient(guarded.settings("producer", max_dataset_bytes=80)) as bounded,
    ):
        ref = client.datasets.put({"price": 7})
        assert client.datasets.put({"price": 7}) == ref
        code = "import json\nprint(json.load(open('/workspace/data.json')))"
        first = client.submit(code, ref, params={"fast": 5})
        assert first.result(20).output == "{'params': {'fast': 5}, 'price': 7}\n"
        running = begun(client, "import time\ntime.sleep(50)")
        waiting = client.submit(code, ref, priority=9)
        assert admin.smembers(f"stratbox:celery:references:{ref}") == {waiting.id.encode()}
        assert waiting.cancel()
        assert running.cancel()
        with pytest.raises(DatasetsFull):
            bounded.datasets.put({"price": 8})
        admin.delete(f"stratbox:celery:dataset:{ref}")
        with pytest.raises(UnknownDataset):
            client.submit(code, ref)
        assert client.datasets.put({"price": 7}) == ref
    assert admin.acl_log() == []


def test_worker_has_no_right_missing(guarded: Guarded, admin: redis.Redis) -> None:
    """Run what Celery alone has sent, lose the connection, run again: Redis notes nothing that it refused."""
    app = create_app(guarded.settings("worker"))
    with guarded.worker(), StrategyClient(guarded.settings("producer")) as client:
        assert app.send_task(STRATEGY_EXECUTION, kwargs={"code": "print(1)"}).get(20)["output"] == "1\n"
        interrupted = begun(client, "import time\ntime.sleep(5)\nprint(2)")
        admin.config_resetstat()
        # Kombu and redis-py mend a lost connection in silence, but not that of a subscriber.
        assert all(admin.client_kill_filter(_type=kind, skipme=True) for kind in ("normal", "pubsub"))
        assert interrupted.result(40).output == "2\n"
        assert client.submit("print(3)").result(20).output == "3\n"
        assert asyncio.run(read_async(client, interrupted.id))
        assert "cmdstat_watch" in admin.info("commandstats")  # kombu put the message back
        with open_client(app.conf) as connection:
            assert connection.hlen("unacked") == 0
    app.close()
    assert admin.acl_log() == []


def test_worker_may_do_all_that_the_ledger_can(guarded: Guarded, admin: redis.Redis) -> None:
    """What comes only after a fault: each operation, by hand, as a worker."""
    with (
        StrategyClient(guarded.settings("producer")) as producer,
        StrategyClient(guarded.settings("worker")) as worker,
    ):
        one, ledger = producer.submit("print(1)").id, worker.ledger
        failure = json.dumps({"status": "FAILURE"})
        message = ledger.message(one)
        assert message
        assert admin.lrange("celery:9", 0, -1) == [message]
        admin.delete("celery:9")  # lost, and long ago
        admin.zadd("stratbox:celery:ready", {one: 1})
        assert ledger.reconcile() == []
        admin.hset(f"stratbox:celery:task:{one}", "missing", 1)
        assert ledger.reconcile() == [one]
        for give_back in (partial(ledger.died, one), ledger.release):
            assert [ledger.begin(one, attempt, {}).word for attempt in ("a", "b")] == ["run", "busy"]
            give_back()
        fence = ledger.begin(one, uuid.uuid4().hex, {}).fence
        assert ledger.record(one, "RETRY", json.dumps({"status": "RETRY"}), fence=fence, pause_seconds=0)
        ledger.refill()
        assert ledger.waiting()[0] == 1
        for revive in (ledger.requeue, ledger.drop):
            fence = ledger.begin(one, uuid.uuid4().hex, {}).fence
            assert ledger.record(one, "FAILURE", failure, fence=fence, reason="of the test")
            assert [dead.reason for dead in ledger.dead()] == ["of the test"]
            assert ledger.message(one) == message
            assert revive(one)
        assert ledger.begin(one, uuid.uuid4().hex, {}).verdict == failure.encode()
        ref = producer.datasets.put([1])
        ledger.adopt("another", message.decode(), tenant="ann", priority=3, dataset=ref.digest)
        assert ledger.waiting()[0] == 1
        for members in (1, 0):  # it is over: first somebody refers to it, then nobody
            assert admin.scard(f"stratbox:celery:references:{ref}") == members
            admin.zadd("stratbox:celery:datasets", {ref.digest: 1})
            admin.delete("stratbox:celery:task:another")  # by hand
            ledger.reconcile()
        assert not admin.exists(f"stratbox:celery:dataset:{ref}")
    assert admin.acl_log() == []


def test_worker_may_send_each_command_of_the_script() -> None:
    """No branch of the ledger's script is forgotten, however rarely it is taken."""
    called = {name for source in SOURCES for name in re.findall(r"redis\.call\('(\w+)'", source.read_text())}
    rights = (ROOT / "ops/redis/users.acl").read_text().partition("\nuser worker ")[2].split()
    assert "ZADD" in called
    assert {f"+{name.lower()}" for name in called} <= set(rights)


# Most of it would tell, or let out, what others have submitted.
PRODUCER_MAY_NOT = """
FLUSHALL
FLUSHDB
KEYS *
SCAN 0
RANDOMKEY
CONFIG GET *
MONITOR
CLIENT LIST
ACL WHOAMI
SCRIPT FLUSH
SCRIPT KILL
FUNCTION LIST
EVALSHA 0 1 elsewhere
LRANGE celery:9 0 -1
LINDEX celery:9 0
LPOP celery:9
BRPOP celery:9 1
RPOPLPUSH celery:9 celery:9
LMOVE celery:9 stratbox:celery:pace LEFT LEFT
SORT celery:9
DEL celery:9
RENAME celery:9 celery:3
COPY celery:9 celery-task-meta-1
LPUSH celery 1
LPUSH celery:3 1
LPUSH unacked 1
GET celery:9
HGETALL unacked
HGET unacked 1
ZRANGE unacked_index 0 -1
SMEMBERS _kombu.binding.celery.pidbox
SADD _kombu.binding.celery spy
SADD _kombu.binding.reply.celery.pidbox spy
LRANGE 1.reply.celery.pidbox 0 -1
MGET celery-task-meta-1 unacked
ZRANGE stratbox:celery:waiting 0 -1
ZRANGEBYSCORE stratbox:celery:waiting -inf +inf
ZRANDMEMBER stratbox:celery:waiting
ZPOPMIN stratbox:celery:waiting
ZSCAN stratbox:celery:waiting 0
ZRANGESTORE stratbox:celery:ready stratbox:celery:waiting 0 -1
ZUNIONSTORE stratbox:celery:ready 1 stratbox:celery:waiting
ZRANGE stratbox:celery:ready 0 -1
ZRANGE stratbox:celery:started 0 -1
ZADD stratbox:celery:started 1 1
ZRANGE stratbox:celery:later 0 -1
ZADD stratbox:celery:later 1 1
ZRANGE stratbox:celery:dead 0 -1
ZADD stratbox:celery:dead 1 1
ZRANGE stratbox:celery:lane:ann 0 -1
ZPOPMIN stratbox:celery:lane:ann
DEL stratbox:celery:lane:ann
LRANGE stratbox:celery:ring 0 -1
LINDEX stratbox:celery:ring 0
LPOP stratbox:celery:ring
HGETALL stratbox:celery:inflight
HKEYS stratbox:celery:inflight
HSCAN stratbox:celery:inflight 0
HRANDFIELD stratbox:celery:inflight
DEL stratbox:celery:inflight
LRANGE stratbox:celery:pace 0 -1
HGETALL stratbox:celery:task:1
HINCRBY stratbox:celery:task:1 starts 1
EXPIRE stratbox:celery:task:1 1
RENAME stratbox:celery:task:1 celery-task-meta-1
COPY stratbox:celery:task:1 celery-task-meta-1
DUMP stratbox:celery:task:1
SET stratbox:celery:bytes 0
DEL stratbox:celery:key:1
GET stratbox:celery:dataset:1
GETRANGE stratbox:celery:dataset:1 0 -1
STRLEN stratbox:celery:dataset:1
COPY stratbox:celery:dataset:1 celery-task-meta-1
RENAME stratbox:celery:dataset:1 celery-task-meta-1
SET stratbox:celery:dataset:1 x GET
DEL stratbox:celery:dataset:1
SMEMBERS stratbox:celery:references:1
SRANDMEMBER stratbox:celery:references:1
SPOP stratbox:celery:references:1
DEL stratbox:celery:references:1
ZRANGE stratbox:celery:datasets 0 -1
ZRANGEBYSCORE stratbox:celery:datasets -inf +inf
ZPOPMIN stratbox:celery:datasets
ZREM stratbox:celery:datasets 1
HGETALL stratbox:celery:dataset-bytes
HKEYS stratbox:celery:dataset-bytes
HRANDFIELD stratbox:celery:dataset-bytes
DEL stratbox:celery:dataset-bytes
SUBSCRIBE /0.celeryev/task.sent
SUBSCRIBE /0.celery.pidbox
PSUBSCRIBE *
PSUBSCRIBE celery-task-meta-*
PUBLISH elsewhere 1
PUBLISH /0.celeryev/worker.heartbeat 1
"""
WORKER_MAY_NOT = """
FLUSHALL
FLUSHDB
KEYS *
SCAN 0
CONFIG GET *
CONFIG SET maxmemory 1
MONITOR
ACL LIST
SCRIPT FLUSH
SCRIPT KILL
FUNCTION LIST
SHUTDOWN
REPLICAOF NO ONE
CLIENT KILL TYPE normal
GET elsewhere
GET stratbox:another-queue:bytes
EVALSHA 0 1 elsewhere
SUBSCRIBE elsewhere
PSUBSCRIBE *
"""


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *(("producer", line) for line in PRODUCER_MAY_NOT.strip().splitlines()),
        *(("worker", line) for line in WORKER_MAY_NOT.strip().splitlines()),
    ],
)
def test_refused(guarded: Guarded, user: str, command: str) -> None:
    """Redis itself refuses it, whatever code a producer or a worker runs."""
    with guarded.login(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


SCRIPTABLE = [
    line for line in PRODUCER_MAY_NOT.strip().splitlines() if line.startswith(("H", "L", "Z", "COPY", "MGET"))
]


def test_a_script_gives_a_producer_no_rights(guarded: Guarded) -> None:
    """Producers may load scripts, and these are held to the same rules, whatever keys they say they are for."""
    with guarded.login("producer") as client:
        script = client.register_script("#!lua\nreturn redis.call(unpack(ARGV))")
        assert script(["stratbox:celery:"], ["TIME"])
        for line in SCRIPTABLE:
            with pytest.raises(redis.ResponseError, match=NOT_PERMITTED):
                script(["stratbox:celery:"], line.split())


@pytest.mark.parametrize("operation", ["refill", "reconcile", "waiting", "dead"])
def test_operations_that_are_not_a_producers(guarded: Guarded, operation: str) -> None:
    """What goes over the submissions of everybody is the workers' own."""
    with (
        StrategyClient(guarded.settings("producer")) as client,
        pytest.raises(redis.ResponseError, match=NOT_PERMITTED),
    ):
        getattr(client.ledger, operation)()


def test_producer_is_told_what_it_may_not(guarded: Guarded) -> None:
    """Asking workers for their names is a control command with an answer, and answers can name everybody's tasks."""
    with StrategyClient(guarded.settings("producer")) as client, pytest.raises(BrokerUnavailable, match="permission"):
        client.workers()


@pytest.mark.parametrize("case", ["another CA", "another name", "no TLS", "wrong password"])
def test_a_server_that_is_not_ours(guarded: Guarded, tmp_path: Path, case: str) -> None:
    """No certificate is taken on trust: not another CA's, nor ours for another name; each in one line."""
    url, ca_certs = guarded.url("producer"), guarded.certificates / "ca.pem"
    if case == "another CA":
        make_certificates(tmp_path)
        ca_certs = tmp_path / "ca.pem"
    wrong = {
        "another CA": Settings(redis_url=url, redis_ca_certs=ca_certs),
        "another name": Settings(redis_url=url.replace("127.0.0.1", "localhost"), redis_ca_certs=ca_certs),
        "no TLS": Settings(redis_url=url.replace("rediss", "redis")),
        "wrong password": Settings(redis_url=url.replace("producer:", "producer:x"), redis_ca_certs=ca_certs),
    }
    with StrategyClient(wrong[case]) as client, pytest.raises(BrokerUnavailable) as caught:
        client.submit("print(1)")
    assert "\n" not in str(caught.value)
    assert guarded.passwords["producer"] not in str(caught.value)


@pytest.mark.parametrize("half", ["queue", "results"])
def test_both_halves_of_celery_check_the_certificate(guarded: Guarded, tmp_path: Path, half: str) -> None:
    """Queue and results connect by different code; kombu's would take any certificate if it were not told."""
    make_certificates(tmp_path)
    app = create_app(Settings(redis_url=guarded.url("producer"), redis_ca_certs=tmp_path / "ca.pem"))
    try:
        with pytest.raises((redis.ConnectionError, OperationalError), match="CERTIFICATE_VERIFY_FAILED"):
            app.backend.client.ping() if half == "results" else app.connection_for_write().channel()
    finally:
        app.close()


def test_client_certificates(certificates: Path) -> None:
    """Where Redis asks for a client's certificate, one that the CA signed is sent, and without one nothing goes."""
    (port,) = free_ports(1)
    without = Settings(redis_url=f"rediss://127.0.0.1:{port}/0", redis_ca_certs=certificates / "ca.pem")
    pair = {"redis_client_cert": certificates / "client.pem", "redis_client_key": certificates / "client.key"}
    with server(certificates, port, tls="yes"):
        with StrategyClient(without.model_copy(update=pair)) as client:
            wait_until(lambda: bool(client._app.backend.client.ping()))
            client.submit("print(1)")
        with StrategyClient(without) as client, pytest.raises(BrokerUnavailable):
            client.submit("print(1)")


SENTINEL_CONFIG = """
bind 127.0.0.1
port 0
tls-port {port}
tls-cert-file server.pem
tls-key-file server.key
tls-ca-cert-file ca.pem
tls-auth-clients optional
tls-replication yes
requirepass {password}
sentinel monitor strategies 127.0.0.1 {master} 1
sentinel auth-pass strategies {password}
sentinel down-after-milliseconds strategies 1000
sentinel failover-timeout strategies 2000
"""


@contextlib.contextmanager
def watched_pair(folder: Path, ports: list[int], password: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a master, its replica and one Sentinel; give the master. A Sentinel promotes only a replica in step."""
    first, second, sentinel = ports
    replicated = ("--requirepass", password, "--masterauth", password, "--tls-replication", "yes")
    (folder / "sentinel.conf").write_text(SENTINEL_CONFIG.format(port=sentinel, master=first, password=password))
    with contextlib.ExitStack() as stack:
        options = f"ssl_ca_certs={folder / 'ca.pem'}"
        urls = (f"rediss://:{password}@127.0.0.1:{port}/0?{options}" for port in (first, sentinel))
        direct, watcher = (stack.enter_context(redis.Redis.from_url(url)) for url in urls)
        master = stack.enter_context(server(folder, first, *replicated, "--repl-diskless-sync-delay", "0"))
        stack.enter_context(server(folder, second, *replicated, "--replicaof", "127.0.0.1", str(first)))
        wait_until(lambda: direct.info("replication").get("slave0", {}).get("state") == "online")
        stack.enter_context(server(folder, sentinel, "sentinel.conf", "--sentinel"))
        wait_until(lambda: any(r["master-link-status"] == "ok" for r in watcher.sentinel_slaves("strategies")))
        yield master


def submit_until_accepted(client: StrategyClient, code: str) -> Submission:
    """Submit again whenever it meets the change of master itself: a producer is told, and nothing was enqueued."""
    accepted: list[Submission] = []

    def submit() -> bool:
        accepted.append(client.submit(code))
        return True

    wait_until(submit)
    return accepted[0]


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect a test's garbage at its end, and not in the middle of another one."""
    yield
    gc.collect()


# Celery's backend leaves its connections to Sentinels to the garbage collector, which may come to the socket first.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_sentinels_name_another_master(certificates: Path) -> None:
    """The master dies: producer, worker and waiters go over to the replica, all of it over TLS."""
    *ports, nobody = free_ports(4)
    password = secrets.token_hex(12)
    settings = Settings(
        redis_url=f"sentinel://:{password}@127.0.0.1:{nobody}/0;sentinel://127.0.0.1:{ports[2]}",
        redis_ca_certs=certificates / "ca.pem",
        redis_sentinel_master="strategies",
        redis_sentinel_password=SecretStr(password),
    )
    worker = private_worker(
        settings.redis_url,
        concurrency=1,
        STRATBOX_REDIS_CA_CERTS=str(settings.redis_ca_certs),
        STRATBOX_REDIS_SENTINEL_MASTER=settings.redis_sentinel_master,
        STRATBOX_REDIS_SENTINEL_PASSWORD=password,
    )
    with watched_pair(certificates, ports, password) as master, worker, StrategyClient(settings) as client:
        before = client.submit("print('before')")
        assert before.result(20).output == "before\n"
        master.kill()
        wait_until(lambda: client.server_info()["tcp_port"] == ports[1])
        after = submit_until_accepted(client, "print('after')")
        assert after.result(45).output == "after\n"
        assert client.meta(before.id)  # a replica follows a moment later, so what it says of the last result is open
        assert asyncio.run(read_async(client, after.id))
        with open_client(client._app.conf) as connection:
            assert connection.llen("celery:9") == 0
