"""The data sets of a worker as files: shared by real processes, bounded, and gone with their worker."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from worker import datasets
from worker.datasets import BLOCK_BYTES, FOLDER, DatasetCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)


def never() -> bytes:
    """Stand for Redis, which must not be asked."""
    msg = "it was fetched again"
    raise AssertionError(msg)


def kept(folder: Path) -> set[str]:
    """Return what is in a folder, by the first digit."""
    return {file.name[0] for file in folder.iterdir() if len(file.name) == 64}


def test_what_was_fetched_once_is_not_fetched_again(tmp_path: Path) -> None:
    """Nor by another process of the worker."""
    assert DatasetCache(tmp_path, 2 * BLOCK_BYTES).text(ONE, lambda: b"text") == b"text"
    assert DatasetCache(tmp_path, 2 * BLOCK_BYTES).text(ONE, never) == b"text"


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    """Using it makes it young again; the bound holds after each."""
    cache = DatasetCache(tmp_path, 2 * BLOCK_BYTES)
    block = bytes(BLOCK_BYTES)
    for digest in (ONE, TWO):
        cache.text(digest, lambda: block)
    assert kept(tmp_path) == {"1", "2"}
    cache.text(ONE, never)
    cache.text(THREE, lambda: block + b"1")
    assert kept(tmp_path) == {"3"}, "with a byte more than a block there is no room for any other"
    cache.text(ONE, lambda: block)
    cache.text(TWO, lambda: block)
    cache.text(ONE, never)
    cache.text(THREE, lambda: b"1")
    assert kept(tmp_path) == {"1", "3"}, "the second was used longest ago"


def test_small_files_take_a_block_each(tmp_path: Path) -> None:
    """A thousand of few bytes take no more space than the bound."""
    cache = DatasetCache(tmp_path, 10 * BLOCK_BYTES)
    for number in range(1000):
        cache.text(f"{number:064x}", lambda: b"1")
    texts = [file for file in tmp_path.iterdir() if len(file.name) == 64]
    assert sum(file.stat().st_blocks * 512 for file in texts) <= 10 * BLOCK_BYTES
    assert len(texts) == 10


@pytest.mark.parametrize("max_bytes", [0, BLOCK_BYTES])
def test_what_is_too_large_is_not_kept(tmp_path: Path, max_bytes: int) -> None:
    """And takes nobody's place."""
    cache = DatasetCache(tmp_path, max_bytes)
    cache.text(ONE, lambda: b"1")
    assert cache.text(TWO, lambda: bytes(BLOCK_BYTES + 1)) == bytes(BLOCK_BYTES + 1)
    assert kept(tmp_path) == ({"1"} if max_bytes else set())


def test_an_error_of_the_fetch_comes_through(tmp_path: Path) -> None:
    """And keeps nobody from trying again."""
    cache = DatasetCache(tmp_path, 2 * BLOCK_BYTES)

    def fail() -> bytes:
        msg = "gone"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="gone"):
        cache.text(ONE, fail)
    assert cache.text(ONE, lambda: b"1") == b"1"


def test_where_nothing_can_be_kept_each_run_fetches(tmp_path: Path) -> None:
    """The folder was removed, or is full: one line in the log, and no run fails."""
    cache = DatasetCache(tmp_path / "gone", BLOCK_BYTES)
    with capture_logs() as logged:
        assert [cache.text(ONE, lambda: b"1") for _ in range(3)] == [b"1"] * 3
    assert [one["event"] for one in logged] == ["data sets cannot be kept here, each run fetches its own"]


