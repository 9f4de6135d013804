"""A backtest with dataclasses."""
import json
from dataclasses import asdict, dataclass, field
from typing import List


@dataclass(frozen=True)
class Bar:
    time: str
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass
class Trade:
    entry: float
    exit: float = 0.0

    @property
    def pnl(self) -> float:
        return self.exit - self.entry


@dataclass
class Backtest:
    cash: float = 10_000.0
    trades: List[Trade] = field(default_factory=list)
    in_position: bool = False

    def step(self, bar: Bar, previous: Bar) -> None:
        if not self.in_position and bar.close > previous.high:
            self.trades.append(Trade(entry=bar.close))
            self.in_position = True
        elif self.in_position and bar.close < previous.low:
            self.trades[-1].exit = bar.close
            self.in_position = False


with open("/workspace/data.json") as f:
    bars = [Bar(**row) for row in json.load(f)["bars"]]
test = Backtest()
for previous, bar in zip(bars, bars[1:]):
    test.step(bar, previous)
closed = [t for t in test.trades if t.exit]
print(f"{len(closed)} trades, PnL {sum(t.pnl for t in closed):.2f}")
print([asdict(t) for t in closed[:2]])
