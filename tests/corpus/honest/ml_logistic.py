import json
import numpy as np


class LogisticRegression:
    def __init__(self, rate=0.1, steps=200):
        self.rate, self.steps = rate, steps
        self._weights = None

    @staticmethod
    def _sigmoid(x):
        return 1.0 / (1.0 + np.exp(-x))

    def fit(self, features, labels):
        self._weights = np.zeros(features.shape[1])
        for _ in range(self.steps):
            error = self._sigmoid(features @ self._weights) - labels
            self._weights -= self.rate * features.T @ error / len(labels)
        return self

    def predict(self, features):
        return (self._sigmoid(features @ self._weights) > 0.5).astype(int)


close = np.array([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]])
r = np.diff(close) / close[:-1]
x = np.column_stack([r[1:-1], r[:-2], np.ones(len(r) - 2)])
y = (r[2:] > 0).astype(float)
split = int(0.7 * len(x))
model = LogisticRegression().fit(x[:split], y[:split])
print("train/test:", split, (model.predict(x[split:]) == y[split:]).mean().round(3))
