import bisect
import heapq

bids, asks = [], []
orders = [("buy", 99.5, 10), ("sell", 100.5, 5), ("buy", 100.7, 3), ("sell", 99.0, 8)]
trades = []
for side, price, size in orders:
    book, other, sign = (bids, asks, 1) if side == "buy" else (asks, bids, -1)
    while size and other and other[0][0] <= price * sign:
        best, available = heapq.heappop(other)
        filled = min(size, available)
        trades.append((abs(best), filled))
        size -= filled
        if available > filled:
            heapq.heappush(other, (best, available - filled))
    if size:
        heapq.heappush(book, (-price * sign, size))
levels = []
for _, price, _ in orders:
    bisect.insort(levels, price)
print(trades, levels, heapq.nlargest(2, levels))
