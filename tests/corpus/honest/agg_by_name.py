import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
for name in ["mean", "std", "min", "max"]:
    print(f"{name:>6}: {df['close'].agg(name):10.4f}")

AGGREGATIONS = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
df["time"] = pd.to_datetime(df["time"])
weekly = df.set_index("time").resample("W").agg(AGGREGATIONS)
how = "median"
print(len(weekly), weekly["close"].agg(how), df[["open", "close"]].agg(["mean", how]).shape)


class Named:
    name = "momentum"


print(Named.name, df["close"].agg(func=["min", "max"]).tolist())
