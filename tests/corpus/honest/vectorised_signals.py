import json
import numpy as np
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
conditions = [
    df["close"] > df["close"].rolling(10).max().shift(),
    df["close"] < df["close"].rolling(10).min().shift(),
]
df["signal"] = np.select(conditions, [1, -1], default=0)
df["position"] = df["signal"].replace(0, np.nan).ffill().fillna(0)
df["pnl"] = df["position"].shift().fillna(0) * df["close"].diff().fillna(0)
stats = {"total": df["pnl"].sum(), "sharpe": df["pnl"].mean() / df["pnl"].std() * 252 ** 0.5}
print("; ".join(f"{k}={v:.3f}" for k, v in stats.items()))
print(df[["signal", "pnl"]].tail(2).to_csv(index=False))
