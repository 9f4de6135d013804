import re
import json

data = json.load(open("/workspace/data.json"))
pattern = re.compile(r"^(?P<base>[A-Z]{2,5})(?:[-/](?P<quote>[A-Z]{3}))?$")
for symbol in [data["symbol"], "BTC-USD", "eth/usd"]:
    found = pattern.match(symbol)
    print(symbol, found.groupdict() if found else "no match")
print(re.sub(r"\s+", " ", "a   b"), re.findall(r"\d+", "5 and 20"))
