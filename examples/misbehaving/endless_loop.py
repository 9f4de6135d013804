"""Walk-forward momentum: pick the best lookback on one window, trade it on the next."""

import json
import math

import numpy as np

TRAIN_BARS = 252
TEST_BARS = 126
LOOKBACKS = (20, 60, 120)
BARS_PER_YEAR = 252


def load_closes() -> tuple[list[str], np.ndarray]:
    """Read dates and closing prices."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        bars = json.load(handle)["bars"]
    return bars["date"], np.array(bars["close"], dtype=float)


def momentum_returns(closes: np.ndarray, lookback: int) -> np.ndarray:
    """Daily returns of being long while the price is above where it was a lookback ago."""
    # The position decided on bar t earns the return from bar t+1 to bar t+2: no lookahead.
    invested = closes[lookback:-2] > closes[: -lookback - 2]
    daily = closes[lookback + 2 :] / closes[lookback + 1 : -1] - 1.0
    return invested * daily


def sharpe(returns: np.ndarray) -> float:
    """Annualised Sharpe ratio at a zero risk-free rate."""
    deviation = float(returns.std())
    return float(returns.mean()) / deviation * math.sqrt(BARS_PER_YEAR) if deviation > 0 else 0.0


def main() -> None:
    """Walk the windows forward and print the compounded result."""
    dates, closes = load_closes()
    print(f"walk-forward over {len(closes)} bars, {dates[0]} to {dates[-1]}", flush=True)
    equity = 1.0
    start = 0
    while start + TRAIN_BARS + TEST_BARS <= len(closes):
        train = closes[start : start + TRAIN_BARS]
        scores = {lookback: sharpe(momentum_returns(train, lookback)) for lookback in LOOKBACKS}
        best = max(scores, key=scores.get)
        if scores[best] <= 0:
            continue  # no lookback worked in this window: stay in cash
        test = closes[start + TRAIN_BARS - best : start + TRAIN_BARS + TEST_BARS]
        equity *= float(np.prod(1.0 + momentum_returns(test, best)))
        print(f"{dates[start + TRAIN_BARS]}: lookback {best}, equity {equity:.3f}", flush=True)
        start += TEST_BARS
    print(json.dumps({"strategy": "walk_forward_momentum", "total_return": equity - 1.0}))


if __name__ == "__main__":
    main()
