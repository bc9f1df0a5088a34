"""How often the intervals of a human study hold the truth, and how long they are: for docs/humaneval.md.

    python benchmarks/simulate_humaneval.py --repeats 1000     # minutes on one CPU core

Votes are drawn by bench.humaneval.simulate (ordered probit, prompts and raters as random effects), so the
true win, draw and lose are known. Four ways to an interval are compared on the same votes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from bench.humaneval.simulate import Truth, draw_votes
from bench.humaneval.statistics import Interval, prompt_bootstrap, two_way_interval

RESAMPLES = 400
DESIGNS = ((30, 5), (100, 5), (100, 15), (300, 5))
SPREADS = ((0.0, 0.0), (0.7, 0.0), (0.7, 0.3), (0.7, 0.7))  # of prompts and raters; the noise of a vote has 1
SHARES = (0.511, 0.198, 0.291)  # the paper's, of visual quality
QUANTITIES = {"win": (0.0, SHARES[0]), "draw": (0.0, SHARES[1]), "net": (-1.0, SHARES[0] - SHARES[2])}


def independent(values: np.ndarray) -> Interval:
    """As if all votes were independent."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    return Interval(values.mean() - half, values.mean() + half)


def pigeonhole(values: np.ndarray, rng: np.random.Generator) -> list[Interval]:
    """Of (K, prompts, raters): percentiles, prompts and raters both drawn with replacement (Owen 2007)."""
    _, prompts, raters = values.shape
    by_prompt = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES).astype(np.float64)
    by_rater = rng.multinomial(raters, np.full(raters, 1 / raters), size=RESAMPLES)
    means = ((by_prompt @ values) * by_rater).sum(axis=2) / (prompts * raters)
    return [Interval(*ends) for ends in np.percentile(means, [2.5, 97.5], axis=1).T]


def ways(votes: np.ndarray, rng: np.random.Generator) -> dict[str, list[Interval]]:
    """Each way's intervals of QUANTITIES, from votes (prompts, raters) in {-1, 0, 1}."""
    prompts, raters = votes.shape
    values = np.stack([votes > 0, votes == 0, votes]).astype(np.float64)
    flat = values.reshape(len(values), -1)
    ids, names = np.repeat(np.arange(prompts), raters), np.tile(np.arange(raters), prompts)
    used = [
        two_way_interval(column, ids, names, low=low)
        for column, (low, _) in zip(flat, QUANTITIES.values(), strict=True)
    ]
    return {
        "votes independent": [independent(column) for column in flat],
        "bootstrap of prompts": prompt_bootstrap(flat.T, ids, resamples=RESAMPLES),
        "bootstrap of both": pigeonhole(values, rng),
        "both, summed (used)": [interval for interval in used if interval is not None],
    }


def measure(prompts: int, raters: int, truth: Truth, repeats: int, seed: int) -> dict[str, np.ndarray]:
    """way -> (repeats, quantities, 2): whether the truth is held, and the length."""
    found: dict[str, list] = defaultdict(list)
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        votes = draw_votes(truth, prompts=prompts, raters=raters, rng=rng)
        for way, intervals in ways(votes, rng).items():
            pairs = zip(intervals, QUANTITIES.values(), strict=True)
            found[way].append([(i.low <= true <= i.high, i.high - i.low) for i, (_, true) in pairs])
    return {way: np.array(rows, dtype=np.float64) for way, rows in found.items()}


def cell(found: np.ndarray) -> str:
    rates = " / ".join(f"{100 * rate:.1f}" for rate in found[:, :, 0].mean(axis=0))
    return f"{rates}; ±{50 * found[:, -1, 1].mean():.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the intervals of a human study.")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    error = 100 * np.sqrt(0.95 * 0.05 / options.repeats)
    print(
        f"{options.repeats} repeats a row, seed {options.seed}; at 95 % the standard error is {error:.1f}.\n"
    )
    has_head = False
    for prompts, raters in DESIGNS:
        for prompt_sd, rater_sd in SPREADS:
            win, draw, lose = SHARES
            truth = Truth(win=win, draw=draw, lose=lose, prompt_sd=prompt_sd, rater_sd=rater_sd)
            found = measure(prompts, raters, truth, options.repeats, options.seed)
            if not has_head:
                print("| prompts x raters | sd | " + " | ".join(found) + " |")
                print("|---" * (len(found) + 2) + "|")
                has_head = True
            cells = " | ".join(cell(rows) for rows in found.values())
            print(f"| {prompts} x {raters} | {prompt_sd:g}, {rater_sd:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
