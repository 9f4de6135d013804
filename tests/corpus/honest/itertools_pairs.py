import itertools
import json

close = [b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]
best = None
for fast, slow in itertools.product(range(3, 8), (15, 20, 25)):
    def average(n, i):
        return sum(close[i - n:i]) / n
    profit = sum(
        close[i] - close[i - 1] for i in range(slow, len(close)) if average(fast, i) > average(slow, i)
    )
    if best is None or profit > best[0]:
        best = (profit, fast, slow)
print("best", best)
for up, group in itertools.groupby(zip(close, close[1:]), key=lambda pair: pair[1] > pair[0]):
    longest = len(list(group))
print(list(itertools.islice(itertools.accumulate(close, max), 3)), longest)
