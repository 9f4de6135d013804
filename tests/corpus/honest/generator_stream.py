import json


def stream():
    for bar in json.load(open("/workspace/data.json"))["bars"]:
        yield bar["time"], bar["close"]


def ema(source, n):
    value = None
    k = 2 / (n + 1)
    for time, price in source:
        value = price if value is None else price * k + value * (1 - k)
        yield time, value


def both():
    yield from ema(stream(), 10)


last = None
for last in both():
    pass
print(last)
