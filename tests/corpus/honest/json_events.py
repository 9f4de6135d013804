import json


class Encoder(json.JSONEncoder):
    def default(self, o):
        if isinstance(o, set):
            return sorted(o)
        return super().default(o)


data = json.loads(json.dumps({"tags": {"b", "a"}}, cls=Encoder))
with open("/workspace/data.json", "rb") as f:
    bars = json.loads(f.read())["bars"]
events = [{"t": b["time"], "event": "close", "p": b["close"]} for b in bars if b["close"] > b["open"]]
print(json.dumps({"n": len(events), **data}, separators=(",", ":")))
