import json


class Ledger:
    def __enter__(self):
        self._entries = []
        return self

    def __exit__(self, kind, error, trace):
        print(f"{len(self._entries)} entries")
        return False

    def add(self, amount):
        self._entries.append(amount)


with Ledger() as ledger, open("/workspace/data.json") as f:
    for bar in json.load(f)["bars"][:10]:
        ledger.add(bar["close"])
