import json
from datetime import datetime, timedelta, timezone

bars = json.load(open("/workspace/data.json"))["bars"]
times = [datetime.fromisoformat(b["time"]) for b in bars]
gaps = [b - a for a, b in zip(times, times[1:]) if b - a > timedelta(days=1)]
print(times[0].strftime("%Y-%m-%d"), f"{times[-1]:%d.%m.%Y}", len(gaps))
print(datetime(2024, 1, 1, tzinfo=timezone.utc).isoformat(), datetime.now().year > 2000)
