"""Noise tables whose gamma is known: a trained model's gradients, as far as the judges look at them."""

import numpy as np
import pandas as pd

BATCHES, DIMENSIONS, EXPERTS, TOKENS = 96, 50, 8, 1024
LOADS = {"uniform": 0.0, "zipf0.5": 0.5, "zipf1": 1.0, "zipf1.5": 1.5}


def shares(exponent: float) -> np.ndarray:
    p = np.arange(1.0, EXPERTS + 1) ** -exponent
    return p / p.sum()


def noise_table(
    rng: np.random.Generator,
    gamma: float,
    *,
    seeds: int = 4,
    variance: float = 10.0,
    loads: dict[str, float] = LOADS,
    scatter: float = 0.2,
) -> pd.DataFrame:
    """sigma^2 = ``variance`` at 128 tokens; each expert of each seed has its own ``scatter`` octaves of sigma."""
    rows = []
    for setting, exponent in loads.items():
        for seed in range(seeds):
            tokens = TOKENS * shares(exponent) * 2 ** rng.normal(0, 0.03, EXPERTS)
            log2_sigma = np.log2(variance) / 2 - gamma * np.log2(tokens / 128) + rng.normal(0, scatter, EXPERTS)
            signal = 2 ** rng.normal(0, 0.3, EXPERTS)
            trace = signal * 4 ** (log2_sigma + 0.1 * rng.normal())
            degrees = DIMENSIONS * (BATCHES - 1)
            noise = trace * rng.chisquare(degrees, EXPERTS) / degrees
            share = trace / (DIMENSIONS * BATCHES)
            mean_square = share * rng.noncentral_chisquare(DIMENSIONS, signal / share)
            rows += [
                (setting, seed, e, tokens[e], noise[e], mean_square[e] - noise[e] / BATCHES) for e in range(EXPERTS)
            ]
    return pd.DataFrame(rows, columns=["setting", "seed", "expert", "tokens", "noise", "signal"])
