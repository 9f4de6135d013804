"""What a report reads, which a strategy may have made as it likes: taken in, or refused in one line."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tasks import ErrorDetail, ExecutionResult, ExecutionStatus
from tasks.deepseek.outcome import Attempt, Ended, Outcome, Verdict
from tasks.errors import InvalidRequest
from worker.report import backtest
from worker.report.backtest import MAX_BARS, MAX_SIGNALS, Backtest, Side, Signal, backtest_of, bars_of, result_of

SIGNAL = {"date": "2024-01-02", "action": "BUY", "price": 7}


def ran(printed: Any, **fields: Any) -> ExecutionResult:
    """Return the result of a strategy that printed this."""
    output = printed if isinstance(printed, str) else json.dumps(printed)
    return ExecutionResult(status=ExecutionStatus.SUCCEEDED, output=output, **fields)


def read(printed: Any, **fields: Any) -> Backtest:
    """Return what a report makes of it."""
    return backtest_of(ran(printed, **fields), "r.json")


def test_the_convention_is_read() -> None:
    """Every key a report uses, and none of the others; progress printed before does not matter."""
    trade = {"entry_date": "2024-01-02", "entry_price": 7.5, "exit_date": None, "exit_price": None, "shares": 3}
    printed = {
        "strategy": "s", "symbol": "X", "headline": "h", "capital": 100, "equity": [100, 99.5], "bars": 2,
        "signals": [SIGNAL | {"why": "RSI"}], "trades": [trade], "metrics": {"sharpe": 1}, "beta": {"x": [1]},
    }  # fmt: skip
    found = read("loading\n" + json.dumps(printed))
    assert (found.strategy, found.symbol, found.headline, found.capital) == ("s", "X", "h", 100)
    assert (found.equity, found.metrics) == ((100.0, 99.5), {"sharpe": 1})
    assert found.signals == (Signal(date="2024-01-02", action="BUY", price=7.0),)
    assert found.trades is not None
    assert found.trades[0].exit_date is None
    assert "beta" not in found.model_dump()


def test_only_equity_is_needed() -> None:
    """The rest may be missing, or null."""
    nothing = dict.fromkeys(("strategy", "symbol", "headline", "capital", "signals", "trades", "metrics"))
    assert read({"equity": [1]}) == read({"equity": [1]} | nothing)


@pytest.mark.parametrize(
    ("action", "side"),
    [
        ("BUY", Side.BUY), ("BUY_SPREAD", Side.BUY), ("buy", Side.BUY), ("SELL", Side.SELL), ("SELL_SHORT", Side.SELL),
        ("CLOSE", Side.CLOSE), ("Close_all", Side.CLOSE), ("HOLD", Side.OTHER), ("", Side.OTHER), (" BUY", Side.OTHER),
    ],
)  # fmt: skip
def test_an_action_has_a_side(action: str, side: Side) -> None:
    """By how it begins."""
    assert Signal(date="d", action=action, price=1.0).side is side


def test_a_date_may_be_the_number_of_a_bar() -> None:
    """Where data have no dates, strategies print what they count."""
    assert read({"equity": [1], "signals": [SIGNAL | {"date": 17}]}).signals == (
        Signal(date="17", action="BUY", price=7),
    )


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("hello", r"the output is not JSON \(.*\); print exactly one json.dumps\(...\) as the last line"),
        ("", r"the output is not JSON \(.*"),
        ('{"equity": [1, NaN]}', r"the output is not JSON \(NaN is not a number JSON can hold\).*"),
        ('{"equity": [1, 1e999]}', r"the output is not JSON \(1e999 is not a number JSON can hold\).*"),
        ("[" * 100_000, r"the output is not JSON \(.*"),
        ([1, 2], "the strategy printed no `equity`, one number a bar: .*"),
        (None, "the strategy printed no `equity`.*"),
        ({}, "the strategy printed no `equity`.*"),
        ({"equity": []}, "the strategy printed no `equity`.*"),
        ({"equity": None}, "the strategy printed no `equity`.*"),
        ({"equity": 1}, "the strategy's output: equity: must be a list"),
        ({"equity": "123"}, "the strategy's output: equity: must be a list"),
        ({"equity": {"0": 1}}, "the strategy's output: equity: must be a list"),
        ({"equity": [1, True]}, "the strategy's output: equity.1: Input should be a valid number"),
        ({"equity": [1, None]}, "the strategy's output: equity.1: Input should be a valid number"),
        ({"equity": ["1"] * MAX_BARS}, "the strategy's output: equity.0: Input should be a valid number"),
        ({"equity": [1, [1]]}, "the strategy's output: equity.1: Input should be a valid number"),
        ({"equity": [1, 1e308]}, r"the strategy's output: equity.1: a number beyond 1e\+100"),
        ({"equity": [1, -(10**200)]}, r"the strategy's output: equity.1: a number beyond 1e\+100"),
        ({"equity": [1, 10**4000]}, "the strategy's output: equity.1: Input should be a valid number"),
        ({"equity": [1] * (MAX_BARS + 1)}, "the strategy's output: equity: more than 200,000 of them"),
        ({"equity": [1], "capital": 0}, "the strategy's output: capital: Input should be greater than 0"),
        ({"equity": [1], "capital": True}, "the strategy's output: capital: Input should be a valid number"),
        ({"equity": [1], "strategy": 7}, "the strategy's output: strategy: Input should be a valid string"),
        ({"equity": [1], "strategy": "x" * 201}, "the strategy's output: strategy: .* at most 200 characters"),
        ({"equity": [1], "symbol": "\ud800"}, "the strategy's output: symbol: Input should be a valid string.*"),
        ({"equity": [1], "headline": "x" * 501}, "the strategy's output: headline: .* at most 500 characters"),
        ({"equity": [1], "metrics": [1]}, "the strategy's output: metrics: must be an object"),
        ({"equity": [1], "signals": {}}, "the strategy's output: signals: must be a list"),
        ({"equity": [1], "signals": ["BUY"]}, "the strategy's output: signals.0: must be an object"),
        ({"equity": [1], "signals": [SIGNAL, {}]}, "the strategy's output: signals.1.date: Field required"),
        (
            {"equity": [1], "signals": [SIGNAL] * (MAX_SIGNALS + 1)},
            "the strategy's output: signals: more than 50,000 of them",
        ),
        (
            {"equity": [1], "signals": [SIGNAL | {"date": "x" * 41}]},
            "the strategy's output: signals.0.date: a date is text of 40 characters at most, or an integer",
        ),
        ({"equity": [1], "signals": [SIGNAL | {"date": True}]}, ".*signals.0.date: a date is text.*"),
        ({"equity": [1], "signals": [SIGNAL | {"date": 10**4000}]}, ".*signals.0.date: a date is text.*"),
        ({"equity": [1], "signals": [SIGNAL | {"price": "7"}]}, ".*signals.0.price: Input should be a valid number"),
        ({"equity": [1], "trades": [{"exit_date": "x"}]}, "the strategy's output: trades.0.entry_date: Field required"),
    ],
)  # fmt: skip
def test_what_is_no_backtest(printed: Any, reason: str) -> None:
    """Is refused in one line that names the place, and repeats nothing of what was printed."""
    with pytest.raises(InvalidRequest, match=f"^r.json: {reason}$") as caught:
        read(printed)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_output_that_was_cut_says_so() -> None:
    """It is why it is no JSON."""
    with pytest.raises(InvalidRequest, match=r"; it was cut at the limit$"):
        read('{"equity": [1, 2', truncated=True)


def test_a_result_is_found_where_the_commands_put_it() -> None:
    """As `run` and `result` print it, and within what `generate` prints."""
    result = ran({"equity": [1]})
    printed: Any = json.loads(result.model_dump_json())
    assert result_of(printed, "r") == result
    attempt = Attempt(number=1, verdict=Verdict.SUCCEEDED, code="x", result=result)
    generated = Outcome(model="m", ended=Ended.SOLVED, attempts=(attempt,))
    assert result_of(json.loads(generated.model_dump_json()), "r") == result


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"not a result \(must be an object\); give what `stratbox run … --json` printed"),
        ([], r"not a result \(must be an object\); .*"),
        ({}, r"not a result \(status: Field required\); .*"),
        ({"equity": [1]}, r"not a result \(status: Field required\); .*"),
        ({"status": "won"}, r"not a result \(status: Input should be 'succeeded', .*\); .*"),
        ({"attempts": [], "result": None}, "the last attempt has no result; a report needs a strategy that succeeded"),
        ({"attempts": [], "result": 7}, r"not a result \(must be an object\); .*"),
    ],
)
def test_what_is_no_result(content: Any, reason: str) -> None:
    """Is refused in one line."""
    with pytest.raises(InvalidRequest, match=f"^r.json: {reason}$"):
        result_of(content, "r.json")


@pytest.mark.parametrize("status", [status for status in ExecutionStatus if status is not ExecutionStatus.SUCCEEDED])
def test_what_did_not_succeed(status: ExecutionStatus) -> None:
    """Has no report, whatever it printed; the line says how it ended."""
    detail = ErrorDetail(type="KeyError", message="a\nb", line=3)
    content = json.loads(ExecutionResult(status=status, error=detail, output='{"equity": [1]}').model_dump_json())
    reason = rf"the strategy ended as {status}, KeyError: a b \(line 3\); a report needs one that succeeded"
    with pytest.raises(InvalidRequest, match=f"^r: {reason}$"):
        result_of(content, "r")


def test_bars_are_read() -> None:
    """With or without dates, with gaps in the prices; other columns are left alone."""
    bars: Any = {"close": [1, None, 3.5], "date": ["a", "b", 7], "open": "?"}
    found = bars_of({"bars": bars, "symbol": 7}, "d", 3)
    assert (found.close, found.date) == ((1.0, None, 3.5), ("a", "b", "7"))
    assert bars_of({"bars": {"close": [1]}}, "d", 1).date is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "must be an object"),
        ({}, "bars: Field required"),
        ({"bars": []}, "bars: must be an object"),
        ({"bars": {"date": ["a"]}}, "bars.close: Field required"),
        ({"bars": {"close": ["1"]}}, "bars.close.0: Input should be a valid number"),
        ({"bars": {"close": [1, 2, 3]}}, "3 bars in `close`, but 2 in the equity: give the strategy's own data"),
        ({"bars": {"close": [1, 2], "date": ["a"]}}, "1 bars in `date`, but 2 in the equity: .*"),
        ({"bars": {"close": [1, 2], "date": ["a", None]}}, "bars.date.1: a date is text .*"),
    ],
)
def test_what_are_no_bars(content: Any, reason: str) -> None:
    """Is refused in one line."""
    with pytest.raises(InvalidRequest, match=f"^d.json: {reason}$"):
        bars_of(content, "d.json", 2)


def test_all_of_a_megabyte_fits() -> None:
    """The bounds are no narrower than what a strategy can print."""
    assert len("[" + "1," * backtest.MAX_BARS) < 2**20
    assert len(read({"equity": [1.0] * MAX_BARS}).equity) == MAX_BARS


@pytest.mark.parametrize("key", ["signals", "trades"])
def test_many_mistakes_cost_no_more_than_one(key: str) -> None:
    """A megabyte of wrong entries: the first is told, the others are not looked at."""
    began = time.thread_time()
    with pytest.raises(InvalidRequest, match=rf"{key}\.0: must be an object"):
        read({"equity": [1], key: [1] * MAX_SIGNALS})
    assert time.thread_time() - began < 0.5  # 0.01 s; all of them take more than a second


def test_a_result_of_a_newer_worker_is_read() -> None:
    """Without what is not known of it."""
    content = ran({"equity": [1]}).model_dump(mode="json") | {"invented_later": 1}
    assert result_of(content, "r.json").success
