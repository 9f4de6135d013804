from abc import ABC, abstractmethod
import json


class Strategy(ABC):
    """Base of all strategies."""

    name = "base"

    def __init__(self, **params):
        self._params = dict(params)

    @abstractmethod
    def signal(self, closes: list[float]) -> int:
        """Return -1, 0 or 1."""

    def _normalise(self, value):
        return max(-1, min(1, int(value)))

    def __call__(self, closes):
        return self._normalise(self.signal(closes))


class Momentum(Strategy):
    name = "momentum"

    def __init__(self, lookback=10):
        super().__init__(lookback=lookback)

    def signal(self, closes):
        return (closes[-1] > closes[-self._params["lookback"]]) * 2 - 1

    def _normalise(self, value):
        return super()._normalise(value)


class Reversal(Momentum):
    name = "reversal"

    def signal(self, closes):
        return -super().signal(closes)


closes = [b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]
for strategy in (Momentum(), Reversal(5)):
    print(strategy.name, strategy(closes))
