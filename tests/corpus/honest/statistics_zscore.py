import json
import statistics
from collections import deque

window = deque(maxlen=20)
signals = []
for bar in json.load(open("/workspace/data.json"))["bars"]:
    window.append(bar["close"])
    if len(window) == window.maxlen:
        z = (window[-1] - statistics.fmean(window)) / (statistics.pstdev(window) or 1.0)
        signals.append("SELL" if z > 2 else "BUY" if z < -2 else "HOLD")
print({s: signals.count(s) for s in sorted(set(signals))})
