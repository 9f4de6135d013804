import json
import numpy as np

bars = json.load(open("/workspace/data.json"))["bars"]
close = np.array([b["close"] for b in bars], dtype=float)
window, k = 20, 2.0
view = np.lib.stride_tricks.sliding_window_view(close, window)
middle, width = view.mean(axis=1), k * view.std(axis=1, ddof=0)
upper, lower = middle + width, middle - width
tail = close[window - 1:]
position = np.where(tail > upper, -1, np.where(tail < lower, 1, 0))
print("{:<8}{:>10}".format("bars", tail.size))
print("{:<8}{:>10.2%}".format("in", float((position != 0).mean())))
