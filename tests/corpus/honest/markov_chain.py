import json
import numpy as np
import pandas as pd

close = pd.Series([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]])
states = pd.cut(close.pct_change().dropna(), bins=[-np.inf, -0.002, 0.002, np.inf], labels=["down", "flat", "up"])
matrix = pd.crosstab(states.shift(), states, normalize="index")
print(matrix.round(2).to_dict())
vector = np.full(len(matrix), 1 / len(matrix))
for _ in range(50):
    vector = vector @ matrix.to_numpy()
print(dict(zip(matrix.columns, vector.round(3).tolist())))
