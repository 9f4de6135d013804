import json
import numpy as np
import pandas as pd

close = pd.Series([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]])


def slope(values):
    x = np.arange(len(values))
    return np.polyfit(x, values, 1)[0]


trend = close.rolling(10).apply(slope, raw=True)
rank = close.rolling(20).apply(lambda w: (w.iloc[-1] > w).mean())
print(trend.dropna().iloc[-1].round(6), rank.dropna().mean().round(4))
