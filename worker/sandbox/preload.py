"""What a strategy finds imported: numpy and pandas, and of pandas what it makes of itself at first use.

Imported before there is a strategy, so that none waits for it. Standard library only, but for these two.
"""

from __future__ import annotations

import gc


def libraries() -> None:
    """Import them, and have them make what they make at first use."""
    import numpy  # noqa: F401, ICN001, PLC0415  # after the process is sealed
    import pandas  # noqa: F401, ICN001, PLC0415

    use()
    gc.freeze()  # no collection need look at any of it, nor, in a fork, copy it by looking
    gc.enable()


def random() -> None:
    """Import what many strategies use, and not all; for when there is time."""
    import numpy.random  # noqa: F401, PLC0415


def rehearse() -> None:
    """Do once what strategies do."""
    use()
    random()


def use() -> None:
    """Compute a little, as most strategies do."""
    import numpy as np  # noqa: PLC0415  # imported by now
    import pandas as pd  # noqa: PLC0415

    close = pd.Series([1.0, 2.0, 4.0, 3.0])
    frame = pd.DataFrame({"close": close, "signal": np.sign(close.diff().fillna(0.0))})
    gain = close.clip(lower=0.0).ewm(alpha=0.5, adjust=False).mean()
    mean = frame["close"].rolling(2).mean().shift(1)
    _ = (100 - 100 / (1 + gain / mean))[(mean > 1) | (gain < 1)], frame.iloc[-1], frame.to_dict("records")
