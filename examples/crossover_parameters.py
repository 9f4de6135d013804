"""Moving average crossover whose two lengths are parameters, for `stratbox sweep`.

It is invested while the fast average is above the slow one. A position decided on the close of bar
t earns from the close of bar t+1 on, so it cannot look ahead. It prints numbers only: a sweep reads
them, and a curve for each of a thousand runs would be in its way.
"""

import json
import math

import pandas as pd

COST_RATE = 0.0005  # commission and slippage, as a share of what is traded
BARS_PER_YEAR = 252


def positions(close: pd.Series, fast_bars: int, slow_bars: int) -> pd.Series:
    """Whether to be invested after each close; while the slow average is incomplete, not."""
    fast = close.rolling(fast_bars).mean()
    slow = close.rolling(slow_bars).mean()
    return (fast > slow).astype(float)


def backtest(close: pd.Series, invested: pd.Series) -> pd.Series:
    """Return of each bar, costs deducted; the first has none."""
    held = invested.shift(2, fill_value=0.0)
    traded = held.diff().abs().fillna(0.0)
    return held * close.pct_change().fillna(0.0) - traded * COST_RATE


def measure(returns: pd.Series, invested: pd.Series) -> dict:
    """Summarise the run; max_drawdown is negative, returns are fractions."""
    equity = (1.0 + returns).cumprod()
    deviation = float(returns.std())
    sharpe = float(returns.mean()) / deviation * math.sqrt(BARS_PER_YEAR) if deviation > 0 else 0.0
    return {
        "total_return": round(float(equity.iloc[-1]) - 1.0, 6),
        "sharpe": round(sharpe, 4),
        "max_drawdown": round(float((equity / equity.cummax() - 1.0).min()), 6),
        "trades": int((invested.diff() < 0).sum()),
    }


def main() -> None:
    """Run the backtest with the lengths in the data and print what came of it as one JSON object."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        document = json.load(handle)
    params = document.get("params", {"fast": 50, "slow": 200})
    if params["fast"] >= params["slow"]:
        message = f"fast ({params['fast']}) must be below slow ({params['slow']})"
        raise ValueError(message)
    close = pd.Series(document["bars"]["close"])
    invested = positions(close, params["fast"], params["slow"])
    metrics = measure(backtest(close, invested), invested)
    result = {
        "strategy": "crossover_parameters",
        "symbol": document["symbol"],
        "bars": len(close),
        "params": params,
        "metrics": metrics,
        "headline": (
            f"return {metrics['total_return']:+.1%}, Sharpe {metrics['sharpe']:.2f}, {metrics['trades']} trades"
        ),
    }
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
