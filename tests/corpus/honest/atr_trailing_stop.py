import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
previous = df["close"].shift()
tr = pd.concat([df["high"] - df["low"], (df["high"] - previous).abs(), (df["low"] - previous).abs()], axis=1).max(axis=1)
atr = tr.rolling(14, min_periods=1).mean()
stop, exits = None, []
for i, (price, width) in enumerate(zip(df["close"], atr)):
    candidate = price - 2.5 * width
    stop = candidate if stop is None else max(stop, candidate)
    if price < stop:
        exits.append(i)
        stop = None
print(len(exits), f"{atr.iloc[-1]:.4f}")
