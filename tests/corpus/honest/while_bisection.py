import json

close = [b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]
target = close[-1] / close[0]
low, high = 0.5, 1.5
while high - low > 1e-10:
    middle = (low + high) / 2
    if middle ** len(close) < target:
        low = middle
    else:
        high = middle
else:
    print("converged")
print(f"{low - 1:.6%}")
for n in range(2, 10):
    for k in range(2, n):
        if n % k == 0:
            break
    else:
        continue
    if n > 8:
        pass
