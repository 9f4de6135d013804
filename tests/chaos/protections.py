"""Does a test notice when a protection is gone? `python tests/chaos/protections.py [NAME…]` takes each away in turn.

For every protection the tests named with it run on a copy of the sources that lacks it; at least one must fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What the tests need; the virtual environment stays where it is.
COPIED = ("tasks", "worker", "tests", "ops", "examples", "pyproject.toml", "README.md")
#: Where a protection is missing a test often waits in vain.
SECONDS_PER_PROTECTION = 300
FAULTS, TESTS = "tests/chaos/test_faults.py::", "tests/integration/test_"


@dataclass(frozen=True)
class Protection:
    """One thing that keeps a promise, and how to take it away."""

    #: At least one must fail without it.
    tests: tuple[str, ...]
    file: str
    #: Text of the file, and what stands there instead.
    text: str
    without: str


PROTECTIONS = {
    "the message is acknowledged after the verdict": Protection(
        (f"{FAULTS}test_a_pool_process_is_killed",), "tasks/app.py", '"task_acks_late": True', '"task_acks_late": False'
    ),
    "a dead pool process' task goes back": Protection(
        (f"{FAULTS}test_a_pool_process_is_killed",),
        "tasks/app.py",
        '"task_reject_on_worker_lost": True',
        '"task_reject_on_worker_lost": False',
    ),
    "deaths are counted": Protection(
        (f"{FAULTS}test_poison_is_given_up",), "tasks/ledger.lua", "DEATHS_LIMIT = 3", "DEATHS_LIMIT = 1000"
    ),
    "what runs ends with its connection": Protection(
        (f"{FAULTS}test_what_a_lost_connection_cuts_off_has_ended",),
        "tasks/app.py",
        '"worker_cancel_long_running_tasks_on_connection_loss": True',
        '"worker_cancel_long_running_tasks_on_connection_loss": False',
    ),
    "what was held is given back": Protection(
        (
            f"{FAULTS}test_connections_are_cut",
            f"{FAULTS}test_messages_that_come_while_a_worker_connects_again",
            f"{FAULTS}test_redis_is_killed_in_the_middle_of_a_run",
            f"{FAULTS}test_redis_is_away_when_a_run_ends",
        ),
        "worker/consumer.py",
        "self.task_consumer.channel.qos.restore_by_tag(tag)",
        "pass",
    ),
    "a dying pool process is watched": Protection(
        ("tests/unit/test_consumer.py::test_a_process_that_celery_took_off_its_watch_is_watched_again",),
        "worker/consumer.py",
        "del process._sentinel_poll",
        "pass",
    ),
    "Redis writes down what it takes": Protection(
        (f"{FAULTS}test_redis_is_killed_in_the_middle_of_a_run",), "ops/redis.conf", "appendonly yes", "appendonly no"
    ),
    "a verdict waits for Redis": Protection(
        (f"{FAULTS}test_a_verdict_waits_for_redis",),
        "tasks/app.py",
        '"result_backend_always_retry": True',
        '"result_backend_always_retry": False',
    ),
    "what has a verdict is not run": Protection(
        (f"{FAULTS}test_a_delivery_after_the_end",),
        "tasks/ledger.lua",
        "    redis.call('ZREM', LATER, id)\n    if has_ended(id) then",
        "    redis.call('ZREM', LATER, id)\n    if false then",
    ),
    "no verdict is replaced": Protection(
        (f"{FAULTS}test_a_worker_that_wakes_up_late",),
        "tasks/ledger.lua",
        "if has_ended(id) or redis.call('ZSCORE', DEAD, id) then return 0 end",
        "",
    ),
    "only the latest start is heard": Protection(
        (f"{TESTS}ledger.py::test_the_newer_of_two_starts_is_heard",),
        "tasks/ledger.lua",
        "if owner and owner ~= worker or fence ~= '' and starts and starts ~= fence then return 0 end",
        "",
    ),
    "messages that are nowhere are brought back": Protection(
        (f"{FAULTS}test_a_worker_that_dies_with_a_message_in_its_hand",),
        "worker/consumer.py",
        "for task_id in ledger.reconcile(unless_within_seconds=RECONCILE_SECONDS / 2):",
        "for task_id in ():",
    ),
    "a note of delivery is believed for 30 s only": Protection(
        (f"{TESTS}ledger.py::test_a_note_of_delivery_is_not_believed_for_ever",),
        "tasks/ledger.lua",
        "return set == READY and HELD_SECONDS or math.huge",
        "return math.huge",
    ),
    "what runs is not begun a second time": Protection(
        (f"{FAULTS}test_a_second_delivery_of_what_runs",),
        "tasks/ledger.lua",
        "or 0) < RUN_SECONDS then return {'busy'} end",
        "or 0) < 0 then return {'busy'} end",
    ),
    "a second delivery is put aside": Protection(
        (f"{FAULTS}test_a_cancel_reaches_what_was_delivered_twice",),
        "worker/consumer.py",
        "if twin := requests.get(task_id):",
        "if twin := None:",
    ),
    "what a dead worker held is put back": Protection(
        (f"{FAULTS}test_a_main_process_is_killed",),
        "tasks/app.py",
        '"unacked_restore_interval": 5',
        '"unacked_restore_interval": 100_000',
    ),
    "a connection that is silent is given up": Protection(
        (f"{FAULTS}test_a_connection_falls_silent",), "tasks/app.py", ' "socket_timeout": 30', ' "socket_timeout": None'
    ),
    "a worker's end gives back what it cut off": Protection(
        (f"{TESTS}outages.py::test_a_second_sigterm_is_cold",),
        "worker/app.py",
        "        app.backend.ledger.release()\n",
        "        pass\n",
    ),
    "a cancel is remembered": Protection(
        (f"{TESTS}queue.py::test_cancelled_while_running_is_not_run_again",),
        "tasks/ledger.lua",
        "redis.call('HSET', task(id), 'cancelled', 1)",
        "",
    ),
    "the infrastructure's failures are tried again": Protection(
        (f"{TESTS}queue.py::test_engine_away_is_retried_then_lost",),
        "worker/execution.py",
        "if tries >= settings.tries:",
        "if tries >= 1:",
    ),
    "what waits is bounded": Protection(
        (f"{TESTS}backpressure.py::test_as_many_as_may_wait_are_accepted",),
        "tasks/ledger.lua",
        ">= tonumber(most) then",
        ">= math.huge then",
    ),
    "a tenant's share is bounded": Protection(
        (f"{TESTS}backpressure.py::test_as_many_as_a_tenant_may_have_are_accepted",),
        "tasks/ledger.lua",
        ">= tonumber(most_for_tenant) then",
        ">= math.huge then",
    ),
    "a full Redis has room for workers": Protection(
        (f"{TESTS}backpressure.py::test_what_was_accepted_by_a_full_redis_is_run",),
        "tasks/script.lua",
        "MEMORY_SHARE = 0.9",
        "MEMORY_SHARE = 10",
    ),
    "tenants take turns": Protection(
        (f"{TESTS}fairness.py::test_tenants_take_turns",),
        "tasks/ledger.lua",
        "if redis.call('EXISTS', lane) == 1 then redis.call('RPUSH', RING, tenant) end",
        "if redis.call('EXISTS', lane) == 1 then redis.call('LPUSH', RING, tenant) end",
    ),
    "a key stands for one request": Protection(
        (f"{TESTS}ledger.py::test_another_request_under_a_used_key_is_refused",),
        "tasks/ledger.lua",
        "if used_for and used_for ~= digest then",
        "if false then",
    ),
    "a data set stays while somebody refers to it": Protection(
        (f"{TESTS}datasets.py::test_it_is_kept_while_a_submission_has_not_ended",),
        "tasks/datasets.lua",
        "redis.call('PERSIST', dataset(digest))",
        "",
    ),
    "a data set is compared with its hash": Protection(
        (f"{TESTS}datasets.py::test_what_is_not_what_was_put_is_rejected",),
        "tasks/datasets.py",
        " or hashlib.sha256(text).hexdigest() != digest",
        "",
    ),
    "containers of dead workers are removed": Protection(
        (f"{TESTS}reaper.py::test_a_worker_that_restarts_in_a_loop_leaves_nothing",),
        "worker/reaper.py",
        "    return owner.gone() or",
        "    return",
    ),
}


def failures(folder: Path, tests: tuple[str, ...]) -> list[str]:
    """Return which of the tests fail on the sources in a folder.

    Raises:
        RuntimeError: they could not be run to an end.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-rf", "-p", "no:cacheprovider", *tests]
    # Before the folder that the environment names, for the workers, too.
    environment = {**os.environ, "PYTHONPATH": str(folder), "STRATBOX_CHAOS": "1"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_PER_PROTECTION,
    )
    if done.returncode > 1:
        raise RuntimeError(" ".join((done.stdout + done.stderr).split())[-400:])
    return re.findall(r"^FAILED \S*?::(.+?)(?: - |$)", done.stdout, re.MULTILINE)


