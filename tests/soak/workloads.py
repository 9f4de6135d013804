"""What strategies compute, in pieces: runs inside a sandbox, as one strategy; the data file says which piece.

Each piece returns plain numbers or text that depend on the seed alone, so that two runs can be compared.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import functools
import hashlib
import json
import math
import pathlib
import random
import re
import statistics
import string
import subprocess
import sys
import threading
import time
import zoneinfo
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable


def prices(rng: np.random.Generator, bars: int = 500, freq: str = "h") -> Any:
    """Return a random walk as a frame of open, high, low, close and volume."""
    index = pd.date_range("2024-01-02", periods=bars, freq=freq, tz="America/New_York")
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
    spread = np.abs(rng.normal(0, 0.5, bars))
    columns = {"open": close - 0.1, "high": close + spread, "low": close - spread, "close": close}
    return pd.DataFrame({**columns, "volume": rng.integers(1, 10_000, bars)}, index=index)


def linear_algebra(rng: np.random.Generator) -> Any:
    """Decompose, invert and solve."""
    size = int(rng.integers(2, 150))
    matrix = rng.standard_normal((size, size)) + size * np.eye(size)
    u, s, vt = np.linalg.svd(matrix)
    q, r = np.linalg.qr(matrix)
    spd = matrix @ matrix.T
    values = np.linalg.eigvalsh(spd)
    return [
        bool(np.allclose((u * s) @ vt, matrix)),
        bool(np.allclose(q @ r, matrix)),
        bool(np.allclose(np.linalg.cholesky(spd) @ np.linalg.cholesky(spd).T, spd)),
        bool(values.min() > 0),
        round(float(np.linalg.norm(np.linalg.solve(matrix, np.ones(size)))), 9),
    ]


def portfolio(rng: np.random.Generator) -> Any:
    """Find the weights of least variance."""
    returns = rng.normal(0.001, 0.02, (250, int(rng.integers(2, 30))))
    covariance = np.cov(returns, rowvar=False)
    weights = np.linalg.solve(covariance, np.ones(len(covariance)))
    return round(float((weights / weights.sum() @ covariance @ weights / weights.sum()) * 1e6), 6)


def fourier(rng: np.random.Generator) -> Any:
    """Find the period that was put in, in one and two dimensions."""
    period = int(rng.integers(4, 40))
    signal = np.sin(2 * np.pi * np.arange(period * 64) / period) + rng.normal(0, 0.1, period * 64)
    plane = np.fft.ifft2(np.fft.fft2(rng.standard_normal((64, 48))))
    return [int(np.abs(np.fft.rfft(signal)).argmax()) == 64, bool(np.abs(plane.imag).max() < 1e-9)]


def sorting(rng: np.random.Generator) -> Any:
    """Sort every kind of array in every way."""
    sums: list[float] = []
    for kind in ("int8", "int16", "int32", "int64", "float32", "float64"):
        values = rng.integers(-100, 100, 20_000).astype(kind)
        for way in ("quicksort", "stable", "heapsort"):
            done = np.sort(values, kind=way)
            sums.append(bool((done[1:] >= done[:-1]).all()))
        sums.append(float(np.partition(values, 99)[99]))
    return sums


def big_array(rng: np.random.Generator) -> Any:
    """Fill and release most of the memory there is, twice."""
    megabytes = int(rng.integers(40, 110))
    total = 0.0
    for _ in range(2):
        block = np.ones(megabytes * 131_072)
        block *= 2
        total += float(block.sum())
        del block
    return total == megabytes * 131_072 * 4


def many_small_arrays(rng: np.random.Generator) -> Any:
    """Make and drop thousands of arrays."""
    kept = [rng.standard_normal(int(size)) for size in rng.integers(1, 600, 3_000)]
    return round(float(sum(float(one.sum()) for one in kept)), 6)


def indicators(rng: np.random.Generator) -> Any:
    """Compute the indicators every strategy has."""
    close = prices(rng)["close"]
    change = close.diff()
    gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = -change.clip(upper=0).ewm(alpha=1 / 14, adjust=False).mean()
    rsi = 100 - 100 / (1 + gain / loss)
    macd = close.ewm(span=12).mean() - close.ewm(span=26).mean()
    band = close.rolling(20).mean() + 2 * close.rolling(20).std()
    ranked = close.rolling(10).apply(lambda window: window[-1] - window.min(), raw=True)
    return [round(float(one.iloc[-1]), 6) for one in (rsi, macd, band, ranked, close.rolling(30).median())]


def resampling(rng: np.random.Generator) -> Any:
    """Turn bars into longer bars, with gaps."""
    frame = prices(rng, 1_000).drop(prices(rng, 1_000).index[10:200])
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    daily = frame.resample("1D").agg(rules).dropna()
    weekly = daily.resample("W-FRI").last()
    return [len(daily), len(weekly), int(daily["volume"].sum()), round(float(weekly["close"].sum()), 6)]


def grouping(rng: np.random.Generator) -> Any:
    """Group by several keys, transform, and pivot."""
    size = 5_000
    frame = pd.DataFrame(
        {
            "symbol": rng.choice(["AAPL", "MSFT", "SAP", "NESN"], size),
            "side": rng.choice(["buy", "sell"], size),
            "amount": rng.integers(1, 100, size),
        }
    )
    table = frame.groupby(["symbol", "side"])["amount"].agg(["sum", "mean", "std", "nunique"])
    share = frame["amount"] / frame.groupby("symbol")["amount"].transform("sum")
    cross = frame.pivot_table(index="symbol", columns="side", values="amount", aggfunc="sum")
    top = frame.groupby("symbol")["amount"].apply(lambda group: int(group.nlargest(5).sum()))
    return [round(float(table.to_numpy().sum()), 6), round(float(share.sum()), 9), int(cross.to_numpy().sum()), *top]


def merging(rng: np.random.Generator) -> Any:
    """Join on keys, on the index, and as of a time."""
    left, right = prices(rng, 400).reset_index(names="at"), prices(rng, 100, "4h").reset_index(names="at")
    asof = pd.merge_asof(left, right, on="at", suffixes=("", "_slow"))
    inner = left.merge(right, on="at", suffixes=("", "_slow"))
    stacked = pd.concat([left, right]).sort_values("at", kind="stable").drop_duplicates("at")
    return [len(asof), len(inner), len(stacked), round(float(asof["close_slow"].sum()), 6)]


def time_zones(rng: np.random.Generator) -> Any:
    """Cross every clock change of some zones, in the library and in pandas."""
    zone = ["Europe/Paris", "America/New_York", "Asia/Tokyo", "Australia/Sydney"][int(rng.integers(4))]
    index = pd.date_range("2024-01-01", "2024-12-31", freq="6h", tz="UTC").tz_convert(zone)
    there = dt.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo(zone))
    offsets = sorted({str(at.utcoffset()) for at in index})
    return [offsets, there.isoformat(), str(pd.Timestamp(there).tz_convert("UTC")), len(index.normalize().unique())]


def calendars(rng: np.random.Generator) -> Any:
    """Count business days, periods and offsets."""
    start = pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(rng.integers(300)))
    days = pd.bdate_range(start, periods=60)
    months = days.to_period("M").value_counts().sort_index()
    ends = [str((start + pd.offsets.BMonthEnd(n)).date()) for n in range(1, 5)]
    return [*ends, *map(int, months), int(np.busday_count(start.date(), days[-1].date()))]


def text_columns(rng: np.random.Generator) -> Any:
    """Clean, split and match text, in numpy and pandas."""
    words = ["".join(rng.choice(list(string.ascii_letters), 6)) + " US é 漢" for _ in range(500)]
    series = pd.Series([*words, None], dtype="str")
    found = series.str.upper().str.extract(r"([A-C])", expand=False).dropna()
    counted = collections.Counter(re.findall(r"[aeiou]", " ".join(words)))
    joined = np.char.add(np.array(words), "!")
    return [len(found), sorted(counted.items()), len(series.str.split().explode()), str(joined[0])]


def categories(rng: np.random.Generator) -> Any:
    """Cut, bin, encode and count."""
    values = pd.Series(rng.normal(size=2_000))
    quartiles = pd.qcut(values, 4, labels=["a", "b", "c", "d"])
    bins = pd.cut(values, [-10, -1, 0, 1, 10]).value_counts().sort_index()
    dummies = pd.get_dummies(quartiles).sum()
    codes, uniques = pd.factorize(quartiles.astype(str))
    return [*map(int, bins), *map(int, dummies), int(codes.sum()), sorted(uniques)]


def json_in_out(rng: np.random.Generator) -> Any:
    """Carry a frame through text and back."""
    frame = prices(rng, 200).reset_index(drop=True)
    again = pd.DataFrame(json.loads(frame.to_json(orient="records", double_precision=15)))
    lines = frame.to_csv(index=False).splitlines()
    return [bool(np.allclose(again, frame)), len(lines), len(frame.to_string()) > 1_000]


def deep_recursion(rng: np.random.Generator) -> Any:
    """Go as deep as the interpreter lets it, and come back."""
    depth = int(rng.integers(500, 900))

    @functools.cache
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    def fall(n: int) -> int:
        return fall(n + 1)

    try:
        fall(0)
    except RecursionError:
        return [depth, str(fibonacci(depth // 3))]
    return "no bottom"


def standard_library(rng: np.random.Generator) -> Any:
    """Use the small modules."""
    numbers = [float(value) for value in rng.normal(size=200)]
    exact = sum(decimal.Decimal(repr(round(value, 6))) for value in numbers)
    line = statistics.linear_regression(range(200), numbers)
    normal = statistics.NormalDist.from_samples(numbers)
    digest = hashlib.sha256(json.dumps(numbers).encode()).hexdigest()
    draws = random.Random(int(rng.integers(2**31)))
    return [str(exact), round(line.slope, 9), round(normal.cdf(0.5), 9), math.fsum(numbers), digest, draws.random()]


def generators(rng: np.random.Generator) -> Any:
    """Draw from many distributions and bit generators."""
    seed = int(rng.integers(2**31))
    kinds = (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)
    draws = [float(np.random.Generator(kind(seed)).normal()) for kind in kinds]
    old = np.random.RandomState(seed)
    mixed = [rng.gamma(2.0), rng.poisson(4.0), rng.multivariate_normal([0, 0], np.eye(2))[0], old.standard_t(4)]
    return [*draws, *map(float, mixed), rng.permutation(10).tolist()]


def broadcasting(rng: np.random.Generator) -> Any:
    """Use einsum, strides, fancy indexing and ufuncs in all types."""
    cube = rng.standard_normal((20, 30, 40))
    windows = np.lib.stride_tricks.sliding_window_view(cube[0, 0], 5)
    flags = np.where(cube > 0, 1, -1)
    return [
        round(float(np.einsum("ijk,ijk->", cube, cube)), 6),
        round(float(windows.mean(axis=1).max()), 9),
        int(flags.sum()),
        round(float(np.exp(cube[cube < -2]).sum()), 9),
        round(float(np.linalg.lstsq(cube[0], cube[1], rcond=None)[0].sum()), 4),
    ]


def polynomials(rng: np.random.Generator) -> Any:
    """Fit, differentiate and find roots."""
    x = np.linspace(-1, 1, 200)
    y = 3 * x**3 - x + rng.normal(0, 0.01, 200)
    fit = np.polynomial.Polynomial.fit(x, y, 3).convert()
    return [np.round(fit.coef, 6).tolist(), np.round(np.sort(np.roots([1, -6, 11, -6]).real), 6).tolist()]


def expressions(rng: np.random.Generator) -> Any:
    """Evaluate a query, as a strategy with the code policy off may."""
    frame = prices(rng)
    return [
        len(frame.query("close > close.median() and volume > 100")),
        round(float(frame.eval("high - low").sum()), 6),
    ]


def threads(rng: np.random.Generator) -> Any:
    """Start a few threads, with a lock and an event between them."""
    total, lock, go = [0], threading.Lock(), threading.Event()
    amounts = rng.integers(1, 100, 8).tolist()

    def add(amount: int) -> None:
        go.wait(10)
        with lock:
            total[0] += amount

    workers = [threading.Thread(target=add, args=(amount,)) for amount in amounts]
    for worker in workers:
        worker.start()
    go.set()
    for worker in workers:
        worker.join(10)
    return total[0] == sum(amounts)


def sleeping(rng: np.random.Generator) -> Any:
    """Wait, by every clock."""
    before = (time.time(), time.monotonic(), time.perf_counter(), time.process_time())
    time.sleep(float(rng.uniform(0.001, 0.02)))
    after = (time.time(), time.monotonic(), time.perf_counter(), time.process_time())
    return [all(a >= b for a, b in zip(after, before, strict=True)), len(time.strftime("%Y-%m-%d", time.gmtime(0)))]


def another_process(rng: np.random.Generator) -> Any:
    """Run the interpreter again, which a strategy with the code policy off may."""
    number = int(rng.integers(1_000))
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"print({number} + 1)"], capture_output=True, text=True, check=True
    )
    return int(done.stdout) == number + 1


def output(rng: np.random.Generator) -> Any:
    """Write much, in small and large pieces, to both streams."""
    size = int(rng.integers(1_000, 100_000))
    sys.stderr.write("e" * size + "\n")
    for _ in range(100):
        sys.stdout.write("")
        sys.stdout.flush()
    return size


NOT_PIECES = frozenset({"prices", "main"})
PIECES: dict[str, Callable[[np.random.Generator], Any]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", None) == __name__ and name not in NOT_PIECES
}


def main() -> None:
    """Run the piece that the data file names and print what it returned."""
    wanted = json.loads(pathlib.Path("/workspace/data.json").read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(PIECES[wanted["piece"]](np.random.default_rng(wanted["seed"]))))


if __name__ == "__main__":
    main()
