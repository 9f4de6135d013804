"""`make demo`: eight strategies through the queue on real market data, four good ones and four that are not.

Starts a Redis (unless STRATBOX_REDIS_URL names one) and a worker, shows a live table, stops what it started. Leaves
with 0 only if every one of the eight ended as it should.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from local import private_redis, private_worker
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tasks import ExecutionResult, ExecutionStatus, Settings, StrategyClient, Submission, SubmissionState
from tasks.errors import OutputNotJSON, StratboxError
from tasks.excerpt import printable
from worker import display

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MARKET_DATA = EXAMPLES / "data" / "sp500_nasdaq.json"
REFRESH_SECONDS = 0.1
PATIENCE_SECONDS = 90.0


@dataclass
class Case:
    """One strategy of the demo and how it should end."""

    file: str
    expected: ExecutionStatus
    timeout: float = 30.0
    submission: Submission | None = None
    result: ExecutionResult | None = None

    def as_expected(self) -> bool:
        """Whether it ended as it should, with its numbers where it succeeded."""
        if self.result is None or self.result.status is not self.expected:
            return False
        return not self.result.success or bool(self.headline())

    def headline(self) -> str:
        """Return the one line that matters: the strategy's own, or what went wrong."""
        if self.result is None:
            return ""
        if self.result.error:
            return str(self.result.error)
        try:
            return str(self.result.json().get("headline", ""))
        except (OutputNotJSON, AttributeError):
            return ""


CASES = (
    Case("rsi_mean_reversion.py", ExecutionStatus.SUCCEEDED),
    Case("moving_average_crossover.py", ExecutionStatus.SUCCEEDED),
    Case("bollinger_breakout.py", ExecutionStatus.SUCCEEDED),
    Case("pairs_trading.py", ExecutionStatus.SUCCEEDED),
    Case("misbehaving/refused_network.py", ExecutionStatus.REJECTED),
    Case("misbehaving/endless_loop.py", ExecutionStatus.TIMED_OUT, timeout=2.0),
    Case("misbehaving/memory_hog.py", ExecutionStatus.OUT_OF_MEMORY),
    Case("misbehaving/raises.py", ExecutionStatus.FAILED),
)


def table() -> Table:
    """Draw where the eight stand."""
    grid = Table("strategy", "status", "time", "what it says", "", title="Eight strategies, each in its own container")
    for column in (0, 1, 2, 4):
        grid.columns[column].no_wrap = True
    for case in CASES:
        result = case.result
        status = result.status if result else case.submission.status() if case.submission else ""
        seconds = f"{result.metrics.wall_seconds:.2f} s" if result and result.metrics.wall_seconds else ""
        verdict = "" if result is None else "[green]ok[/]" if case.as_expected() else "[bold red]WRONG[/]"
        headline = escape(printable(case.headline()).replace("\n", " "))
        style = display.STYLES.get(status, "dim")
        grid.add_row(Path(case.file).stem, f"[{style}]{status}[/]", seconds, headline, verdict)
    return grid


def run(client: StrategyClient) -> None:
    """Submit the eight and follow them until each has ended."""
    data = json.loads(MARKET_DATA.read_bytes())
    for case in CASES:
        code = (EXAMPLES / case.file).read_text()
        case.submission = client.submit(code, data, timeout=case.timeout, user_id="demo")
    with Live(table(), console=display.err, auto_refresh=False) as live:
        for _ in range(round(PATIENCE_SECONDS / REFRESH_SECONDS)):
            waiting = [case for case in CASES if case.result is None]
            if not waiting:
                return
            time.sleep(REFRESH_SECONDS)
            for case in waiting:
                if case.submission and not isinstance(case.submission.status(), SubmissionState):
                    case.result = case.submission.result(timeout=0)
            live.update(table(), refresh=True)


def main() -> int:
    """Run the demo; return the exit code."""
    named = os.environ.get("STRATBOX_REDIS_URL")
    try:
        with contextlib.ExitStack() as stack:
            url = named or stack.enter_context(private_redis())
            stack.enter_context(private_worker(url))
            run(stack.enter_context(StrategyClient(Settings(redis_url=url))))
    except (StratboxError, RuntimeError, OSError) as exc:
        display.err.print(f"demo: {exc}", markup=False)
        return 3
    wrong = [case.file for case in CASES if not case.as_expected()]
    display.err.print()
    display.err.print(f"wrong: {', '.join(wrong)}" if wrong else "all eight ended as they should")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
