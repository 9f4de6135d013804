from math import exp, isclose, log, sqrt
import json

close = [b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]
returns = [b / a - 1 for a, b in zip(close, close[1:])]
wins = [r for r in returns if r > 0]
losses = [-r for r in returns if r < 0]
p = len(wins) / (len(wins) + len(losses))
ratio = (sum(wins) / len(wins)) / (sum(losses) / len(losses))
kelly = p - (1 - p) / ratio
growth = sum(log(1 + r) for r in returns)
assert isclose(exp(growth), close[-1] / close[0], rel_tol=1e-9)
print(f"kelly={kelly:.3f} vol={sqrt(sum(r * r for r in returns)):.4f}")
