"""Momentum on fresh prices: tops up the stored series from a price service before deciding."""

import json
import os

import pandas as pd
import requests

PRICES_URL = "https://prices.example.com/v1/daily"
LOOKBACK_BARS = 126
REQUEST_TIMEOUT_SECONDS = 10


def load_stored_bars() -> tuple[str, pd.DataFrame]:
    """Read the price series the strategy was given."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        document = json.load(handle)
    return document["symbol"], pd.DataFrame(document["bars"])


def fetch_newer_bars(symbol: str, last_date: str) -> pd.DataFrame:
    """Ask the price service for the bars after the last one stored."""
    response = requests.get(
        PRICES_URL,
        params={"symbol": symbol, "after": last_date},
        headers={"Authorization": f"Bearer {os.environ['PRICES_TOKEN']}"},
        timeout=REQUEST_TIMEOUT_SECONDS,
    )
    response.raise_for_status()
    return pd.DataFrame(response.json()["bars"])


def main() -> None:
    """Print the action the latest momentum calls for."""
    symbol, stored = load_stored_bars()
    newer = fetch_newer_bars(symbol, stored["date"].iloc[-1])
    bars = pd.concat([stored, newer], ignore_index=True)
    momentum = bars["close"].iloc[-1] / bars["close"].iloc[-LOOKBACK_BARS] - 1.0
    action = "BUY" if momentum > 0 else "SELL"
    print(json.dumps({"strategy": "fresh_momentum", "symbol": symbol, "action": action}))


if __name__ == "__main__":
    main()
