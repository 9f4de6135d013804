import json
import string

data = json.load(open("/workspace/data.json"))
lines = ["Report".center(30, "*"), ""]
for key, value in {"symbol": data["symbol"], "bars": len(data["bars"])}.items():
    lines.append(f"{key.title():.<20}{value!s:.>10}")
lines += ["-" * 30, "%-10s|%8.3f" % ("close", data["bars"][-1]["close"])]
print("\n".join(lines), string.ascii_uppercase[:3], "a,b".split(","), sep="\n", end="\n\n")
spark = "".join("_.-^"[min(3, int(4 * (b["close"] % 1)))] for b in data["bars"][:20])
print(spark, ascii("é"), chr(65), ord("A"), bytes([65]).decode("ascii"))
