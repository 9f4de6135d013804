"""The data sets that a worker has run with lately, as files that its pool processes share.

The main process makes their folder before it forks. The reaper, which leaves last, removes it; should that be killed,
too, the next worker of this host does.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from worker.folders import SharedFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FOLDER", "DatasetCache", "shared_cache", "start"]

FOLDER = SharedFolder("STRATBOX_DATASETS_FOLDER", "stratbox-datasets-")
#: It is called so until its worker holds it, and nobody takes it for one of the dead.
UNFINISHED_PREFIX = "stratbox-unfinished-"
LOCK_SUFFIX = ".lock"
#: Data sets whose hash begins alike share a lock: there are 256 of them, and one for the folder.
LOCK_DIGITS, FOLDER_LOCK = 2, "folder"
#: A file takes whole blocks, on a disk as in a tmpfs.
BLOCK_BYTES = 4096

log = structlog.get_logger(__name__)


class DatasetCache:
    """Data sets in a folder. What was used longest ago goes first; where nothing can be kept, nothing is.

    Args:
        folder: that no other worker uses, and nobody else can read.
        max_bytes: what its data sets may take together, in whole blocks; 0 for none.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._has_warned = False

    def text(self, digest: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the text of a data set, from here or by `fetch`; whoever wants the same meanwhile waits for it."""
        if not self._max_bytes:
            return fetch()
        if (text := self._read(digest)) is not None:
            return text
        with self._lock(digest[:LOCK_DIGITS]) as alone:
            if (text := self._read(digest)) is None:
                text = fetch()
                if alone:
                    self._keep(digest, text)
        return text

    def _read(self, digest: str) -> bytes | None:
        path = self._folder / digest
        try:
            text = path.read_bytes()
            now = time.time_ns()  # the kernel's own clock for files has steps of milliseconds
            os.utime(path, ns=(now, now))
        except FileNotFoundError:
            return None
        except OSError as exc:
            self._warn_once(exc)
            return None
        return text

    def _keep(self, digest: str, text: bytes) -> None:
        if _space(len(text)) > self._max_bytes:
            return
        partial = self._folder / f"{digest}.partial"  # of one that was killed as it wrote: room is made of it, too
        try:
            with self._lock(FOLDER_LOCK) as alone:
                if not alone:
                    return
                self._make_room(len(text))
                partial.write_bytes(text)
                partial.replace(self._folder / digest)
        except OSError as exc:
            self._warn_once(exc)
            partial.unlink(missing_ok=True)

    def _make_room(self, size_bytes: int) -> None:
        files = [(one.stat(), one) for one in self._folder.iterdir() if one.suffix != LOCK_SUFFIX]
        excess = _space(size_bytes) + sum(_space(stat.st_size) for stat, _ in files) - self._max_bytes
        for stat, file in sorted(files, key=lambda each: each[0].st_mtime_ns):
            if excess <= 0:
                return
            file.unlink(missing_ok=True)
            excess -= _space(stat.st_size)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[bool]:
        """Hold a lock among the worker's processes, and tell whether it could be had.

        The kernel lets go of it when the holder is killed.
        """
        with contextlib.ExitStack() as stack:
            alone = True
            try:
                file = stack.enter_context((self._folder / f"{name}{LOCK_SUFFIX}").open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as exc:
                self._warn_once(exc)
                alone = False
            yield alone

    def _warn_once(self, exc: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("data sets cannot be kept here, each run fetches its own", error=str(exc))


def start() -> None:
    """Make the folder for this process, a worker's main one, and its pool processes; remove those of the dead."""
    _remove_left_overs()
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED_PREFIX))
        # Held by this process and those it forks, for as long as one of them lives; closed by the kernel.
        fcntl.flock(os.open(unfinished, os.O_RDONLY), fcntl.LOCK_EX)
        folder = unfinished.rename(unfinished.with_name(unfinished.name.replace(UNFINISHED_PREFIX, FOLDER.prefix)))
    except OSError as exc:
        log.warning("data sets cannot be kept here, each run fetches its own", error=str(exc))
        return
    os.environ[FOLDER.variable] = str(folder)


def shared_cache(max_bytes: int) -> DatasetCache:
    """Return the cache in the folder that the main process has made; without one, a cache that keeps nothing."""
    folder = FOLDER.path()
    return DatasetCache(folder, max_bytes) if folder else DatasetCache(Path(), 0)


def _space(size_bytes: int) -> int:
    """Return what a file of this size takes."""
    return max(1, math.ceil(size_bytes / BLOCK_BYTES)) * BLOCK_BYTES


def _remove_left_overs() -> None:
    """Remove the folders that nobody holds: a lock is seen from other containers, too, a process number is not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER.prefix}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # somebody else's, or it has just gone
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
