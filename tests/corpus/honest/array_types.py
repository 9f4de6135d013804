"""np.ndarray in every place where typed code names it, and arrays that grow."""

import json
from dataclasses import dataclass, field
from typing import Callable, Optional, TypeAlias, Union

import numpy as np
import pandas as pd

Array = np.ndarray
Matrix: TypeAlias = np.ndarray
Values = Union[pd.Series, np.ndarray]
Rule = Callable[[np.ndarray], float]
Either = pd.Series | np.ndarray


@dataclass
class Signals:
    close: np.ndarray
    weights: Optional[np.ndarray] = None
    history: list[np.ndarray] = field(default_factory=list)


def column(values: Matrix, index: int) -> Array:
    return values[:, index]


def to_array(values: Values) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else np.asarray(values)


def split(values: Array, rule: Rule, buffer: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    limit = rule(values) * (1 + buffer)
    return values[values > limit], values[values <= limit]


data = json.load(open("/workspace/data.json"))
close = pd.Series([bar["close"] for bar in data["bars"]])
close.name = "close"
signals = Signals(to_array(close))
high, low = split(signals.close, np.mean, buffer=0.0)
signals.history.append(high)

grown = np.zeros(2)
grown.resize(4)
print(type(grown) is np.ndarray, isinstance(grown, (list, np.ndarray)), grown.shape, np.resize([1, 2], 3))
match signals.close:
    case np.ndarray():
        print(close.name, len(high) + len(low), column(np.eye(2), 0), np.random.default_rng(7).integers(0, 9, 3))
