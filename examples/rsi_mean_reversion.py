"""RSI mean reversion: buy an oversold index, sell once it has recovered.

Signals are computed on the close of bar t and executed at the close of bar t+1, so no decision ever
sees a price it could not have known. (The early opens of this series merely repeat the previous
close; filling there would be filling at the price that gave the signal.)
"""

import json
import math

import numpy as np
import pandas as pd

RSI_PERIOD = 14
OVERSOLD = 30.0
RECOVERED = 55.0
COST_RATE = 0.0005  # commission and slippage, as a share of the traded value
BARS_PER_YEAR = 252


def load_bars() -> tuple[str, pd.DataFrame]:
    """Read the price series the strategy was given."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        document = json.load(handle)
    return document["symbol"], pd.DataFrame(document["bars"])


def wilder_average(values: pd.Series, period: int) -> pd.Series:
    """Average as Wilder did: a plain mean first, then smoothed with weight 1/period."""
    seeded = values.copy()
    seeded.iloc[:period] = np.nan
    seeded.iloc[period] = values.iloc[1 : period + 1].mean()
    return seeded.ewm(alpha=1.0 / period, adjust=False).mean()


def wilder_rsi(close: pd.Series, period: int) -> pd.Series:
    """Relative strength index, 0 to 100; NaN while the first average is not complete."""
    change = close.diff()
    gain = wilder_average(change.clip(lower=0.0), period)
    loss = wilder_average(-change.clip(upper=0.0), period)
    # gain / (gain + loss) equals 1 - 1 / (1 + RS) and needs no special case for loss == 0.
    return 100.0 * gain / (gain + loss).replace(0.0, np.nan)


def target_position(rsi: pd.Series) -> pd.Series:
    """Position wanted after each close: 1 from oversold until recovered, else 0."""
    wanted = pd.Series(np.nan, index=rsi.index)
    wanted[rsi < OVERSOLD] = 1.0
    wanted[rsi > RECOVERED] = 0.0
    return wanted.ffill().fillna(0.0)


def simulate(close: pd.Series, target: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return the position held after each close, and the equity curve starting at 1.0."""
    held = target.shift(1, fill_value=0.0)  # decided on bar t, filled at the close of bar t+1
    returns = held.shift(1, fill_value=0.0) * close.pct_change().fillna(0.0)
    costs = held.diff().abs().fillna(0.0) * COST_RATE
    return held, ((1.0 + returns) * (1.0 - costs)).cumprod()


def list_signals(dates: pd.Series, close: pd.Series, held: pd.Series) -> list[dict]:
    """List every fill with its date and price."""
    change = held.diff().fillna(0.0)
    return [
        {
            "date": dates[bar],
            "action": "BUY" if change[bar] > 0 else "SELL",
            "price": round(float(close[bar]), 2),
        }
        for bar in change.index[change != 0.0]
    ]


def trade_returns(signals: list[dict]) -> list[float]:
    """Net return of each completed round trip."""
    buys = [signal["price"] for signal in signals if signal["action"] == "BUY"]
    sells = [signal["price"] for signal in signals if signal["action"] == "SELL"]
    kept = (1.0 - COST_RATE) ** 2
    # A last BUY without its SELL is a position still open: not strict.
    return [sell / buy * kept - 1.0 for buy, sell in zip(buys, sells, strict=False)]


def measure(equity: pd.Series, close: pd.Series, held: pd.Series, trades: list[float]) -> dict:
    """Summarise the run; max_drawdown is negative, returns are fractions."""
    daily = equity.pct_change().dropna()
    deviation = float(daily.std())
    sharpe = float(daily.mean()) / deviation * math.sqrt(BARS_PER_YEAR) if deviation > 0 else 0.0
    years = len(equity) / BARS_PER_YEAR
    return {
        "total_return": round(float(equity.iloc[-1]) - 1.0, 6),
        "annual_return": round(float(equity.iloc[-1]) ** (1.0 / years) - 1.0, 6),
        "sharpe": round(sharpe, 4),
        "max_drawdown": round(float((equity / equity.cummax() - 1.0).min()), 6),
        "trades": len(trades),
        "win_rate": round(float(np.mean(np.array(trades) > 0)), 4) if trades else 0.0,
        "exposure": round(float(held.mean()), 4),
        "buy_and_hold_return": round(float(close.iloc[-1] / close.iloc[0]) - 1.0, 6),
    }


def main() -> None:
    """Run the backtest and print its result as one JSON object."""
    symbol, bars = load_bars()
    close = bars["close"]
    held, equity = simulate(close, target_position(wilder_rsi(close, RSI_PERIOD)))
    signals = list_signals(bars["date"], close, held)
    metrics = measure(equity, close, held, trade_returns(signals))
    result = {
        "strategy": "rsi_mean_reversion",
        "symbol": symbol,
        "bars": len(bars),
        "signals": signals,
        "equity": [round(float(value), 6) for value in equity],
        "metrics": metrics,
        "headline": (
            f"return {metrics['total_return']:+.1%}, Sharpe {metrics['sharpe']:.2f}, {metrics['trades']} trades"
        ),
    }
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
