"""What a strategy finds imported: numpy and pandas, and of pandas what it makes of itself at first use.

Runs in the runner before it is ready, so that no strategy waits for it and every child shares its memory.
"""

from __future__ import annotations

import gc


def libraries() -> None:
    """Import them and use them once, as most strategies do."""
    gc.disable()  # imports make hardly any garbage, and looking for it again and again takes 30 ms
    import numpy as np  # noqa: PLC0415  # after the process is sealed
    import pandas as pd  # noqa: PLC0415

    close = pd.Series([1.0, 2.0, 4.0, 3.0])
    frame = pd.DataFrame({"close": close, "signal": np.sign(close.diff().fillna(0.0))})
    gain = close.clip(lower=0.0).ewm(alpha=0.5, adjust=False).mean()
    mean = frame["close"].rolling(2).mean().shift(1)
    _ = (100 - 100 / (1 + gain / mean))[(mean > 1) | (gain < 1)], frame.iloc[-1], frame.to_dict("records")
    gc.freeze()  # a collection in a child must not touch, and so copy, the pages it shares with this process
    gc.enable()
