import json
import pandas as pd


def ichimoku(df, conversion=9, base=26, span=52):
    def middle(n):
        return (df["high"].rolling(n).max() + df["low"].rolling(n).min()) / 2

    out = pd.DataFrame({"conversion": middle(conversion), "base": middle(base)})
    out["span_a"] = ((out["conversion"] + out["base"]) / 2).shift(base)
    out["span_b"] = middle(span).shift(base)
    return out


ichimoku.__doc__ = "The cloud."
df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
cloud = ichimoku(df)
print(ichimoku.__doc__, cloud.dropna().shape, cloud.isna().sum().to_dict())
