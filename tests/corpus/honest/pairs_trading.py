import json
import numpy as np
import pandas as pd

close = pd.Series([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]])
noise = pd.Series(np.random.RandomState(1).normal(0, 0.2, len(close)))
other = close * 0.5 + 10 + noise
beta, alpha = np.polyfit(other, close, 1)
residual = close - (alpha + beta * other)
z = (residual - residual.mean()) / residual.std()
entries = (z.abs() > 2).sum()
matrix = np.column_stack([other, np.ones(len(other))])
solution, *_ = np.linalg.lstsq(matrix, close.to_numpy(), rcond=None)
print(f"{beta=:.3f} {alpha=:.3f} {entries=}", np.allclose(solution, [beta, alpha]))
