import json


def make_strategy(threshold):
    state = {"position": 0}
    trades = 0

    def on_price(price, average):
        nonlocal trades
        wanted = 1 if price > average * (1 + threshold) else -1 if price < average * (1 - threshold) else 0
        if wanted != state["position"]:
            trades += 1
            state["position"] = wanted
        return wanted

    def report():
        return f"{trades} trades, now {state['position']:+d}"

    return on_price, report


counter = 0


def count():
    global counter
    counter += 1


on_price, report = make_strategy(threshold=0.001)
close = [b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]
for i in range(10, len(close)):
    on_price(close[i], sum(close[i - 10:i]) / 10)
    count()
print(report(), counter)
