from collections import Counter, OrderedDict, defaultdict, namedtuple
import json

Fill = namedtuple("Fill", ["side", "price", "size"])
fills = [Fill("buy" if i % 2 else "sell", b["close"], 1) for i, b in
         enumerate(json.load(open("/workspace/data.json"))["bars"])]
by_side = defaultdict(list)
for fill in fills:
    by_side[fill.side].append(fill.price)
counts = Counter(f.side for f in fills)
print(counts.most_common(1), {k: round(sum(v) / len(v), 2) for k, v in by_side.items()})
print(OrderedDict(sorted(counts.items())), Fill._fields)
