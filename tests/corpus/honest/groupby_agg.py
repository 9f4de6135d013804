import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
df["time"] = pd.to_datetime(df["time"])
df["weekday"] = df["time"].dt.day_name()
summary = df.groupby("weekday").agg({"close": "last", "volume": ["sum", "mean"]})
named = df.groupby("weekday").agg(high=("high", "max"), low=("low", "min"), n=("close", "count"))
print(summary.to_string())
print(named.sort_values("n", ascending=False).head(2).to_dict("index"))
