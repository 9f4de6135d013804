"""Submit thousands of strategies while everything beneath them fails, and account for each: `make chaos SEED=1`.

Prints what came of them and ends with 1 when a verdict is missing or wrong, or anything is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tests.chaos import audit, schedule
from tests.chaos.faults import Fleet
from tests.chaos.producers import Producer
from tests.chaos.report import Options, Report, show
from tests.chaos.servers import Engine, RedisServer
from tests.chaos.work import mix

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The least there is: what a killed main process held comes back after it.
VISIBILITY_TIMEOUT_SECONDS = 180
SETTLE_SECONDS = 20.0
GONE_SECONDS = 15.0
#: After these a message may be held by nobody, until its visibility timeout is over.
HOLDING_FAULTS = {"kill -9 of a main process", "normal connections cut", "Redis away", "Redis killed with -9"}


class Run:
    """One run, from the first submission to the last look."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._folder = folder
        self._session = uuid.uuid4().hex
        self._started = time.monotonic()
        self.report = Report(options)

    def go(self) -> Report:
        """Start everything, let it happen, look at what came of it, end everything."""
        options, report = self.report.options, self.report
        with contextlib.ExitStack() as stack:
            for name in ("redis", "e", "logs"):
                (self._folder / name).mkdir()
            engine = stack.enter_context(Engine(self._folder / "e")) if options.private_engine else None
            server = stack.enter_context(RedisServer(self._folder / "redis"))
            environment = {
                audit.SESSION_VARIABLE: self._session,
                "STRATBOX_REDIS_URL": server.url,
                "STRATBOX_VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_TIMEOUT_SECONDS),
                **({"DOCKER_HOST": engine.url} if engine else {}),
            }
            fleet = stack.enter_context(
                # The elder's memory is watched: it is to do a thousand executions.
                Fleet(self._folder / "logs", environment, options.workers, elder_concurrency=5)
            )
            producers = stack.enter_context(self._producers(server))
            watch = audit.Watch(server, fleet)
            stack.callback(watch.stop)
            watch.start()
            self._let_it_happen(server, fleet, engine, producers)
            watch.stop()
            self._read(producers, server, fleet, watch)
            fleet.close()
            self._look_for_leftovers(server, engine)
        report.seconds = time.monotonic() - self._started
        return report

    @contextlib.contextmanager
    def _producers(self, server: RedisServer) -> Iterator[list[Producer]]:
        pieces = mix(self.report.options.submissions, self.report.options.seed)
        count = self.report.options.producers
        producers = [Producer(server.url, pieces[number::count]) for number in range(count)]
        try:
            for producer in producers:
                producer.start()
            yield producers
        finally:
            for producer in producers:
                producer.stop()
            for producer in producers:
                producer.close()

    def _let_it_happen(
        self, server: RedisServer, fleet: Fleet, engine: Engine | None, producers: list[Producer]
    ) -> None:
        options = self.report.options
        faults = {name: count for name, count in options.faults.items() if engine or name != "engine restarted"}
        chaos = schedule.Chaos(
            schedule.plan(faults, options.submissions, options.seed),
            lambda: sum(len(producer.accepted) for producer in producers),
            server=server,
            fleet=fleet,
            engine=engine,
            seed=options.seed,
        )
        chaos.start()
        try:
            while any(producer.is_alive() for producer in producers) and not self._late() and chaos.failure is None:
                time.sleep(0.2)
        finally:
            chaos.stop()
            for producer in producers:
                producer.stop()
                producer.join()
        self.report.faults, self.report.diary = chaos.done, chaos.diary
        broken = [one for one in (chaos.failure, *(producer.failure for producer in producers)) if one]
        self.report.failures += [f"the suite itself failed: {exc!r}" for exc in broken]
        audit.patiently(lambda: audit.leaked_keys(server.client), self._patience())

    def _patience(self) -> float:
        # What a killed main process held, or one that could not give it back to a Redis that was away, stays there
        # until its visibility timeout is over.
        holding = [moment for moment, what in self.report.diary if what in HOLDING_FAULTS]
        over = holding[-1] + VISIBILITY_TIMEOUT_SECONDS - (time.monotonic() - self._started) if holding else 0.0
        return max(0.0, over) + SETTLE_SECONDS

    def _late(self) -> bool:
        return time.monotonic() - self._started > self.report.options.deadline_seconds

    def _read(self, producers: list[Producer], server: RedisServer, fleet: Fleet, watch: audit.Watch) -> None:
        report = self.report
        for producer in producers:
            self._read_verdicts(producer)
        ids = [task_id for producer in producers for task_id in producer.accepted.values()]
        asked_for = {f"celery-task-meta-{task_id}" for task_id in ids}
        unasked = set(server.client.scan_iter("celery-task-meta-*", count=1000)) - asked_for
        report.duplicates += sorted(f"{key} that nobody has asked for" for key in unasked)
        report.failures += [] if len(asked_for) == len(ids) else ["two submissions have one id"]
        runs = audit.executions(fleet.logs())
        report.executions = runs.total()
        begun = runs | watch.starts
        report.re_executions = sum(count - 1 for count in begun.values() if count > 1)
        report.memory = watch.growth()
        gone = [one for one in fleet.workers if not one.alive() and not one.doomed]
        report.deserters = [
            f"{one.log.name}: exit code {one.process.returncode}: {audit.last_words(one.log)}" for one in gone
        ]

    def _read_verdicts(self, producer: Producer) -> None:
        report = self.report
        report.accepted += len(producer.accepted)
        report.refusals += producer.refusals
        for piece, task_id in producer.accepted.items():
            verdict = producer.verdicts.get(task_id)
            if verdict is None or isinstance(verdict, Exception):
                report.lost.append(f"{task_id} {piece.key} ({piece.kind}): {verdict or 'no verdict'}")
                continue
            report.verdicts[verdict.status.value] += 1
            if wrong := piece.wrong(verdict):
                report.wrong.append(f"{task_id} {wrong}")
        report.duplicates += [f"{task_id}: its verdict was replaced" for task_id in producer.replaced()]

    def _look_for_leftovers(self, server: RedisServer, engine: Engine | None) -> None:
        url = engine.url if engine else None
        self.report.leaked = [
            *audit.patiently(lambda: audit.leaked_containers(url), GONE_SECONDS),
            *audit.patiently(lambda: audit.leaked_processes(self._session), GONE_SECONDS),
            *audit.patiently(lambda: audit.leaked_keys(server.client), GONE_SECONDS),
        ]


