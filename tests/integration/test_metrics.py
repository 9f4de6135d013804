"""Metrics: a real worker is scraped over HTTP, and what it tells is what it did."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from local import private_redis, private_worker
from prometheus_client.parser import text_string_to_metric_families

from tasks import Settings, StrategyClient, SubmissionState
from tests.waiting import until
from worker import SandboxConfig
from worker.sandbox.owner import Owner
from worker.scrape import ProcessValues

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

    from tasks import ExecutionResult

    Scraped = tuple["Scrape", "Scrape", "Scrape", list[tuple[str, ExecutionResult]]]

ROOT = Path(__file__).resolve().parents[2]
#: Where metrics are used: in what Prometheus computes and Grafana shows.
SHOWN_IN = (ROOT / "ops/prometheus/rules.yml", ROOT / "ops/grafana/dashboards/stratbox.json")
#: And where alerts are tried with made-up values, which must not be values of a made-up metric.
NAMED_IN = (*SHOWN_IN, ROOT / "ops/prometheus/rules_test.yml")
LOOP = "while True:\n    pass"
#: Strategies by the user they are of; of "fund-*" there is a class.
LOAD: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("fund-a", "print(1)", {}),
    ("fund-b", "sum(range(3_000_000))\nprint(2)", {}),
    ("somebody", "print(3)", {}),
    ("fund-a", "1 / 0", {}),
    ("somebody", "raise SystemExit(3)", {}),
    ("somebody", "import os\nimport sys\neval('1')", {}),
    ("fund-a", LOOP, {"timeout": 0.5}),
    ("somebody", "rows = [bytearray(2**20) for _ in range(2000)]", {}),
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """What one scrape gave."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            self.families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in self.families for sample in family.samples]
        self.samples: Samples = {(one.name, frozenset(one.labels.items())): one.value for one in samples}
        self.names = {name for name, _ in self.samples}

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels."""
        fitting = [value for (found, has), value in self.samples.items() if found == name and labels.items() <= has]
        assert fitting, f"no {name} with {labels}"
        return sum(fitting)


class Relay:
    """Stands between a worker and the engine, so that a test can part them without touching the engine."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._ends: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        """Take connections."""
        self._path.unlink(missing_ok=True)
        self._listener = socket.create_server(str(self._path), family=socket.AF_UNIX)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End every connection there is."""
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Be an engine that is away."""
        with self._listener, contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect("/var/run/docker.sock")
            self._ends += [near, far]
            back = threading.Thread(target=self._copy, args=(far, near))
            back.start()
            self._copy(near, far)
            back.join()
            self._ends.remove(near)
            self._ends.remove(far)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(worker: subprocess.Popen[bytes]) -> list[str]:
    """Return the processes of a worker: its pool's, and its reaper."""
    return Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()