def in_processes(count: int, run: Callable[[int], None]) -> None:
    """Run it in so many processes at once, and let none fail."""
    processes = [FORK.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * count


def test_without_locks_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that knows none: two who write one file at once would give a third a part of it."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("worker.datasets.fcntl.flock", no_locks)
    cache = DatasetCache(tmp_path, 2 * BLOCK_BYTES)
    with capture_logs() as logs:
        assert [cache.text(ONE, lambda text=text: text) for text in (b"1", b"2")] == [b"1", b"2"]  # type: ignore[misc]
    assert [line["error"] for line in logs] == ["[Errno 37] No locks available"]
    assert kept(tmp_path) == set()


def test_those_who_want_the_same_at_once_fetch_it_once(tmp_path: Path) -> None:
    """Eight processes; and one that wants another does not wait for them."""
    fetches = FORK.Value("i", 0)
    other_was_done = FORK.Event()

    def run(number: int) -> None:
        def fetch() -> bytes:
            with fetches:
                fetches.value += 1
            assert other_was_done.wait(20)
            return b"same"

        if number:
            assert DatasetCache(tmp_path, 2 * BLOCK_BYTES).text(ONE, fetch) == b"same"
        else:
            assert DatasetCache(tmp_path, 2 * BLOCK_BYTES).text(TWO, lambda: b"other") == b"other"
            other_was_done.set()

    in_processes(9, run)
    assert fetches.value == 1


def test_the_bound_holds_while_many_fetch(tmp_path: Path) -> None:
    """Six processes with thirty data sets: what each gets is right, and there are never too many."""
    most = FORK.Value("i", 0)

    def run(number: int) -> None:
        cache = DatasetCache(tmp_path, 6 * BLOCK_BYTES)
        for step in range(60):
            which = (number * 7 + step * 11) % 30
            text = bytes([which]) * BLOCK_BYTES
            assert cache.text(f"{which:064x}", lambda text=text: text) == text  # type: ignore[misc]
            sizes = []
            for file in tmp_path.iterdir():
                try:
                    sizes.append(file.stat().st_size)
                except FileNotFoundError:  # it has just gone
                    continue
            with most:
                most.value = max(most.value, sum(sizes))

    in_processes(6, run)
    assert 0 < most.value <= 7 * BLOCK_BYTES, "one may go, and another come, between two looks"


def test_one_that_is_killed_as_it_fetches_holds_nobody_up(tmp_path: Path) -> None:
    """The kernel lets go of its lock, and what it had written in part is not taken for the whole."""
    started = FORK.Event()

    def hang() -> bytes:
        started.set()
        time.sleep(60)
        return b""

    process = FORK.Process(target=lambda: DatasetCache(tmp_path, 2 * BLOCK_BYTES).text(ONE, hang))
    process.start()
    assert started.wait(20)
    (tmp_path / f"{ONE}.partial").write_bytes(b"123456789")
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert DatasetCache(tmp_path, 2 * BLOCK_BYTES).text(ONE, lambda: b"12") == b"12"
    assert [file.name for file in tmp_path.iterdir() if not file.suffix] == [ONE]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(FOLDER.variable, raising=False)
    return tmp_path


def test_the_folder_is_the_worker_s_alone_and_goes_with_it(place: Path) -> None:
    """Nobody else may read it; the last process removes it."""
    datasets.start()
    (folder,) = place.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert datasets.shared_cache(BLOCK_BYTES).text(ONE, lambda: b"1") == b"1"
    assert kept(folder) == {"1"}
    datasets.FOLDER.remove()
    assert list(place.iterdir()) == []
    assert datasets.shared_cache(BLOCK_BYTES).text(ONE, lambda: b"2") == b"2", "without a folder nothing is kept"


def test_a_worker_removes_what_the_dead_left(place: Path) -> None:
    """Of workers that were killed together with their reapers; not what one holds that lives, in whatever container."""
    living, starting = FORK.Event(), FORK.Event()

    def work() -> None:
        datasets.start()
        if not os.fork():  # a pool process, that outlives it for a moment
            starting.set()
            living.wait(20)
        os._exit(0)

    process = FORK.Process(target=work)
    process.start()
    assert starting.wait(20)
    process.join()  # with a timeout it would wait for its child, too
    (held,) = place.iterdir()
    for name in ("datasets-dead", "unfinished-one"):
        (place / f"stratbox-{name}").mkdir()
    (place / "stratbox-datasets-dead" / ONE).write_bytes(b"1")
    datasets.start()
    left = {folder.name for folder in place.iterdir()}
    assert held.name in left
    assert "stratbox-unfinished-one" in left
    assert "stratbox-datasets-dead" not in left
    living.set()

    def is_removed() -> bool:
        datasets._remove_left_overs()
        return not held.exists()

    until(is_removed)


def test_a_folder_of_somebody_else_s_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that somebody else has set removes nothing."""
    (place / "precious").mkdir()
    monkeypatch.setenv(FOLDER.variable, str(place / "precious"))
    datasets.FOLDER.remove()
    assert (place / "precious").is_dir()


def test_without_a_place_for_files_a_worker_starts_all_the_same(place: Path) -> None:
    """One line says so."""
    place.rmdir()
    with capture_logs() as logged:
        datasets.start()
    assert len(logged) == 1
    assert FOLDER.variable not in os.environ
