import json
import pandas as pd


def add_returns(df, column="close"):
    return df.assign(ret=df[column].pct_change())


def keep(df, *, above):
    return df[df["ret"] > above]


df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
out = df.pipe(add_returns).pipe(keep, above=0.0)
print(out["ret"].describe().round(5).to_dict())
print(df.nlargest(2, "volume")[["time", "volume"]].values.tolist(), df.filter(like="o").columns.tolist())
print(df["time"].str.slice(0, 4).unique(), df.select_dtypes("number").corr().round(2).loc["open", "close"])
