import json
import numpy as np

rng = np.random.default_rng(seed=42)
close = np.array([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]])
returns = np.diff(np.log(close))
paths = close[-1] * np.exp(np.cumsum(rng.normal(returns.mean(), returns.std(), size=(500, 30)), axis=1))
low, mid, high = np.percentile(paths[:, -1], [5, 50, 95])
print(f"5% {low:.2f} | 50% {mid:.2f} | 95% {high:.2f}")
print("VaR", np.quantile(returns, 0.05).round(5))
