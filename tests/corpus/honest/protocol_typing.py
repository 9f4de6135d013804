from __future__ import annotations

import json
from typing import Callable, Final, Iterable, Literal, Protocol, TypedDict, TypeVar

Side = Literal["long", "short", "flat"]
T = TypeVar("T")
FEE: Final[float] = 0.001


class Bar(TypedDict):
    close: float
    volume: float


class Rule(Protocol):
    def __call__(self, bars: list[Bar]) -> Side: ...


def trend(bars: list[Bar]) -> Side:
    return "long" if bars[-1]["close"] > bars[0]["close"] else "short"


def first(items: Iterable[T], default: T) -> T:
    return next(iter(items), default)


rules: dict[str, Rule | Callable[[list[Bar]], Side]] = {"trend": trend}
bars: list[Bar] = json.load(open("/workspace/data.json"))["bars"]
print({name: rule(bars) for name, rule in rules.items()}, first([], 3), FEE)
