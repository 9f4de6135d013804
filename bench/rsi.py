"""The strategy that every contender runs: a relative strength index over 250 bars, one line of JSON."""

import json

import pandas as pd

OVERSOLD, OVERBOUGHT = 30, 70

with open("/workspace/data.json", encoding="utf-8") as handle:
    close = pd.Series(json.load(handle)["close"])
change = close.diff()
gain = change.clip(lower=0.0).ewm(alpha=1 / 14, adjust=False).mean()
loss = (-change.clip(upper=0.0)).ewm(alpha=1 / 14, adjust=False).mean()
rsi = 100 - 100 / (1 + gain / loss)
extreme = (rsi < OVERSOLD) | (rsi > OVERBOUGHT)
signals = [(int(bar), "BUY" if rsi[bar] < OVERSOLD else "SELL") for bar in rsi.index[extreme]]
print(json.dumps({"last": round(float(rsi.iloc[-1]), 6), "signals": signals}))
