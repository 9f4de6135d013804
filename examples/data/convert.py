"""Turn the daily CSV files of the ``arch`` package into the JSON the examples read.

Usage::

    python convert.py SP500=path/to/sp500.csv.gz > sp500.json
    python convert.py SP500=path/to/sp500.csv.gz NASDAQ=path/to/nasdaq.csv.gz > sp500_nasdaq.json

The first series becomes ``symbol`` and ``bars``; a second one, which must have the very same dates,
becomes ``peer`` with the same two fields. Standard library only; same input, same bytes.
"""

import argparse
import csv
import gzip
import json
import sys
from datetime import date
from pathlib import Path

PRICE_COLUMNS = ("open", "high", "low", "close")
# Index levels are quoted to a hundredth; the further digits in the source are float32 noise.
PRICE_DIGITS = 2
MAXIMUM_SERIES = 2


class SeriesError(ValueError):
    """A series no backtest should be run on."""

    def __init__(self, series: Path | str, reason: str) -> None:
        """Name the series and what is wrong with it."""
        super().__init__(f"{series}: {reason}")


def parse_date(text: str) -> date:
    """Read a date in the month/day/year form the package uses."""
    month, day, year = (int(part) for part in text.split("/"))
    return date(year, month, day)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, gzipped or plain, with lower-case column names."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        return [{key.lower(): value for key, value in row.items()} for row in reader]


def check(bars: dict[str, list], path: Path) -> None:
    """Refuse a series no backtest should be run on.

    Raises:
        SeriesError: dates out of order, or a bar whose high or low does not span its prices.
    """
    dates = bars["date"]
    if dates != sorted(set(dates)):
        raise SeriesError(path, "dates are not strictly ascending")
    for day, *prices in zip(dates, *(bars[name] for name in PRICE_COLUMNS), strict=True):
        _open, high, low, _close = prices
        if not 0 < low == min(prices) <= max(prices) == high:
            raise SeriesError(path, f"{day} has an impossible bar {prices}")


def read_bars(path: Path) -> dict[str, list]:
    """Read one series as columns: ISO dates, rounded prices, whole volumes."""
    rows = read_rows(path)
    bars: dict[str, list] = {"date": [parse_date(row["date"]).isoformat() for row in rows]}
    for name in PRICE_COLUMNS:
        bars[name] = [round(float(row[name]), PRICE_DIGITS) for row in rows]
    bars["volume"] = [int(float(row["volume"])) for row in rows]
    check(bars, path)
    return bars


def main() -> None:
    """Write the JSON document for the series named on the command line."""
    parser = argparse.ArgumentParser(description="arch CSV to the examples' JSON")
    parser.add_argument("series", nargs="+", metavar="SYMBOL=CSV", help="one series, or two")
    arguments: list[str] = parser.parse_args().series
    if len(arguments) > MAXIMUM_SERIES:
        parser.error("a strategy reads one series, or a pair")
    named = [argument.partition("=") for argument in arguments]
    series = [{"symbol": symbol, "bars": read_bars(Path(path))} for symbol, _, path in named]
    document = {"symbol": series[0]["symbol"], "interval": "1d", "bars": series[0]["bars"]}
    for peer in series[1:2]:
        if peer["bars"]["date"] != document["bars"]["date"]:
            raise SeriesError(peer["symbol"], "its dates differ from the first series")
        document["peer"] = peer
    json.dump(document, sys.stdout, separators=(",", ":"), allow_nan=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
