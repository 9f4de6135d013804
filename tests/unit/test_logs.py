"""A worker's log: one form for all, and one line for each change of state."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from worker import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

CONSUMER = logging.getLogger("celery.worker.consumer.consumer")
LOST = "consumer: Connection to broker lost. Trying to re-establish the connection... (network:ConnectionError)"
RETRY = "consumer: Cannot connect to redis://:**@127.0.0.1:1/0: Error 111.\nTrying again in 2.00 seconds... (1/None)\n"


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in logs.TOO_MUCH}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return what was logged; each line must be a record of its own."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_line_is_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours with their fields, others' with their text, and an exception's traceback within its line."""
    logs.configure()
    structlog.get_logger("worker.execution").info("execution ended", status="succeeded", wall_seconds=0.5)
    logging.getLogger("kombu").warning("%d of\n%d", 1, 2)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logging.getLogger("celery").exception("broken")
    ours, theirs, broken = written(capsys)
    assert (ours["event"], ours["status"], ours["wall_seconds"]) == ("execution ended", "succeeded", 0.5)
    assert (ours["level"], ours["logger"]) == ("info", "worker.execution")
    assert (theirs["event"], theirs["level"]) == ("1 of\n2", "warning")
    assert "ZeroDivisionError" in str(broken["exception"])
    assert all(str(record["timestamp"]).endswith("Z") for record in (ours, theirs, broken))


def test_redis_away_and_back_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the many that Celery has for each try."""
    logs.configure()
    CONSUMER.warning(LOST)
    CONSUMER.info("Skipping prefetch count reduction after connection restart because …")
    for _ in range(3):
        CONSUMER.error(RETRY)
    CONSUMER.info("Connected to %s", "redis://127.0.0.1:1/0")
    CONSUMER.info("Connected to %s", "redis://127.0.0.1:1/0")
    away, back, again = written(capsys)
    assert (away["event"], away["level"]) == ("Redis is away, waiting for it", "warning")
    assert str(back["event"]).startswith("Redis is back after 0 s")
    assert again["event"] == "Connected to redis://127.0.0.1:1/0"


def test_away_from_the_start_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that never had Redis waits, too."""
    logs.configure()
    CONSUMER.error(RETRY)
    CONSUMER.error(RETRY)
    (away,) = written(capsys)
    assert (away["event"], away["level"]) == ("Redis is away, waiting for it", "warning")


def test_what_kombu_cannot_read_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a control command or an event that is not JSON, the fact alone."""
    logs.configure()
    try:
        json.loads("secret")
    except ValueError:
        logging.getLogger("kombu.transport.redis").warning(
            "Cannot process event on channel %r: %s", "celery.pidbox", "{'data': b'secret'}", exc_info=True
        )
    (line,) = written(capsys)
    assert (line["event"], line["level"]) == ("left out what was published to workers, which is not JSON", "warning")
    assert "secret" not in str(line)


@pytest.mark.parametrize(("level", "shown"), [(None, 0), ("INFO", 0), (logging.DEBUG, 1)])
def test_celery_says_nothing_of_each_task(
    capsys: pytest.CaptureFixture[str], level: int | str | None, shown: int
) -> None:
    """Its line has the result's text in it; asked for everything, the worker says everything."""
    logs.configure(level)
    logging.getLogger("celery.app.trace").info("Task succeeded")
    assert len(written(capsys)) == shown


def test_failures_of_tasks_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What Celery calls an error stays one."""
    logs.configure()
    logging.getLogger("celery.app.trace").error("Task raised unexpected")
    assert [record["level"] for record in written(capsys)] == ["error"]


def test_a_terminal_gets_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For people."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    logs.configure()
    structlog.get_logger("worker.execution").info("execution ended", status="succeeded")
    line = capsys.readouterr().err
    assert "execution ended" in line
    assert not line.startswith("{")
