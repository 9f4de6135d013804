import json
import numpy as np
import pandas as pd

INDICATORS = {"mom": lambda s: s.diff(5), "vol": lambda s: s.pct_change().rolling(10).std()}


def compute(df, functions):
    return pd.DataFrame({name: fn(df["close"]) for name, fn in functions.items()})


def summarise(frame, how):
    return frame.agg(how)


df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
frame = compute(df, INDICATORS)
print(summarise(frame, "mean").round(5).to_dict(), summarise(frame, ["min", "max"]).shape)
print(df.groupby(np.arange(len(df)) // 20)["close"].agg([np.mean, "std", lambda s: s.iloc[-1]]).shape)
