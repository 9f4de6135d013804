import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
left = df[["time", "close"]].rename(columns={"close": "close_a"})
right = df[["time", "close"]].assign(close=lambda d: d["close"] * 1.01)
both = left.merge(right, on="time", how="inner", suffixes=("_a", "_b"))
both["spread"] = both["close_a"] - both["close"]
stacked = pd.concat([left.set_index("time"), right.set_index("time").add_suffix("_b")], axis=1)
print(both["spread"].abs().max().round(4), list(stacked.columns))
