import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
patterns = []
for i, row in df.iterrows():
    open, high, low, close = row["open"], row["high"], row["low"], row["close"]
    body = abs(close - open)
    span = high - low
    if span > 0 and body / span < 0.1:
        patterns.append((i, "doji"))
    elif close > open and (open - low) > 2 * body:
        patterns.append((i, "hammer"))
print(len(patterns), patterns[:3])
