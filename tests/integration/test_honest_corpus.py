"""The honest corpus runs: what the policy accepts, the sandbox carries out."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.models import ExecutionRequest

if TYPE_CHECKING:
    from worker import CodeExecutor

#: A container of its own for each would take a minute in all.
BATCH = 19
#: Runs each strategy of the data as a program of its own. The code policy is off: this is not an honest strategy.
DRIVER = """
import contextlib, io, json, traceback

def outcome(name, code):
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if end.code:
            return f"exit {end.code}"
    except BaseException:
        return traceback.format_exc(limit=-1)
    return "printed" if shown.getvalue() else "silent"

with open("/workspace/data.json") as file:
    strategies = json.load(file)["strategies"]
print(json.dumps({name: outcome(name, code) for name, code in strategies.items()}))
"""
STRATEGIES = sorted((Path(__file__).parent.parent / "corpus" / "honest").glob("*.py"))


def market_data(bars: int = 160) -> dict[str, Any]:
    """Daily bars around a slow wave: prices cross their averages now and then."""
    start = datetime(2024, 1, 1)  # noqa: DTZ001  # as feeds deliver it: local to the exchange
    closes = [100 + 8 * math.sin(day / 9) + day / 40 + 1.5 * math.sin(day * 2.3) for day in range(bars)]
    return {
        "symbol": "ACME",
        "bars": [
            {
                "time": (start + timedelta(days=day)).isoformat(),
                "open": round(closes[max(day - 1, 0)] + 0.1, 4),
                "high": round(max(close, closes[max(day - 1, 0)]) + 0.8, 4),
                "low": round(min(close, closes[max(day - 1, 0)]) - 0.8, 4),
                "close": round(close, 4),
                "volume": 1000 + 37 * (day % 11),
            }
            for day, close in enumerate(closes)
        ],
    }


@pytest.mark.parametrize("first", range(0, len(STRATEGIES), BATCH))
def test_honest_strategies_succeed(bare_executor: CodeExecutor, first: int) -> None:
    """Each runs to its end in the real image and prints something; `tests/unit/test_corpus.py` has them accepted."""
    codes = {path.stem: path.read_text(encoding="utf-8") for path in STRATEGIES[first : first + BATCH]}
    data = {**market_data(), "strategies": codes}
    result = bare_executor.execute(ExecutionRequest(code=DRIVER, data=data, timeout=60))
    assert result.success, (result.status, result.stderr)
    assert json.loads(result.output) == dict.fromkeys(codes, "printed")
