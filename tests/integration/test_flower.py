"""Flower on a real queue: who may look, what is shown, and what its HTTP API does."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from docker.errors import APIError
from flower.urls import handlers
from local import private_flower, private_redis, private_worker
from prometheus_client.parser import text_string_to_metric_families
from tornado.routing import URLSpec
from tornado.web import RequestHandler

from tasks import ExecutionStatus, SubmissionState
from tests.waiting import until
from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker
    from pydantic import JsonValue

    from tasks import StrategyClient, Submission

PASSWORD = secrets.token_hex(8)
#: What no page may show. A strategy prints the third without having it in its code.
IN_CODE, IN_DATA, IN_OUTPUT, IN_REDIS_URL = (f"{name}{secrets.token_hex(8)}" for name in "cdor")
MARKERS = (IN_CODE, IN_DATA, IN_OUTPUT, IN_REDIS_URL)
DATA: dict[str, JsonValue] = {"price": 7, "note": IN_DATA, "tail": IN_OUTPUT[::-1]}
READ = f"import json\nnote = {IN_CODE!r}\nsecret = json.load(open('/workspace/data.json'))['tail'][::-1]\n"
LOOP = f"{READ}print('begun', secret)\nwhile True:\n    pass"
#: Pages that need no password: numbers for Prometheus, "OK", style sheets, and two that show nothing.
OPEN = {"/metrics", "/healthcheck", "/static/x", "/logout", "/nowhere"}


@dataclass(frozen=True)
class Pages:
    """Flower's pages and API, asked as its user unless told otherwise."""

    address: str

    def ask(
        self, path: str, *, method: str = "GET", fields: dict[str, Any] | None = None, user: str | None = None
    ) -> tuple[int, str]:
        """Return status and body."""
        credentials = base64.b64encode((user or f"stratbox:{PASSWORD}").encode()).decode()
        headers = {} if user == "" else {"Authorization": f"Basic {credentials}"}
        body = json.dumps(fields).encode() if fields is not None else None
        request = urllib.request.Request(self.address + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def get(self, path: str) -> str:
        """Return a page that must be there."""
        status, body = self.ask(path)
        assert status == 200, (path, body)
        return body

    def post(self, path: str, **fields: Any) -> dict[str, Any]:
        """Call the API."""
        status, body = self.ask(path, method="POST", fields=fields)
        assert status == 200, (path, body)
        return dict(json.loads(body))

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return what Flower knows of tasks, by their ids."""
        return dict(json.loads(self.get("/api/tasks")))

    def state(self, task_id: str) -> str | None:
        """Return a task's state as Flower sees it; None while it has not heard of it."""
        known = self.tasks().get(task_id)
        return str(known["state"]) if known else None

    def worker(self) -> dict[str, Any]:
        """Return what the one worker says of itself, tasks included, once it has answered every question."""
        known: dict[str, Any] = {}

        def answered() -> bool:
            for name in json.loads(self.get("/api/workers?refresh=1")):
                # Only when asked for one worker does Flower ask for what runs and waits there.
                known.update(json.loads(self.get(f"/api/workers?refresh=1&workername={name}"))[name], name=name)
            return known.keys() >= {"active", "reserved", "scheduled"}

        until(answered)
        return known

    def everything(self) -> dict[str, str]:
        """Return every page there is, by its path."""
        worker = self.worker()["name"]
        table = {"draw": 1, "start": 0, "length": 1000, "order[0][column]": 0, "order[0][dir]": "asc"}
        paths = ["/", "/workers", "/workers?json=1", "/api/workers", "/tasks", "/broker", "/metrics", "/healthcheck"]
        paths += ["/api/tasks", "/api/task/types", "/api/queues/length"]
        paths += [f"/tasks/datatable?{urllib.parse.urlencode(table)}", f"/worker/{worker}"]
        paths += [f"{page}/{task_id}" for task_id in self.tasks() for page in ("/task", "/api/task/info")]
        return {path: self.get(path) for path in paths}

    def assert_discreet(self, *ids: str) -> None:
        """No page shows code, data, output or the password of Redis; these tasks' pages show their summary."""
        pages = self.everything()
        assert [path for path, text in pages.items() if any(marker in text for marker in MARKERS)] == []
        for task_id in ids:
            summary = json.loads(pages[f"/api/task/info/{task_id}"])["kwargs"]
            assert summary.startswith("user_id='alice', code=sha256:"), summary
            assert summary.endswith(" bytes, timeout=30 s"), summary
            assert html.escape(summary, quote=False) in html.unescape(pages[f"/task/{task_id}"]).replace("&", "&amp;")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis of the module's own; as it asks for no password it takes any, and the URL has one to look for."""
    with private_redis() as url:
        yield url.replace("//", f"//default:{IN_REDIS_URL}@")


@contextlib.contextmanager
def flower_on(redis_url: str, **settings: str) -> Iterator[Pages]:
    """Run Flower on a Redis; it waits for answers of workers no longer than it must here."""
    with private_flower(redis_url, PASSWORD, FLOWER_INSPECT_TIMEOUT="500", **settings) as address:
        pages = Pages(address)
        until(lambda: json.loads(pages.get("/workers?json=1"))["data"])  # it hears of events, a heartbeat every 2 s
        yield pages


@pytest.fixture(scope="module")
def worker_process(redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that soon gives up."""
    with private_worker(redis_url, STRATBOX_TRIES="3", STRATBOX_RETRY_SECONDS="4") as process:
        yield process


@pytest.fixture(scope="module")
def pages(redis_url: str, worker_process: subprocess.Popen[bytes]) -> Iterator[Pages]:
    """Flower, started before the first task and watching the worker."""
    del worker_process
    with flower_on(redis_url) as opened:
        yield opened


def submit(client: StrategyClient, code: str) -> Submission:
    """Submit a strategy of alice's."""
    return client.submit(code, DATA, user_id="alice", timeout=30)


def routes() -> Iterator[tuple[str, str]]:
    """Give every method and path Flower answers, as Flower itself lists them."""
    for route in handlers:
        spec = route if isinstance(route, URLSpec) else URLSpec(*route[:2])
        path = re.sub(r"\(\.[+*]\)", "x", spec.regex.pattern.removesuffix("$").removesuffix("/?"))
        for method in ("get", "post"):
            if getattr(spec.handler_class, method) is not getattr(RequestHandler, method):
                yield method.upper(), "/nowhere" if path == ".*" else path


def test_every_page_asks_for_a_password(pages: Pages) -> None:
    """Without a password, or with a wrong one, only what shows no task is open."""
    opened = {
        path
        for method, path in routes()
        for user in ("", "stratbox:wrong", f"{PASSWORD}:stratbox")
        if pages.ask(path, method=method, user=user)[0] != 401
    }
    assert opened == OPEN


def test_open_metrics_hold_names_and_numbers(pages: Pages, client: StrategyClient) -> None:
    """What anybody may read names workers, tasks and kinds of event, and nobody's strategy."""
    submission = submit(client, "print(1)")
    assert submission.result(timeout=30).success
    until(lambda: pages.state(submission.id) == "SUCCESS")
    _, text = pages.ask("/metrics", user="")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    flower = [sample for sample in samples if sample.name.startswith("flower_")]
    assert {label for sample in flower for label in sample.labels} == {"worker", "task", "type", "le"}
    assert {sample.labels["task"] for sample in flower if "task" in sample.labels} == {"STRATEGY_EXECUTION"}
    assert "alice" not in text
    assert pages.ask("/healthcheck", user="") == (200, "OK")


def test_no_page_shows_code_data_or_output(pages: Pages, client: StrategyClient, redis_url: str) -> None:
    """Whatever becomes of a strategy, and whoever sent it: our client, Flower's API, Celery with none of our code."""
    fields = {"code": LOOP, "data": DATA, "user_id": "alice", "timeout": 30}
    positional = pages.post("/api/task/send-task/STRATEGY_EXECUTION", args=[LOOP, DATA])["task-id"]
    statuses = {
        submit(client, f"{READ}print(secret)").id: "succeeded",
        submit(client, f"{READ}raise ValueError(secret)").id: "failed",
        submit(client, f"import os_{IN_CODE}").id: "rejected",
    }
    until(lambda: all(pages.state(task_id) == "SUCCESS" for task_id in (positional, *statuses)))
    with Celery(broker=redis_url, backend=redis_url, set_as_current=False) as plain:
        running = [submit(client, LOOP).id, plain.send_task("STRATEGY_EXECUTION", kwargs=fields).id]
        plain.backend.result_consumer.stop()
    until(lambda: all(pages.state(task_id) == "STARTED" for task_id in running))
    running.append(pages.post("/api/task/send-task/STRATEGY_EXECUTION", kwargs=fields)["task-id"])
    waiting = submit(client, LOOP).id
    until(lambda: pages.state(waiting) == "PENDING")
    pages.assert_discreet(waiting, *running[:2], *statuses)

    pages.post(f"/api/task/revoke/{waiting}")
    for task_id in running:
        until(lambda task_id=task_id: pages.state(task_id) == "STARTED")  # type: ignore[misc]
        pages.post(f"/api/task/revoke/{task_id}?terminate=true")
    until(lambda: pages.state(waiting) == "REVOKED")
    until(lambda: all(pages.state(task_id) == "SUCCESS" for task_id in running))
    pages.assert_discreet(waiting, *running, *statuses)
    known = pages.tasks()
    assert known[positional]["kwargs"] == "not a valid request"
    for task_id, status in (statuses | dict.fromkeys(running, "cancelled") | {positional: "rejected"}).items():
        assert known[task_id]["result"].startswith(f"{{'status': '{status}'"), known[task_id]


def test_api_enqueues_and_reads(pages: Pages) -> None:
    """The API runs a strategy by its task's name; whoever has the password may read its output there only."""
    sent = pages.post("/api/task/send-task/STRATEGY_EXECUTION", kwargs={"code": f"{READ}print(secret)", "data": DATA})
    result = json.loads(pages.get(f"/api/task/result/{sent['task-id']}?timeout=20"))
    assert (result["result"]["status"], result["result"]["output"]) == ("succeeded", f"{IN_OUTPUT}\n")
    wrong = pages.post("/api/task/send-task/STRATEGY_EXECUTION", kwargs={"code": 7})
    result = json.loads(pages.get(f"/api/task/result/{wrong['task-id']}?timeout=20"))
    assert result["result"]["status"] == "rejected"


@pytest.mark.parametrize("call", ["apply", "async-apply", "timeout", "rate-limit"])
def test_api_calls_that_need_the_task_itself_are_refused(pages: Pages, call: str) -> None:
    """Flower has no worker code: whatever needs the task's class, its time limits among them, is out of its reach."""
    query = urllib.parse.urlencode({"workername": "celery@any", "hard": 9999, "ratelimit": 0})
    status, body = pages.ask(f"/api/task/{call}/STRATEGY_EXECUTION?{query}", method="POST", fields={})
    assert (status, body) == (404, "Unknown task 'STRATEGY_EXECUTION'")


def busy_containers(client: docker.DockerClient, worker: subprocess.Popen[bytes]) -> set[str]:
    """Return the sandboxes of a worker in which a strategy runs."""
    children = {int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()}
    found = client.api.containers(filters={"label": OWNER_LABEL})
    mine = [one["Id"] for one in found if Owner.parse(one["Labels"][OWNER_LABEL]).pid in children]
    return {container for container in mine if runs_a_strategy(client, container)}


def runs_a_strategy(client: docker.DockerClient, container: str) -> bool:
    """Whether one of its processes has the descriptors 0 to 3 and no other: what stands by has two more."""
    try:
        listed = client.api.top(container, "-o pid,args")["Processes"] or []
        runners = [pid for pid, command in listed if "worker.sandbox.boot" in command]
        return any(len(list(Path(f"/proc/{pid}/fd").iterdir())) == 4 for pid in runners)
    except (APIError, OSError):  # it has ended meanwhile
        return False


def hang_up(client: docker.DockerClient, container: str) -> None:
    """End a sandbox as a broken connection would: its stdin ends with the first of those attached who leaves."""
    attached = client.api.attach_socket(container, {"stdin": 1, "stream": 1})
    attached._sock.close()
    attached.close()


def test_retried_and_lost_tasks_show_their_summary(
    pages: Pages,
    client: StrategyClient,
    redis_url: str,
    docker_client: docker.DockerClient,
    worker_process: subprocess.Popen[bytes],
) -> None:
    """A task that waits for its next try, one revoked there, and one given up after its last show no more."""

    def busy() -> set[str]:
        # Twice: what begins to stand by looks like a strategy for a moment.
        seen = busy_containers(docker_client, worker_process)
        time.sleep(0.5)
        return seen & busy_containers(docker_client, worker_process)

    def break_off(count: int) -> None:
        broken = until(lambda: len(found := busy()) == count and found)
        for container in broken:
            hang_up(docker_client, container)
        until(lambda: not broken & busy_containers(docker_client, worker_process))

    with redis.Redis.from_url(redis_url) as server, server.pubsub() as events:
        events.psubscribe("*celeryev*")
        lost, revoked = submit(client, LOOP).id, submit(client, LOOP).id
        break_off(2)
        until(lambda: client.submission(revoked).status() is SubmissionState.RETRYING)
        pages.post(f"/api/task/revoke/{revoked}")
        break_off(1)
        pages.assert_discreet(lost, revoked)
        break_off(1)
        until(lambda: (pages.state(lost), pages.state(revoked)) == ("FAILURE", "REVOKED"))
        messages = list(iter(lambda: events.get_message(timeout=0.2), None))
    pages.assert_discreet(lost, revoked)
    assert "the connection to the container broke" in pages.tasks()[lost]["exception"]
    assert client.submission(revoked).result(timeout=5).status is ExecutionStatus.CANCELLED
    bodies = [json.loads(one["data"])["body"] for one in messages if one["type"] == "pmessage"]
    heard = [base64.b64decode(body).decode() for body in bodies]
    assert sum("task-sent" in event for event in heard) == 2
    assert sum("task-retried" in event for event in heard) == 3
    assert not any(marker in event for event in heard for marker in MARKERS)


def test_terminate_destroys_the_container(
    pages: Pages,
    client: StrategyClient,
    docker_client: docker.DockerClient,
    worker_process: subprocess.Popen[bytes],
) -> None:
    """Terminate ends the strategy and its container, and keeps what it printed; the worker's processes live on."""
    submission = submit(client, "print('begun')\nwhile True:\n    pass")
    until(lambda: submission.status() is SubmissionState.RUNNING)
    until(lambda: len(busy_containers(docker_client, worker_process)) == 1)
    (container,) = busy_containers(docker_client, worker_process)
    time.sleep(0.5)  # its output is on its way
    children = Path(f"/proc/{worker_process.pid}/task/{worker_process.pid}/children").read_text()
    pages.post(f"/api/task/revoke/{submission.id}?terminate=true")
    result = submission.result(timeout=5)
    assert (result.status, result.output) == (ExecutionStatus.CANCELLED, "begun\n")
    until(lambda: container not in {one["Id"] for one in docker_client.api.containers(all=True)}, seconds=5)
    assert Path(f"/proc/{worker_process.pid}/task/{worker_process.pid}/children").read_text() == children


def test_history_survives_a_restart_and_can_be_read_only(
    redis_url: str, client: StrategyClient, tmp_path: Path
) -> None:
    """With FLOWER_PERSISTENT tasks outlive Flower; with FLOWER_READ_ONLY it shows all and changes nothing."""
    settings = {"FLOWER_PERSISTENT": "true", "FLOWER_DB": str(tmp_path / "flower"), "FLOWER_READ_ONLY": "true"}
    with flower_on(redis_url, **settings) as pages:
        submission = submit(client, LOOP)
        until(lambda: pages.state(submission.id) == "STARTED")
    with flower_on(redis_url, **settings) as pages:
        assert pages.state(submission.id) == "STARTED"
        pages.assert_discreet(submission.id)
        assert "Terminate" not in pages.get(f"/task/{submission.id}")
        name = pages.worker()["name"]
        for call in (
            f"task/revoke/{submission.id}?terminate=true",
            "task/send-task/STRATEGY_EXECUTION",
            f"task/abort/{submission.id}",
            f"worker/shutdown/{name}",
            f"worker/pool/shrink/{name}?n=1",
            f"worker/queue/cancel-consumer/{name}?queue=celery",
        ):
            assert pages.ask(f"/api/{call}", method="POST", fields={}) == (403, "Read only mode is enabled"), call
        assert submission.status() is SubmissionState.RUNNING
    assert submission.cancel()


def test_it_does_not_start_without_a_password(redis_url: str) -> None:
    """Flower without a password shows every page to everybody; ours does not start."""
    command = [sys.executable, "-m", "worker.cli", "flower"]
    env = os.environ | {"STRATBOX_REDIS_URL": redis_url}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == ["stratbox: Flower needs a password: set FLOWER_BASIC_AUTH=name:password"]
