"""Moving-average crossover, the first thing everybody writes."""
import json

import pandas as pd

with open("/workspace/data.json") as f:
    data = json.load(f)

df = pd.DataFrame(data["bars"])
df["fast"] = df["close"].rolling(window=5).mean()
df["slow"] = df["close"].rolling(window=20).mean()
df["signal"] = 0
df.loc[df["fast"] > df["slow"], "signal"] = 1
df.loc[df["fast"] < df["slow"], "signal"] = -1
print(f"last signal: {df['signal'].iloc[-1]:+d}, close {df['close'].iloc[-1]:,.2f}")
