"""What a worker does around its connection to Redis; the rest of it is shown by tests/chaos, with a real one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

import pytest
from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from worker.consumer import _watch_again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An event loop."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AsynPool]:
    """A pool of one real process."""
    # A folder of its own making would be removed at the interpreter's end, when the tests' own is gone.
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", str(tmp_path))  # type: ignore[attr-defined]
    pool = AsynPool(processes=1, threads=False)
    (process,) = pool._pool
    yield pool
    os.kill(process.pid, signal.SIGKILL)  # at an end of its own it would tidy up after pytest
    pool.terminate()
    pool.join()


def test_a_process_that_celery_took_off_its_watch_is_watched_again(hub: Hub, pool: AsynPool) -> None:
    """One killed in the moment in which the connection is lost: its pipe has closed, its exit code is not there."""
    (process,) = pool._pool
    pool.register_with_event_loop(hub)
    pool._untrack_child_process(process, hub)
    hub.reset()
    with pytest.raises(ValueError, match="file descriptor is None"):  # should Celery mend it, `_watch_again` can go
        pool.register_with_event_loop(hub)

    hub.reset()
    _watch_again(pool._pool)
    pool.register_with_event_loop(hub)
    assert process._sentinel_poll in hub.readers
