from functools import reduce
import json

closes = [bar["close"] for bar in json.load(open("/workspace/data.json"))["bars"]]
peak_and_drawdown = reduce(
    lambda acc, price: (max(acc[0], price), min(acc[1], price / max(acc[0], price) - 1)),
    closes,
    (closes[0], 0.0),
)
print(f"max drawdown: {peak_and_drawdown[1]:.2%}")
