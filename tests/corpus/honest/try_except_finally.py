import json

try:
    with open("/workspace/data.json") as f:
        data = json.load(f)
    price = data["bars"][-1]["close"]
    ratio = price / data.get("benchmark", 0)
except KeyError as exc:
    print(f"missing: {exc}")
except (ZeroDivisionError, TypeError):
    ratio = float("nan")
else:
    print("benchmark given")
finally:
    print("done")
print(ratio)