def pool_processes(worker: subprocess.Popen[bytes]) -> list[int]:
    """Return the pool processes of a worker; its reaper has another command line."""
    return [int(pid) for pid in children(worker) if b"worker.reaper" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def folder_of(worker: subprocess.Popen[bytes]) -> Path:
    """Return the folder of a worker's values."""
    (found,) = Path(tempfile.gettempdir()).glob(f"stratbox-metrics-*/counter_{worker.pid}.db")
    return found.parent


@pytest.fixture(scope="module")
def port() -> int:
    """Where the module's worker serves its metrics."""
    return free_port()


@pytest.fixture(scope="module")
def worker_process(redis_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with metrics and a class of tenants."""
    classes = '{"fund-*": "fund"}'
    with private_worker(redis_url, STRATBOX_METRICS_PORT=str(port), STRATBOX_METRICS_TENANT_CLASSES=classes) as process:
        yield process


@pytest.fixture(scope="module")
def flower_port(redis_url: str) -> Iterator[int]:
    """A real Flower beside it."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={port}"]
    env = os.environ | {"STRATBOX_REDIS_URL": redis_url}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return bool(Scrape(port).families)
            return False

        try:
            until(answers)
            yield port
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def scraped(redis_url: str, port: int, flower_port: int, worker_process: object) -> Scraped:
    """The worker's metrics before and after the load, Flower's after it, and what came of the load."""
    assert worker_process
    before = Scrape(port)
    with StrategyClient(Settings(redis_url=redis_url)) as client:
        load = [(user, client.submit(code, user_id=user, **options)) for user, code, options in LOAD]
        results = [(user, submission.result(timeout=60)) for user, submission in load]
    # What comes after a result: the containers go, the next ones get warm.
    until(lambda: Scrape(port)("stratbox_sandboxes", state="warm") == 2)
    until(lambda: Scrape(port)("stratbox_sandboxes", state="running") == 0)
    until(lambda: Scrape(port)("stratbox_teardown_seconds_count") == 7)
    until(lambda: "flower_worker_number_of_currently_executing_tasks" in Scrape(flower_port).names)
    return before, Scrape(port), Scrape(flower_port), results


def test_executions_are_counted_as_they_ended(scraped: Scraped) -> None:
    """Every result is one execution, under its status and its tenant's class."""
    before, after, _, results = scraped
    expected = Counter((str(r.status), "fund" if user.startswith("fund-") else "default") for user, r in results)
    assert {status for status, _ in expected} == {"succeeded", "failed", "rejected", "timed_out", "out_of_memory"}
    counted = {
        (labels["status"], labels["tenant_class"]): value
        for (name, has), value in after.samples.items()
        if name == "stratbox_executions_total" and value and (labels := dict(has))
    }
    assert counted == expected
    assert before("stratbox_executions_total") == 0, "there before the first, so that Prometheus sees it come"


def test_phases_are_measured_once_each(scraped: Scraped) -> None:
    """Each histogram holds what the results say, of the executions that had the phase."""
    _, after, _, results = scraped
    metrics = [result.metrics for _, result in results]
    for name, values in {
        "queue_seconds": [m.queue_seconds or 0.0 for m in metrics],
        "total_seconds": [m.total_seconds for m in metrics],
        "acquire_seconds": [m.startup_seconds for m in metrics if m.wall_seconds],
        "run_seconds": [m.wall_seconds for m in metrics if m.wall_seconds],
        "cpu_seconds": [m.cpu_seconds for m in metrics if m.wall_seconds],
        "peak_memory_bytes": [float(m.peak_memory_bytes) for m in metrics if m.peak_memory_bytes],
    }.items():
        assert after(f"stratbox_{name}_count") == len(values), name
        assert after(f"stratbox_{name}_sum") == pytest.approx(sum(values)), name


def test_sandboxes_and_violations_are_counted(scraped: Scraped) -> None:
    """What was given out warm or not, started, removed and refused adds up."""
    before, after, _, results = scraped
    ran = [result.metrics.warm for _, result in results if result.metrics.wall_seconds]
    assert after("stratbox_acquisitions_total", warm="true") == sum(ran)
    assert after("stratbox_acquisitions_total", warm="false") == len(ran) - sum(ran)
    assert after("stratbox_startup_seconds_count") == len(ran) + 2, "and the two that are warm"
    assert before("stratbox_sandboxes", state="running") == 0
    found = Counter(violation.rule for _, result in results for violation in result.violations)
    assert {rule: after("stratbox_violations_total", rule=rule) for rule in found} == found
    assert after("stratbox_violations_total") == sum(found.values())
    assert after("stratbox_engine_errors_total") == after("stratbox_retries_total") == 0


def test_no_label_grows_without_end(scraped: Scraped) -> None:
    """No series came with the load that was not there before it: no label is made of what a producer sends."""
    before, after, _, _ = scraped
    assert set(after.samples) == set(before.samples)


def test_every_metric_in_rules_and_dashboard_exists(scraped: Scraped) -> None:
    """What an operator is shown and warned of is told by a worker or by Flower."""
    _, after, flower, _ = scraped
    for file in NAMED_IN:
        named = set(re.findall(r"\b(?:stratbox|flower)_\w+", file.read_text()))
        assert named, file
        assert named <= after.names | flower.names, file


def test_every_metric_of_ours_is_used(scraped: Scraped) -> None:
    """Nothing is counted that neither a rule nor the dashboard looks at."""
    _, after, _, _ = scraped
    text = "".join(file.read_text() for file in SHOWN_IN)
    assert [family.name for family in after.families if family.name not in text] == []


@pytest.mark.usefixtures("scraped")
def test_queue_is_measured_over_all_priorities(port: int, client: StrategyClient) -> None:
    """What waits is counted whatever its priority, and the age is that of the oldest."""
    holding = [client.submit(LOOP, timeout=20) for _ in range(2)]
    until(lambda: all(one.status() is SubmissionState.RUNNING for one in holding))
    waiting = [client.submit("print(1)", priority=priority) for priority in (0, 3, 6, 9, 9)]
    time.sleep(1.5)
    scrape = Scrape(port)
    assert scrape("stratbox_queue_depth") == len(waiting)
    assert 1.5 <= scrape("stratbox_queue_oldest_seconds") < 15
    assert scrape("stratbox_sandboxes", state="running") == 2
    for submission in holding + waiting:
        submission.cancel()
    until(lambda: Scrape(port)("stratbox_queue_depth") == 0)
    assert Scrape(port)("stratbox_queue_oldest_seconds") == 0


@pytest.mark.usefixtures("scraped")
def test_killed_pool_process_keeps_its_counts(port: int, worker_process: subprocess.Popen[bytes]) -> None:
    """What a pool process had counted stays counted after its end; its sandboxes do not."""
    until(lambda: Scrape(port)("stratbox_sandboxes", state="warm") == 2)
    before = Scrape(port)
    victims = pool_processes(worker_process)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(pool_processes(worker_process)) - set(victims)) == 2)
    until(lambda: Scrape(port)("stratbox_sandboxes", state="warm") == 2)
    after = Scrape(port)
    for name in ("stratbox_executions_total", "stratbox_run_seconds_count", "stratbox_run_seconds_sum"):
        assert after(name) == before(name), name
    assert after("stratbox_startup_seconds_count") == before("stratbox_startup_seconds_count") + 2
    counting = {file.stem.removeprefix("counter_") for file in folder_of(worker_process).glob("counter_*.db")}
    living = {str(worker_process.pid), *children(worker_process)}
    assert counting == living | {"ended"}, "main process, reaper, pool; files of the ended would grow in number"


