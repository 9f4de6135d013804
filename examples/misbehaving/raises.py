"""Low-volatility timing on dividend-adjusted prices, from data that has no such column."""

import json

import numpy as np
import pandas as pd

VOLATILITY_BARS = 20
RANK_BARS = 252
CALM_QUANTILE = 0.6


def load_bars() -> tuple[str, pd.DataFrame]:
    """Read the price series the strategy was given, indexed by date."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        document = json.load(handle)
    return document["symbol"], pd.DataFrame(document["bars"]).set_index("date")


def total_returns(bars: pd.DataFrame) -> pd.Series:
    """Daily returns with dividends reinvested."""
    return bars["adj_close"].pct_change().fillna(0.0)


def add_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Add returns, realised volatility and whether the market counts as calm."""
    returns = total_returns(bars)
    volatility = returns.rolling(VOLATILITY_BARS).std() * np.sqrt(252)
    threshold = volatility.rolling(RANK_BARS).quantile(CALM_QUANTILE)
    return bars.assign(returns=returns, volatility=volatility, calm=volatility < threshold)


def run_backtest(bars: pd.DataFrame) -> pd.Series:
    """Equity of being invested in calm markets only."""
    features = add_features(bars)
    # Decided on the close of bar t, filled at the close of bar t+1: no lookahead.
    held = features["calm"].astype(float).shift(2).fillna(0.0)
    return (1.0 + held * features["returns"]).cumprod()


def main() -> None:
    """Run the backtest and print its total return."""
    symbol, bars = load_bars()
    print(f"loaded {len(bars)} bars of {symbol}", flush=True)
    equity = run_backtest(bars)
    total_return = round(float(equity.iloc[-1]) - 1.0, 6)
    print(json.dumps({"strategy": "low_volatility_timing", "total_return": total_return}))


if __name__ == "__main__":
    main()
