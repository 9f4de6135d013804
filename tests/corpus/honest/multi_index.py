import json
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
df["symbol"] = ["A" if i % 2 else "B" for i in range(len(df))]
panel = df.set_index(["symbol", "time"]).sort_index()
ranked = panel.groupby(level="symbol")["close"].rank(pct=True)
demeaned = panel.groupby(level="symbol")["close"].transform(lambda s: s - s.mean())
totals = panel.groupby("symbol")["volume"].transform("sum")
print(ranked.loc["A"].max(), abs(demeaned.sum()) < 1e-6, totals.nunique(), panel.xs("B").shape)
for symbol, group in panel.groupby(level=0):
    print(symbol, group["close"].agg(["mean", "std"]).round(3).tolist())
