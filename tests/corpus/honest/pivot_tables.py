import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
df["time"] = pd.to_datetime(df["time"])
df["month"], df["day"] = df["time"].dt.month, df["time"].dt.dayofweek
print(df.pivot_table(values="close", index="month", columns="day", aggfunc="mean").round(2).shape)
print(pd.pivot_table(df, "volume", "month", "day", "sum").shape, df.pivot_table("close", "month", "day", "last").shape)
print(pd.crosstab(df["month"], df["close"] > df["open"]).to_dict())
