import json

data = json.load(open("/workspace/data.json"))


def handle(event):
    match event:
        case {"close": close, "open": open} if close > open:
            return "up", close - open
        case {"close": float() as close, **rest}:
            return "down", len(rest)
        case [first, *others]:
            return "many", first, len(others)
        case "BUY" | "SELL" as side:
            return side
        case _:
            return None


print([handle(bar)[0] for bar in data["bars"][:5]], handle([1, 2, 3]), handle("BUY"), handle(7))