def test_infrastructure_failures_are_counted() -> None:
    """Broken connections, an engine that is away and retries are told apart; without Redis, a scrape has an answer."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        relay = Relay(Path(folder, "docker.sock"))
        stack.callback(relay.close)
        with (
            private_redis() as url,
            private_worker(url, concurrency=1, DOCKER_HOST=relay.url, STRATBOX_METRICS_PORT=str(port)) as worker,
            StrategyClient(Settings(redis_url=url)) as client,
        ):
            submission = client.submit("import time\ntime.sleep(1)\nprint('again')")
            until(lambda: Scrape(port)("stratbox_sandboxes", state="running") == 1)
            relay.cut()
            assert submission.result(timeout=30).output == "again\n"
            scrape = Scrape(port)
            assert scrape("stratbox_engine_errors_total", kind="SandboxLost") == 1
            assert scrape("stratbox_retries_total") == 1
            relay.close()
            submission = client.submit("print('back')")
            until(lambda: Scrape(port)("stratbox_engine_errors_total", kind="EngineUnavailable") > 0)
            relay.open()
            assert submission.result(timeout=30).output == "back\n"
            with redis.Redis.from_url(url) as direct:
                direct.shutdown(nosave=True)
            scrape = Scrape(port)
            assert scrape("stratbox_redis_up") == 0
            assert "stratbox_queue_depth" not in scrape.names
            values = folder_of(worker)
            worker.kill()  # it would wait for Redis
    until(lambda: not values.exists(), seconds=10)


def test_reaped_containers_are_counted(
    docker_client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reaper counts what it removes where its worker counts; the last to leave, it removes the values, too."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(values := tmp_path / "stratbox-metrics-of-a-worker"))
    orphan = SandboxConfig().container_spec(str(dataclasses.replace(Owner.current(), started=1)))

    def reaped() -> float:
        samples = [one for family in ProcessValues().collect() for one in family.samples]
        return sum(one.value for one in samples if one.name == "stratbox_reaped_containers_total")

    def count_one() -> float:
        values.mkdir()
        docker_client.api.create_container_from_config(orphan)
        read, lifeline = os.pipe()
        with subprocess.Popen([sys.executable, "-m", "worker.reaper", str(read)], pass_fds=[read]):
            os.close(read)
            with contextlib.suppress(AssertionError):
                until(lambda: reaped() > 0, seconds=5)
            counted = reaped()
            os.close(lifeline)
        assert not values.exists()
        return counted

    # The reaper of another worker on this machine may be quicker, or leave one more to this.
    assert any(count_one() >= 1 for _ in range(10))
