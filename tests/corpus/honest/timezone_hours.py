import json
import pandas as pd
from zoneinfo import ZoneInfo
from datetime import datetime, time

df = pd.DataFrame(json.load(open("/workspace/data.json"))["bars"])
index = pd.to_datetime(df["time"]).dt.tz_localize("UTC").dt.tz_convert("America/New_York")
opening = time(9, 30)
print(index.iloc[0].tz_convert(None).date(), (index.dt.time < opening).sum() >= 0)
print(datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")).utcoffset())
print(pd.bdate_range("2024-01-01", periods=5)[-1].strftime("%a"), pd.Timestamp("2024-02-28") + pd.offsets.BDay(2))
