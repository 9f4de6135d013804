import json
import pandas as pd

with open("/workspace/data.json") as f:
    df = pd.DataFrame(json.load(f)["bars"])
df.index = pd.to_datetime(df.pop("time"))
monthly = df.resample("MS").agg({"open": "first", "high": "max", "low": "min", "close": "last"}).dropna()
monthly["return"] = monthly["close"].pct_change()
print(monthly.tail(3))
print(df["close"].resample("W").ohlc().shape)
