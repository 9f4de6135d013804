import json
import numpy as np
import pandas as pd

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
ha = pd.DataFrame(index=df.index)
ha["close"] = df[["open", "high", "low", "close"]].mean(axis=1)
opens = [(df.open[0] + df.close[0]) / 2]
for i in range(1, len(df)):
    opens.append((opens[-1] + ha["close"].iat[i - 1]) / 2)
ha["open"] = opens
ha["high"] = np.maximum.reduce([df["high"], ha["open"], ha["close"]])
ha["low"] = pd.concat([df["low"], ha["open"], ha["close"]], axis=1).min(axis=1)
ha["colour"] = np.where(ha.close >= ha.open, "green", "red")
print(ha.colour.map({"green": 1, "red": -1}).sum(), ha.tail(1).to_dict("records"))
