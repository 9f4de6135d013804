"""RSI as a class with type hints."""
from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

import numpy as np
import pandas as pd


class RSIStrategy:
    """Buys oversold, sells overbought."""

    def __init__(self, period: int = 14, oversold: float = 30.0, overbought: float = 70.0) -> None:
        self.period = period
        self.oversold = oversold
        self.overbought = overbought
        self._cache: Optional[pd.Series] = None

    def _rsi(self, close: pd.Series) -> pd.Series:
        delta = close.diff()
        gain = delta.clip(lower=0).ewm(alpha=1 / self.period, adjust=False).mean()
        loss = -delta.clip(upper=0).ewm(alpha=1 / self.period, adjust=False).mean()
        return 100 - 100 / (1 + gain / loss.replace(0, np.nan))

    def run(self, bars: List[Dict[str, Any]]) -> Dict[str, Any]:
        close = pd.Series([bar["close"] for bar in bars])
        if self._cache is None:
            self._cache = self._rsi(close)
        last = float(self._cache.iloc[-1])
        action = "BUY" if last < self.oversold else "SELL" if last > self.overbought else "HOLD"
        return {"rsi": round(last, 2), "action": action}


if __name__ == "__main__":
    with open("/workspace/data.json", "r", encoding="utf-8") as handle:
        payload = json.load(handle)
    print(json.dumps(RSIStrategy().run(payload["bars"]), indent=2))
