"""The best and the worst of the days ahead; a bar without a volume is left out."""

import contextlib
from contextlib import suppress

import numpy as np
import pandas as pd
from pandas.api.indexers import FixedForwardWindowIndexer

HORIZON = 5

rng = np.random.default_rng(11)
bars = [{"close": 100 + price, "volume": volume} for price, volume in zip(rng.normal(0, 2, 40).cumsum(), range(40))]
del bars[7]["volume"]

rows = []
for bar in bars:
    with suppress(KeyError, TypeError):
        rows.append((bar["close"], bar["volume"] * 100))

df = pd.DataFrame(rows, columns=["close", "volume"])
ahead = df["close"].rolling(window=FixedForwardWindowIndexer(window_size=HORIZON), min_periods=1)
indexer = pd.api.indexers.FixedForwardWindowIndexer(window_size=2)
df["best"], df["worst"] = ahead.max(), ahead.min()
df["reward"] = df["best"] / df["close"] - 1
df["tomorrow"] = df["close"].rolling(indexer).sum() - df["close"]

with contextlib.suppress(ZeroDivisionError):
    print("never", 1 / 0)

print(len(df), f"{df['reward'].mean():.4f}", int(df["tomorrow"].count()))
