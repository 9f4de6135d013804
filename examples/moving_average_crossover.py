"""Moving average crossover, backtested bar by bar with cash, whole shares and costs.

An order is decided on the close of bar t and filled at the close of bar t+1: the loop fills what
the previous bar ordered *before* it looks at the current averages, so it cannot look ahead.
"""

import json
import math
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd

FAST_BARS = 50
SLOW_BARS = 200
INITIAL_CAPITAL = 100_000.0
COMMISSION_PER_SHARE = 0.005
MINIMUM_COMMISSION = 1.0
SLIPPAGE_RATE = 0.0003  # a market order pays this much more, or receives this much less
BARS_PER_YEAR = 252


@dataclass
class Trade:
    """One round trip; the exit fields are empty while it is open."""

    entry_date: str
    entry_price: float
    shares: int
    commission: float
    exit_date: str | None = None
    exit_price: float | None = None
    profit: float | None = None


@dataclass
class Account:
    """Cash, the position, and what has been traded so far."""

    cash: float
    shares: int = 0
    trades: list[Trade] = field(default_factory=list)
    signals: list[dict] = field(default_factory=list)

    def value(self, price: float) -> float:
        """Worth of cash and position at a price."""
        return self.cash + self.shares * price

    def buy(self, date: str, price: float) -> None:
        """Put all cash into whole shares."""
        fill = price * (1.0 + SLIPPAGE_RATE)
        # Reserve the commission first, so that cash never turns negative.
        shares = int((self.cash - MINIMUM_COMMISSION) / (fill + COMMISSION_PER_SHARE))
        if shares <= 0:
            return
        fee = commission(shares)
        self.cash -= shares * fill + fee
        self.shares = shares
        self.trades.append(Trade(date, round(fill, 2), shares, fee))
        self.signals.append({"date": date, "action": "BUY", "price": round(fill, 2)})

    def sell(self, date: str, price: float) -> None:
        """Close the whole position."""
        fill = price * (1.0 - SLIPPAGE_RATE)
        fee = commission(self.shares)
        trade = self.trades[-1]
        trade.commission += fee
        trade.exit_date, trade.exit_price = date, round(fill, 2)
        gross = (trade.exit_price - trade.entry_price) * trade.shares
        trade.profit = round(gross - trade.commission, 2)
        self.cash += self.shares * fill - fee
        self.shares = 0
        self.signals.append({"date": date, "action": "SELL", "price": round(fill, 2)})


def commission(shares: int) -> float:
    """Broker's fee for one order."""
    return max(MINIMUM_COMMISSION, shares * COMMISSION_PER_SHARE)


def load_bars() -> tuple[str, pd.DataFrame]:
    """Read the price series the strategy was given."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        document = json.load(handle)
    return document["symbol"], pd.DataFrame(document["bars"])


def wanted_positions(close: pd.Series) -> list[bool]:
    """Whether to be invested after each close: the fast average is above the slow one."""
    fast = close.rolling(FAST_BARS).mean()
    slow = close.rolling(SLOW_BARS).mean()
    # While the slow average is incomplete the comparison with NaN is False: stay out.
    return (fast > slow).tolist()


def run_backtest(bars: pd.DataFrame) -> tuple[Account, list[float]]:
    """Walk through the bars once; return the account and its value at each close."""
    account = Account(cash=INITIAL_CAPITAL)
    equity: list[float] = []
    pending: str | None = None
    wanted = wanted_positions(bars["close"])
    for date, close, invest in zip(bars["date"], bars["close"].tolist(), wanted, strict=True):
        if pending == "BUY":
            account.buy(date, close)
        elif pending == "SELL":
            account.sell(date, close)
        equity.append(account.value(close))
        invested = account.shares > 0
        if invest and not invested:
            pending = "BUY"
        elif invested and not invest:
            pending = "SELL"
        else:
            pending = None
    return account, equity


def measure(equity: list[float], closes: pd.Series, trades: list[Trade]) -> dict:
    """Summarise the run; max_drawdown is negative, returns are fractions."""
    curve = np.array(equity)
    daily = curve[1:] / curve[:-1] - 1.0
    deviation = float(daily.std(ddof=1))
    sharpe = float(daily.mean()) / deviation * math.sqrt(BARS_PER_YEAR) if deviation > 0 else 0.0
    profits = [trade.profit for trade in trades if trade.profit is not None]
    growth = float(curve[-1]) / INITIAL_CAPITAL
    return {
        "total_return": round(growth - 1.0, 6),
        "annual_return": round(growth ** (BARS_PER_YEAR / len(curve)) - 1.0, 6),
        "sharpe": round(sharpe, 4),
        "max_drawdown": round(float((curve / np.maximum.accumulate(curve) - 1.0).min()), 6),
        "trades": len(profits),
        "win_rate": round(sum(p > 0 for p in profits) / len(profits), 4) if profits else 0.0,
        "commission_paid": round(sum(trade.commission for trade in trades), 2),
        "buy_and_hold_return": round(float(closes.iloc[-1] / closes.iloc[0]) - 1.0, 6),
    }


def main() -> None:
    """Run the backtest and print its result as one JSON object."""
    symbol, bars = load_bars()
    account, equity = run_backtest(bars)
    metrics = measure(equity, bars["close"], account.trades)
    result = {
        "strategy": "moving_average_crossover",
        "symbol": symbol,
        "bars": len(bars),
        "capital": INITIAL_CAPITAL,
        "signals": account.signals,
        "trades": [asdict(trade) for trade in account.trades],
        "equity": [round(value, 2) for value in equity],
        "metrics": metrics,
        "headline": (
            f"return {metrics['total_return']:+.1%}, Sharpe {metrics['sharpe']:.2f}, {metrics['trades']} trades"
        ),
    }
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
