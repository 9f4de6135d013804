"""Bootstrap a buy-and-hold strategy: how bad can the drawdown get by chance?"""

import json

import numpy as np

SIMULATIONS = 50_000
BATCH = 500
SEED = 7


def load_returns() -> np.ndarray:
    """Read daily returns from the closing prices."""
    with open("/workspace/data.json", encoding="utf-8") as handle:
        closes = np.array(json.load(handle)["bars"]["close"], dtype=float)
    return closes[1:] / closes[:-1] - 1.0


def simulate_paths(returns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw daily returns with replacement and compound them, once per simulation."""
    batches = []
    for done in range(BATCH, SIMULATIONS + 1, BATCH):
        sample = rng.choice(returns, size=(BATCH, len(returns)))
        batches.append(np.cumprod(1.0 + sample, axis=1))
        print(f"simulated {done} of {SIMULATIONS} paths", flush=True)
    return np.concatenate(batches)


def main() -> None:
    """Print the drawdown that one simulation in twenty exceeds."""
    returns = load_returns()
    print(f"bootstrapping {SIMULATIONS} paths of {len(returns)} days", flush=True)
    equity = simulate_paths(returns, np.random.default_rng(SEED))
    drawdowns = (equity / np.maximum.accumulate(equity, axis=1) - 1.0).min(axis=1)
    worst = float(np.percentile(drawdowns, 5))
    print(json.dumps({"strategy": "bootstrap_drawdown", "drawdown_5th_percentile": worst}))


if __name__ == "__main__":
    main()
