"""Pairs trading: bet that the spread between two related indices returns to its mean.

The hedge ratio and the z-score come from a rolling regression of log prices over past bars only. A
decision taken on the close of bar t is filled on both legs at the close of bar t+1: no lookahead.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

LOOKBACK_BARS = 120
ENTRY_Z = 2.0
EXIT_Z = 0.5
STOP_Z = 4.0  # a spread this wide is no longer noise: the relation has broken
MAX_HOLDING_BARS = 60
COST_RATE = 0.0002  # commission and slippage per leg, as a share of its traded value
BARS_PER_YEAR = 252


@dataclass
class Position:
    """An open spread: fractions of equity at entry, long positive and short negative."""

    side: int
    asset_weight: float
    peer_weight: float
    asset_price: float
    peer_price: float
    equity: float
    bars_held: int = 0

    def value(self, asset_price: float, peer_price: float) -> float:
        """Equity at these prices, before the cost of getting out."""
        asset_gain = self.asset_weight * (asset_price / self.asset_price - 1.0)
        peer_gain = self.peer_weight * (peer_price / self.peer_price - 1.0)
        return self.equity * (1.0 + asset_gain + peer_gain)

    def exit_cost(self, asset_price: float, peer_price: float) -> float:
        """Cost of closing both legs, in units of equity."""
        asset_traded = abs(self.asset_weight) * asset_price / self.asset_price
        peer_traded = abs(self.peer_weight) * peer_price / self.peer_price
        return self.equity * COST_RATE * (asset_traded + peer_traded)


def load_pair() -> tuple[str, pd.DataFrame]:
    """Read both legs, matched by date; the peer is traded against the first series."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        document = json.load(handle)
    peer = document["peer"]
    hedge = pd.DataFrame(document["bars"])[["date", "close"]]
    asset = pd.DataFrame(peer["bars"])[["date", "close"]]
    pair = asset.merge(hedge, on="date", suffixes=("_asset", "_peer"))
    pair = pair.rename(columns={"close_asset": "asset", "close_peer": "peer"})
    return f"{peer['symbol']}/{document['symbol']}", pair


def add_spread(pair: pd.DataFrame) -> pd.DataFrame:
    """Add the rolling hedge ratio and the z-score of the latest regression residual."""
    asset, peer = np.log(pair["asset"]), np.log(pair["peer"])
    variance = peer.rolling(LOOKBACK_BARS).var()
    covariance = asset.rolling(LOOKBACK_BARS).cov(peer)
    ratio = covariance / variance
    peer_move = peer - peer.rolling(LOOKBACK_BARS).mean()
    expected = asset.rolling(LOOKBACK_BARS).mean() + ratio * peer_move
    # Variance of the residuals of a one-variable least squares fit, without refitting each window.
    residual_variance = asset.rolling(LOOKBACK_BARS).var() - ratio * covariance
    z_score = (asset - expected) / np.sqrt(residual_variance.clip(lower=1e-12))
    return pair.assign(ratio=ratio, z_score=z_score)


def next_order(z_score: float, position: Position | None) -> str | None:
    """Decide on one close what to do on the next: a spread order, a close, or nothing."""
    if math.isnan(z_score):
        return None
    if position is None:
        if ENTRY_Z < abs(z_score) < STOP_Z:
            return "SELL_SPREAD" if z_score > 0 else "BUY_SPREAD"
        return None
    reverted = -position.side * z_score < EXIT_Z
    broken = abs(z_score) > STOP_Z
    stale = position.bars_held >= MAX_HOLDING_BARS
    return "CLOSE" if reverted or broken or stale else None


def open_position(action: str, bar: dict, ratio: float, equity: float) -> Position:
    """Open both legs so that together they use the equity once."""
    side = 1 if action == "BUY_SPREAD" else -1
    gross = 1.0 + abs(ratio)
    return Position(
        side=side,
        asset_weight=side / gross,
        peer_weight=-side * ratio / gross,
        asset_price=bar["asset"],
        peer_price=bar["peer"],
        equity=equity * (1.0 - COST_RATE),
    )


def run_backtest(pair: pd.DataFrame) -> tuple[list[float], list[dict], list[float]]:
    """Return the equity at each close, the fills, and the net return of each round trip."""
    equity, entry_equity = 1.0, 1.0
    curve: list[float] = []
    signals: list[dict] = []
    trades: list[float] = []
    position: Position | None = None
    order: str | None = None
    order_ratio = 0.0
    for bar in pair.to_dict(orient="records"):
        if position is not None:
            position.bars_held += 1
            equity = position.value(bar["asset"], bar["peer"])
        if order == "CLOSE" and position is not None:
            equity -= position.exit_cost(bar["asset"], bar["peer"])
            trades.append(equity / entry_equity - 1.0)
            position = None
        elif order is not None:
            entry_equity = equity
            position = open_position(order, bar, order_ratio, equity)
            equity = position.equity
        if order is not None:
            price = round(bar["asset"] / bar["peer"], 6)
            signals.append({"date": bar["date"], "action": order, "price": price})
        curve.append(equity)
        order, order_ratio = next_order(bar["z_score"], position), bar["ratio"]
    return curve, signals, trades


def measure(curve: list[float], trades: list[float], pair: pd.DataFrame) -> dict:
    """Summarise the run; max_drawdown is negative, returns are fractions."""
    equity = pd.Series(curve)
    daily = equity.pct_change().dropna()
    deviation = float(daily.std())
    sharpe = float(daily.mean()) / deviation * math.sqrt(BARS_PER_YEAR) if deviation > 0 else 0.0
    market = daily.corr(pair["peer"].pct_change()) if deviation > 0 else 0.0
    return {
        "total_return": round(curve[-1] - 1.0, 6),
        "annual_return": round(curve[-1] ** (BARS_PER_YEAR / len(curve)) - 1.0, 6),
        "sharpe": round(sharpe, 4),
        "max_drawdown": round(float((equity / equity.cummax() - 1.0).min()), 6),
        "trades": len(trades),
        "win_rate": round(sum(t > 0 for t in trades) / len(trades), 4) if trades else 0.0,
        "market_correlation": round(float(market), 4),
    }


def main() -> None:
    """Run the backtest and print its result as one JSON object."""
    symbol, prices = load_pair()
    pair = add_spread(prices)
    curve, signals, trades = run_backtest(pair)
    metrics = measure(curve, trades, pair)
    result = {
        "strategy": "pairs_trading",
        "symbol": symbol,
        "bars": len(pair),
        "signals": signals,
        "equity": [round(value, 6) for value in curve],
        "metrics": metrics,
        "headline": (
            f"return {metrics['total_return']:+.1%}, Sharpe {metrics['sharpe']:.2f}, {metrics['trades']} trades"
        ),
    }
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
