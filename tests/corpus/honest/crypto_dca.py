"""Dollar cost averaging vs lump sum"""
import json
import pandas as pd


def main() -> int:
    with open("/workspace/data.json") as fh:
        raw = json.load(fh)
    df = pd.DataFrame.from_records(raw["bars"])
    df = df.assign(month=lambda d: d["time"].str[:7]).sort_values("time").reset_index(drop=True)
    firsts = df.drop_duplicates("month")
    coins = (100 / firsts["close"]).sum()
    spent = 100 * len(firsts)
    value = coins * df["close"].iloc[-1]
    print(f"{'DCA':<6}| {value / spent - 1:>8.2%}")
    print(f"{'Lump':<6}| {df.close.iloc[-1] / df.close.iloc[0] - 1:>8.2%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
