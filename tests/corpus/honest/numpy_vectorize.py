import numpy as np

payoff = np.vectorize(lambda price, strike: max(price - strike, 0.0))
grid = np.linspace(90, 110, 5)
strikes = np.array([95, 100, 105])
table = payoff(grid[:, np.newaxis], strikes[None, :])
print(table.astype(int).tolist())
print(np.apply_along_axis(np.sum, 0, table), grid.round(1))
