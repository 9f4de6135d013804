import json
import numpy as np

bars = json.load(open("/workspace/data.json"))["bars"]
table = np.array(
    [(b["time"], b["close"], b["volume"]) for b in bars],
    dtype=[("time", "U32"), ("close", "f8"), ("volume", "f8")],
)
mask = np.logical_and(table["close"] > np.median(table["close"]), np.isfinite(table["volume"]))
order = np.argsort(table["close"])[::-1]
print(table[order][:1]["time"], mask.sum(), np.einsum("i,i->", table["close"], table["volume"]).round(1))
with np.errstate(divide="ignore", invalid="ignore"):
    print(np.isnan(np.array([0.0]) / 0).all())
