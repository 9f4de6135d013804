import json


class Windows:
    def __init__(self, values, size):
        self.values, self.size = values, size

    def __iter__(self):
        return (self.values[i:i + self.size] for i in range(len(self)))

    def __len__(self):
        return max(0, len(self.values) - self.size + 1)

    def __getitem__(self, index):
        return self.values[index:index + self.size]

    def __contains__(self, item):
        return item in self.values


w = Windows([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]], 5)
print(len(w), w[0] == next(iter(w)), max(sum(x) for x in w) > 0, -1 in w)
