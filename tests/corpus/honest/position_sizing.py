import json
from dataclasses import dataclass, replace
from functools import cached_property, partial


@dataclass(order=True)
class Position:
    size: float
    price: float = 0.0

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size must not be negative")

    def value(self) -> float:
        return self.size * self.price


class Account:
    def __init__(self, equity):
        self.equity = equity
        self._history = [equity]

    @cached_property
    def risk(self):
        return self.equity * 0.01

    @property
    def last(self):
        return self._history[-1]

    @last.setter
    def last(self, value):
        self._history.append(value)


def size_for(stop, equity, price):
    return equity * 0.01 / (price - stop)


price = json.load(open("/workspace/data.json"))["bars"][-1]["close"]
account = Account(10_000)
sized = partial(size_for, equity=account.equity, price=price)
position = replace(Position(sized(price * 0.98)), price=price)
account.last = account.equity - position.value() * 0.001
print(position > Position(0), round(account.risk), account.last < account.equity)
