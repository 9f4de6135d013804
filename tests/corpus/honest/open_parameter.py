import json

import numpy as np


def true_range(open, high, low, close):
    """Average true range of one bar; open is only used for gaps."""
    gap = abs(open - close)
    return max(high - low, gap)


def is_bullish(open: float, close: float, *, threshold: float = 0.0) -> bool:
    return close > open * (1 + threshold)


with open("/workspace/data.json") as f:
    rows = json.load(f)["bars"]
ranges = [true_range(r["open"], r["high"], r["low"], r["close"]) for r in rows]
bullish = [is_bullish(r["open"], r["close"]) for r in rows]
moves = [(lambda open, close: close - open)(r["open"], r["close"]) for r in rows]
print(np.mean(ranges).round(4), sum(bullish), round(sum(moves), 4))
print(sum(close > open for open, close in ((r["open"], r["close"]) for r in rows)))
