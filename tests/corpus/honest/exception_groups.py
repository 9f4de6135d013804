import json


def check(bar):
    problems = []
    if bar["high"] < bar["low"]:
        problems.append(ValueError("high below low"))
    if bar["volume"] <= 0:
        problems.append(RuntimeError("no volume"))
    if problems:
        raise ExceptionGroup("bad bar", problems)


bars = json.load(open("/workspace/data.json"))["bars"]
bars[0] = {**bars[0], "volume": 0}
for bar in bars[:3]:
    try:
        check(bar)
    except* RuntimeError as group:
        print("runtime", len(group.exceptions))
    except* ValueError:
        print("value")
print("checked")
