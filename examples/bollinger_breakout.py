"""Bollinger breakout: follow a close above the upper band, leave at the middle band.

A breakout counts only when volume confirms it and the bands were narrow shortly before (a squeeze).
Signals are computed on the close of bar t and executed at the close of bar t+1: no lookahead.
"""

import json
import math

import numpy as np
import pandas as pd

BAND_BARS = 20
BAND_WIDTH = 2.0  # in standard deviations
SQUEEZE_BARS = 120  # "narrow" means below the median width of this many bars
SQUEEZE_MEMORY = 5  # the squeeze may have ended this many bars before the breakout
COST_RATE = 0.0005  # commission and slippage, as a share of the traded value
BARS_PER_YEAR = 252


def load_bars() -> tuple[str, pd.DataFrame]:
    """Read the price series the strategy was given."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        document = json.load(handle)
    return document["symbol"], pd.DataFrame(document["bars"])


def add_bands(bars: pd.DataFrame) -> pd.DataFrame:
    """Add the bands, the squeeze and the volume filter; every column looks back only."""
    window = bars["close"].rolling(BAND_BARS)
    middle, deviation = window.mean(), window.std(ddof=0)
    width = 2.0 * BAND_WIDTH * deviation / middle
    narrow = width < width.rolling(SQUEEZE_BARS).median()
    return bars.assign(
        middle=middle,
        upper=middle + BAND_WIDTH * deviation,
        squeezed=narrow.astype(float).rolling(SQUEEZE_MEMORY).max() > 0,
        busy=bars["volume"] > bars["volume"].rolling(BAND_BARS).mean(),
    )


def target_position(bars: pd.DataFrame) -> np.ndarray:
    """Position wanted after each close: 1 from a confirmed breakout to the middle band."""
    breakout = (bars["close"] > bars["upper"]) & bars["squeezed"] & bars["busy"]
    leave = bars["close"] < bars["middle"]
    wanted = np.select([leave, breakout], [0.0, 1.0], default=np.nan)
    return pd.Series(wanted).ffill().fillna(0.0).to_numpy()


def simulate(close: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position held after each close, and the equity curve starting at 1.0."""
    held = np.concatenate(([0.0], target[:-1]))  # decided on bar t, filled on bar t+1
    returns = np.zeros_like(close)
    returns[1:] = held[:-1] * (close[1:] / close[:-1] - 1.0)
    costs = np.abs(np.diff(held, prepend=0.0)) * COST_RATE
    return held, np.cumprod((1.0 + returns) * (1.0 - costs))


def list_signals(bars: pd.DataFrame, held: np.ndarray) -> list[dict]:
    """List every fill with its date and price."""
    change = np.diff(held, prepend=0.0)
    steps = change[change != 0.0]
    fills = bars.loc[change != 0.0, ["date", "close"]]
    return [
        {"date": date, "action": "BUY" if step > 0 else "SELL", "price": round(float(price), 2)}
        for date, price, step in zip(fills["date"], fills["close"], steps, strict=True)
    ]


def measure(equity: np.ndarray, close: np.ndarray, held: np.ndarray, signals: list[dict]) -> dict:
    """Summarise the run; max_drawdown is negative, returns are fractions."""
    daily = equity[1:] / equity[:-1] - 1.0
    deviation = float(daily.std(ddof=1))
    sharpe = float(daily.mean()) / deviation * math.sqrt(BARS_PER_YEAR) if deviation > 0 else 0.0
    prices = [signal["price"] for signal in signals]
    kept = (1.0 - COST_RATE) ** 2
    # Fills alternate BUY, SELL, BUY, …; an unmatched last BUY is a position still open.
    round_trips = zip(prices[0::2], prices[1::2], strict=False)
    trades = [sell / buy * kept - 1.0 for buy, sell in round_trips]
    return {
        "total_return": round(float(equity[-1]) - 1.0, 6),
        "annual_return": round(float(equity[-1]) ** (BARS_PER_YEAR / len(equity)) - 1.0, 6),
        "sharpe": round(sharpe, 4),
        "max_drawdown": round(float((equity / np.maximum.accumulate(equity) - 1.0).min()), 6),
        "trades": len(trades),
        "win_rate": round(sum(t > 0 for t in trades) / len(trades), 4) if trades else 0.0,
        "average_trade": round(sum(trades) / len(trades), 6) if trades else 0.0,
        "exposure": round(float(held.mean()), 4),
        "buy_and_hold_return": round(float(close[-1] / close[0]) - 1.0, 6),
    }


def main() -> None:
    """Run the backtest and print its result as one JSON object."""
    symbol, raw_bars = load_bars()
    bars = add_bands(raw_bars)
    close = bars["close"].to_numpy(dtype=float)
    held, equity = simulate(close, target_position(bars))
    signals = list_signals(bars, held)
    metrics = measure(equity, close, held, signals)
    result = {
        "strategy": "bollinger_breakout",
        "symbol": symbol,
        "bars": len(bars),
        "signals": signals,
        "equity": np.round(equity, 6).tolist(),
        "metrics": metrics,
        "headline": (
            f"return {metrics['total_return']:+.1%}, Sharpe {metrics['sharpe']:.2f}, {metrics['trades']} trades"
        ),
    }
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
