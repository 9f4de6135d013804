import json


class Turtle:
    ENTRY, EXIT = 20, 10

    def __init__(self):
        self.state = "flat"
        self.log = []

    def on_bar(self, i, bars):
        highs = [b["high"] for b in bars[i - self.ENTRY:i]]
        lows = [b["low"] for b in bars[i - self.EXIT:i]]
        price = bars[i]["close"]
        if self.state == "flat" and price >= max(highs):
            self.state = "long"
            self.log.append(("enter", i, price))
        elif self.state == "long" and price <= min(lows):
            self.state = "flat"
            self.log.append(("exit", i, price))


bars = json.load(open("/workspace/data.json"))["bars"]
turtle = Turtle()
for i in range(Turtle.ENTRY, len(bars)):
    turtle.on_bar(i, bars)
print(turtle.state, *turtle.log, sep="\n")