def copy(folder: Path, protection: Protection | None = None) -> Path:
    """Copy the sources, without a protection if one is given."""
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder / name)
    if protection:
        file = folder / protection.file
        source_text = file.read_text()
        if source_text.count(protection.text) != 1:
            msg = f"{protection.file} does not have this exactly once: {protection.text}"
            raise RuntimeError(msg)
        file.write_text(source_text.replace(protection.text, protection.without))
    return folder


def tell(line: str) -> None:
    """Print one line as soon as it is known."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(names: list[str]) -> int:
    """Print a table of protections and the tests that miss them; return 1 if nothing misses one."""
    chosen = {name: PROTECTIONS[name] for name in names} if names else PROTECTIONS
    unnoticed = 0
    tell("| protection taken away | what fails then |\n|---|---|")
    for name, protection in chosen.items():
        with tempfile.TemporaryDirectory(prefix="stratbox-protections-") as folder:
            try:
                noticed = failures(copy(Path(folder), protection), protection.tests)
            except (RuntimeError, subprocess.TimeoutExpired) as exc:
                noticed, outcome = [], f"NO VERDICT: {exc}"
            else:
                outcome = ", ".join(f"`{test}`" for test in noticed) or "NOTHING"
        unnoticed += not noticed
        tell(f"| {name} | {outcome} |")
    tell(f"\n{len(chosen) - unnoticed} of {len(chosen)} protections are missed when they are gone")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
