import json


class NotEnoughData(ValueError):
    """Raised where an indicator needs more bars."""

    def __init__(self, need, have):
        super().__init__(f"need {need} bars, have {have}")
        self.need, self.have = need, have


def sma(values, n):
    if len(values) < n:
        raise NotEnoughData(n, len(values))
    return sum(values[-n:]) / n


close = [b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]
for n in (5, 10_000):
    try:
        print(n, sma(close, n))
    except NotEnoughData as exc:
        print(f"{type(exc).__name__}: {exc} ({exc.need - exc.have} short)")
