"""Removes containers whose owner is gone, from a process of its own that outlives the worker by a few seconds.

A sandbox ends with its worker by itself, once it has been started. Between its creation and its start lies an instant
in which a kill -9 leaves a container that was never started, and that nothing else would ever remove.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import time
from typing import Any

import docker.errors
import requests.exceptions

from worker import datasets, events, logs, metrics
from worker.errors import EngineUnavailable
from worker.sandbox.container import connect
from worker.sandbox.owner import OWNER_LABEL, Owner

__all__ = ["start", "sweep", "watch"]

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
#: A sandbox is started within seconds of its creation (the start-up limit is 35 s), or its worker is gone. Long enough
#: for clocks of engine and worker that differ.
NEVER_STARTED_SECONDS = 600.0
#: States in which a container stays when the engine could not remove it at its end: a loss of power, a full disk.
ENDED = ("exited", "dead")
#: When to look after the worker's end, seconds: the engine may still be busy with what the worker asked of it last.
LAST_SWEEPS = (0.0, 0.5, 1.0, 1.0)


def sweep() -> list[str]:
    """Remove what this host's dead owners and its restart left, and whatever nobody started; return the ids.

    Two of these at once do no harm, and other hosts' running containers are left to them. An engine that is away is for
    the next time.
    """
    removed = []
    try:
        with contextlib.closing(connect()) as client:
            for found in client.containers(all=True, filters={"label": OWNER_LABEL}):
                if not (_was_never_started(found) or _is_orphan(found)):
                    continue
                with contextlib.suppress(docker.errors.APIError):  # another was quicker
                    client.remove_container(found["Id"], v=True, force=True)
                    removed.append(found["Id"])
    except (EngineUnavailable, docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        logger.debug("no sweep this time: %s", exc)
    if removed:
        events.containers_reaped.send(sender=None, count=len(removed))
    return removed


def _was_never_started(found: dict[str, Any]) -> bool:
    """Whether nobody will any more: of an owner in another container, or before a restart, that is all to go by."""
    return bool(found["State"] == "created" and time.time() - found["Created"] > NEVER_STARTED_SECONDS)


def _is_orphan(found: dict[str, Any]) -> bool:
    try:
        owner = Owner.parse(found["Labels"][OWNER_LABEL])
    except ValueError:
        return False  # not a label of ours
    # What has ended is never started again, and nobody reads it: if it is a namesake's after all, no harm is done.
    return owner.gone() or (owner.of_another_boot() and found["State"] in ENDED)


def watch(lifeline: int) -> None:
    """Sweep now and every minute until the other end of `lifeline` is closed, and then some last times.

    Args:
        lifeline: read end of a pipe whose other end the worker and its pool processes hold.
    """
    while True:
        sweep()
        if select.select([lifeline], [], [], SWEEP_SECONDS)[0]:
            break
    for pause in LAST_SWEEPS:
        time.sleep(pause)
        sweep()


def start() -> int:
    """Start watching from a process of its own; return the end of the pipe to hold as long as the worker lives."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "worker.reaper", str(read)]
    # A session of its own: what is sent to the worker's group does not end it.
    subprocess.Popen(command, pass_fds=[read], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    os.close(read)
    return write


if __name__ == "__main__":
    logs.configure()
    metrics.join()
    watch(int(sys.argv[1]))
    metrics.FOLDER.remove()
    datasets.FOLDER.remove()
