import json

values = iter([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]])
runs, current = 0, None
while (price := next(values, None)) is not None:
    if current is not None and price > current:
        runs += 1
    current = price
print(runs, [half for n in range(4) if (half := n / 2) > 0.5])
