import json
from enum import Enum, auto


class Signal(Enum):
    BUY = auto()
    SELL = auto()
    HOLD = auto()

    def __str__(self):
        return self.name.lower()


def decide(previous: float, current: float) -> Signal:
    change = current / previous - 1
    if change > 0.005:
        return Signal.BUY
    if change < -0.005:
        return Signal.SELL
    return Signal.HOLD


data = json.load(open("/workspace/data.json"))
prices = [b["close"] for b in data["bars"]]
counts = {signal: 0 for signal in Signal}
for a, b in zip(prices, prices[1:]):
    counts[decide(a, b)] += 1
print(", ".join(f"{signal}: {n}" for signal, n in counts.items()))
