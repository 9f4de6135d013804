import json
from itertools import product
from typing import Tuple
import numpy as np


def score(close: np.ndarray, pair: Tuple[int, int]) -> float:
    fast, slow = pair
    kernel = lambda n: np.convolve(close, np.ones(n) / n, mode="full")[:close.size]
    position = np.sign(kernel(fast) - kernel(slow))[:-1]
    return float((position * np.diff(close))[slow:].sum())


close = np.asarray([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]], dtype=np.float64)
results = {pair: score(close, pair) for pair in product([3, 5, 8], [13, 21]) if pair[0] < pair[1]}
best = max(results, key=results.get)
print(best, round(results[best], 3), sep=" -> ")
