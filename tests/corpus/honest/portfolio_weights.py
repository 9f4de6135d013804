import numpy as np

np.random.seed(7)
returns = np.random.randn(250, 4) * 0.01 + [0.0004, 0.0003, 0.0002, 0.0001]
cov = np.cov(returns, rowvar=False)
inverse = np.linalg.inv(cov)
ones = np.ones(4)
weights = inverse @ ones / (ones @ inverse @ ones)
sharpe = (returns @ weights).mean() / (returns @ weights).std() * np.sqrt(252)
print(weights.round(3).tolist(), round(float(sharpe), 3))
print(np.linalg.eigvalsh(cov).min() > 0)