def run(options: Options, folder: Path) -> Report:
    """Run the suite, with everything it writes in a folder."""
    return Run(options, folder).go()


def options_of(arguments: list[str] | None = None) -> tuple[Options, Path | None]:
    """Read the command line."""
    usual = Options()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--submissions", type=int, default=usual.submissions)
    parser.add_argument("--producers", type=int, default=usual.producers)
    parser.add_argument("--workers", type=int, default=usual.workers, help="2 at least: the first is spared")
    parser.add_argument("--minutes", type=float, default=usual.deadline_seconds / 60, help="give up after so many")
    parser.add_argument("--short", action="store_true", help="the faults of the short form only")
    parser.add_argument("--keep", type=Path, help="a new folder for logs and data, which stays")
    given = parser.parse_args(arguments)
    return Options(
        given.seed,
        given.submissions,
        given.producers,
        given.workers,
        given.minutes * 60,
        schedule.SHORT_FAULTS if given.short else schedule.FAULTS,
        private_engine=Engine.possible() and not given.short,
    ), given.keep


def main() -> int:
    """Run it and print what came of it; 1 when anything is wrong."""
    options, keep = options_of()
    for name in [name for name in os.environ if name.startswith("STRATBOX_")]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ctrl-C: everything is taken down
    console = Console()
    if not (options.private_engine or options.faults is schedule.SHORT_FAULTS):
        console.print("no engine is restarted: that takes root and the dockerd program")
    with contextlib.ExitStack() as stack:
        if keep:
            keep.mkdir(parents=True)
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        report = run(options, folder)
        if keep:
            (keep / "diary").write_text("".join(f"{second:8.1f} {what}\n" for second, what in report.diary))
            (keep / "complaints").write_text("\n".join(report.complaints()))
    show(report, console)
    return 1 if report.complaints() else 0


if __name__ == "__main__":
    sys.exit(main())
