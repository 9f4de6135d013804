import json

ROW = "{:<10}{:>12.2f}{:>12.2%}"
HEADER = "{name:<10}{value:>12}{share:>12}"

data = json.load(open("/workspace/data.json"))
print(HEADER.format(name="bar", value="close", share="change"))
for a, b in zip(data["bars"], data["bars"][1:4]):
    print(ROW.format(b["time"][:10], b["close"], b["close"] / a["close"] - 1))
print("=" * 34)
print("Total: {0} bars of {1}".format(len(data["bars"]), data["symbol"]))
