from typing import NamedTuple
import json


class Level(NamedTuple):
    price: float
    touches: int = 1


bars = json.load(open("/workspace/data.json"))["bars"]
levels: dict[int, Level] = {}
for bar in bars:
    key = round(bar["close"])
    old = levels.get(key)
    levels[key] = old._replace(touches=old.touches + 1) if old else Level(price=float(key))
best = max(levels.values(), key=lambda level: level.touches)
print(best, best._asdict())
