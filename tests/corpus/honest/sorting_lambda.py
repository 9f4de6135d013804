import json

bars = json.load(open("/workspace/data.json"))["bars"]
top = sorted(bars, key=lambda b: (-b["volume"], b["time"]))[:3]
by = {"range": lambda b: b["high"] - b["low"], "body": lambda b: abs(b["close"] - b["open"])}
for name, fn in by.items():
    best = max(bars, key=fn)
    print(name, best["time"], round(fn(best), 4))
print([b["time"] for b in top], any(map(lambda b: b["close"] > 0, bars)), all(b["low"] <= b["high"] for b in bars))
first, *middle, last = top
print(first is top[0], len(middle), last == top[-1])
