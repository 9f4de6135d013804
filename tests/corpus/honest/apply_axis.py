import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
df["typical"] = df.apply(lambda row: (row["high"] + row["low"] + row["close"]) / 3, axis=1)


def label(row):
    return "up" if row["close"] >= row["open"] else "down"


df["direction"] = df.apply(label, axis=1)
df["vwap"] = (df["typical"] * df["volume"]).cumsum() / df["volume"].cumsum()
print(df["direction"].value_counts().to_dict(), round(df["vwap"].iloc[-1], 4))
