"""What the statistics of compare and gate do on data whose truth is known: the tables of docs/simulations.md.

    python benchmarks/simulate_gate.py --write docs/simulations.md      all, full size (half an hour)
    python benchmarks/simulate_gate.py --tables power --repeats 200     one of them, quickly, on stdout

Scores are made to look like those of a judge: 0, 0.5 or 1 an image, prompts of unequal ease, images of a
prompt alike (intra-prompt correlation 0.4), and metrics of the same prompts alike (correlation 0.5), which is
what happens when several scorers look at the same pictures.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special, stats

from bench.compare.calibrate import metric_band
from bench.compare.effects import Effect
from bench.compare.gate import PASS, REGRESSION, MetricVerdict, Tolerance, judge, overall
from bench.compare.paired import paired_effect
from bench.compare.statistics import interval, minimum_detectable_effect, sign_flip_p

# R repeats, M metrics, N prompts, S samples

FAMILY = ("color", "shape", "texture", "spatial", "non-spatial", "complex")


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where scores come from. within: share of the variance that images of a prompt share in one run."""

    prompts: int
    samples: int = 1
    metrics: int = len(FAMILY)
    between_metrics: float = 0.5
    within: float = 0.4

    def ease(self, rng: np.random.Generator) -> np.ndarray:
        """(M, N) in (0, 1): how often an attribute of the prompt comes out right."""
        return stats.beta.ppf(special.ndtr(self._alike(rng)), 3.0, 1.2)

    def _alike(self, rng: np.random.Generator) -> np.ndarray:
        """(M, N) normal, metrics of a prompt correlated."""
        shared = rng.standard_normal(self.prompts)
        own = rng.standard_normal((self.metrics, self.prompts))
        return math.sqrt(self.between_metrics) * shared + math.sqrt(1 - self.between_metrics) * own

    def run(self, ease: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(M, N, S) scores of one run with seeds of its own."""
        luck = math.sqrt(self.within) * self._alike(rng)[..., None]
        noise = rng.standard_normal((self.metrics, self.prompts, self.samples))
        level = special.ndtr(luck + math.sqrt(1 - self.within) * noise)
        right = ease[..., None]
        return np.where(level < right, 1.0, np.where(level < (1 + right) / 2, 0.5, 0.0))


def spoil(scores: np.ndarray, drop: float, rng: np.random.Generator) -> np.ndarray:
    """Scores of one metric with right pictures turned wrong, so that the mean falls by `drop` on average."""
    share = drop / float(scores.mean())
    return np.where(rng.random(scores.shape) < share, 0.0, scores)


def effects(before: np.ndarray, after: np.ndarray, *, resamples: int, seed: int) -> dict[str, Effect]:
    """Of two runs, (M, N, S) each."""
    return {
        FAMILY[k]: paired_effect(
            FAMILY[k],
            before[k].mean(axis=1),
            after[k].mean(axis=1),
            (after[k] - before[k]).mean(axis=1),
            num_images=before[k].size,
            resamples=resamples,
            seed=seed,
        )
        for k in range(len(before))
    }


def verdicts(
    found: Mapping[str, Effect], tolerance: float, *, seed: int = 0, alpha: float = 0.05
) -> list[MetricVerdict]:
    allowed = {name: Tolerance(tolerance, "given") for name in found}
    return judge(found, list(found), allowed, seed=seed, alpha=alpha)


def share(hits: int, of: int) -> str:
    """A share in percent with its 95 % half-width."""
    p = hits / of
    half = 1.96 * math.sqrt(max(p * (1 - p), 1 / of) / of)
    return f"{100 * p:.1f} ± {100 * half:.1f}"


Row = list[str]


# ---- intervals -------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, int], np.ndarray]


def _choice(values: Sequence[float], shares: Sequence[float]) -> Draw:
    return lambda rng, n: rng.choice(np.array(values), n, p=np.array(shares))


# draw of N differences, true mean
SHAPES: dict[str, tuple[Draw, float]] = {
    "normal, sd 0.25": (lambda rng, n: rng.normal(-0.03, 0.25, n), -0.03),
    "right or wrong, 0.88 -> 0.83": (
        lambda rng, n: (rng.random(n) < 0.83) * 1.0 - (rng.random(n) < 0.88),
        -0.05,
    ),
    "half steps": (_choice([-1, -0.5, 0, 0.5, 1], [0.04, 0.12, 0.70, 0.10, 0.04]), -0.01),
    "3 % worse, 1 % better": (_choice([-1, 1, 0], [0.03, 0.01, 0.96]), -0.02),
    "10 % worse, none better": (_choice([-1, 0], [0.10, 0.90]), -0.10),
    "5 % worse, none better": (_choice([-1, 0], [0.05, 0.95]), -0.05),
    "2 % worse, none better": (_choice([-1, 0], [0.02, 0.98]), -0.02),
    "skewed (gamma, 0.5)": (lambda rng, n: 0.2 * (1 - rng.gamma(0.5, 2, n)) - 0.02, -0.02),
    "very skewed (lognormal)": (lambda rng, n: -0.05 * rng.lognormal(0, 1, n), -0.05 * math.exp(0.5)),
}
SIZES = (20, 50, 100, 300)


def percentile(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def bca(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    mean, off = values.mean(), values - values.mean()
    if not off.any():
        return float(mean), float(mean)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    below = (np.sum(means < mean) + 0.5 * np.sum(means == mean)) / resamples
    bias = special.ndtri(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    skew = np.sum(off**3) / (6 * np.sum(off**2) ** 1.5)
    z = bias + special.ndtri([0.025, 0.975])
    low, high = np.quantile(means, special.ndtr(bias + z / (1 - skew * z)))
    return float(low), float(high)


def student(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    reach = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def ours(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    return interval(values, resamples=resamples, seed=seed)


METHODS = {"percentile": percentile, "BCa": bca, "Student's t": student, "here": ours}


def coverage(shape: str, count: int, *, repeats: int, resamples: int) -> dict[str, tuple[int, float]]:
    """method -> how many of the intervals hold the truth, and their mean width."""
    draw, truth = SHAPES[shape]
    rng = np.random.default_rng([count, *shape.encode()])
    held, width = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0)
    for k in range(repeats):
        values = draw(rng, count)
        for name, method in METHODS.items():
            low, high = method(values, resamples=resamples, seed=k)
            held[name] += low - 1e-12 <= truth <= high + 1e-12
            width[name] += (high - low) / repeats
    return {name: (held[name], width[name]) for name in METHODS}


def coverage_table(repeats: int) -> list[Row]:
    rows = [["differences", "prompts", *METHODS, "width, t", "width, here"]]
    for shape in SHAPES:
        for count in SIZES:
            found = coverage(shape, count, repeats=repeats, resamples=1000)
            shares = [f"{100 * found[name][0] / repeats:.1f}" for name in METHODS]
            widths = [f"{found[name][1]:.3f}" for name in ("Student's t", "here")]
            rows.append([shape, str(count), *shares, *widths])
    return rows


# ---- false red -------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Reds:
    """Runs with at least one red metric: by the gate, without Holm, and taking images for independent."""

    gate: int = 0
    without_holm: int = 0
    by_image: int = 0
    green: int = 0


def a_a(world: World, *, tolerance: float, repeats: int, resamples: int) -> Reds:
    """The same system twice, with seeds of its own each time."""
    reds = Reds()
    for k in range(repeats):
        rng = np.random.default_rng([k, world.prompts, world.samples])
        ease = world.ease(rng)
        before, after = world.run(ease, rng), world.run(ease, rng)
        found = effects(before, after, resamples=resamples, seed=k)
        said = overall(verdicts(found, tolerance, seed=k))
        reds.gate += said == REGRESSION
        reds.green += said == PASS
        reds.without_holm += any(e.p is not None and e.p <= 0.05 and e.difference < 0 for e in found.values())
        reds.by_image += _by_image(before, after, resamples, k)
    return reds


def _by_image(before: np.ndarray, after: np.ndarray, resamples: int, seed: int) -> bool:
    """What Holm finds if every image is taken for a prompt of its own."""
    flat = [(a - b).ravel() for a, b in zip(after, before, strict=True)]
    p_values = sorted((sign_flip_p(d, resamples=resamples, seed=seed), d.mean()) for d in flat if d.any())
    for rank, (p, mean) in enumerate(p_values):
        if p > 0.05 / (len(before) - rank):
            return False
        if mean < 0:
            return True
    return False


def false_red_table(repeats: int) -> list[Row]:
    rows = [
        [
            "prompts",
            "images a prompt",
            "tolerance",
            "gate red",
            "without Holm",
            "images as prompts",
            "gate green",
        ]
    ]
    for prompts, samples, tolerance in (
        *((20, 1, 0.0), (50, 1, 0.0), (300, 1, 0.0), (50, 4, 0.0), (300, 4, 0.0)),
        *((50, 1, 0.05), (300, 1, 0.05), (300, 4, 0.05)),
    ):
        world = World(prompts=prompts, samples=samples)
        reds = a_a(world, tolerance=tolerance, repeats=repeats, resamples=2000)
        counted = (reds.gate, reds.without_holm, reds.by_image, reds.green)
        rows.append(
            [str(prompts), str(samples), f"{tolerance:g}", *(share(count, repeats) for count in counted)]
        )
    return rows


# ---- power -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    """stated: the drop.   named: runs that were red by the spoilt metric.   others: red by another one."""

    stated: float
    named: int
    others: int


def injected(
    world: World, *, tolerance: float, repeats: int, resamples: int, factor: float = 1.0, pilots: int = 20
) -> Caught:
    """A candidate whose first metric falls by `factor` times what the gate states for A/A runs."""
    stated = float(np.mean([_stated(world, tolerance, k, resamples) for k in range(pilots)]))
    named = others = 0
    for k in range(repeats):
        rng = np.random.default_rng([7, k, world.prompts, world.samples])
        ease = world.ease(rng)
        before, after = world.run(ease, rng), world.run(ease, rng)
        after[0] = spoil(after[0], factor * stated, rng)
        said = verdicts(effects(before, after, resamples=resamples, seed=k), tolerance, seed=k)
        named += said[0].verdict == REGRESSION
        others += any(m.verdict == REGRESSION for m in said[1:])
    return Caught(stated=factor * stated, named=named, others=others)


def _stated(world: World, tolerance: float, pilot: int, resamples: int) -> float:
    """What the gate says of one A/A run that it would find with 80 % power in the first metric."""
    rng = np.random.default_rng([3, pilot, world.prompts, world.samples])
    ease = world.ease(rng)
    found = effects(world.run(ease, rng), world.run(ease, rng), resamples=resamples, seed=pilot)
    stated = verdicts(found, tolerance, seed=pilot)[0].detectable_drop
    assert stated is not None
    return stated


def power_table(repeats: int) -> list[Row]:
    rows = [
        [
            "prompts",
            "images a prompt",
            "tolerance",
            "metrics",
            "drop",
            "of the stated one",
            "caught, named",
            "another red",
        ]
    ]
    cases = [
        *((50, 1, 0.02, 6, 1.0), (100, 1, 0.02, 6, 1.0), (300, 1, 0.02, 6, 1.0), (300, 4, 0.02, 6, 1.0)),
        *((300, 1, 0.02, 1, 1.0), (300, 4, 0.10, 6, 1.0), (300, 1, 0.02, 6, 0.5), (300, 1, 0.02, 6, 1.5)),
    ]
    for prompts, samples, tolerance, metrics, factor in cases:
        world = World(prompts=prompts, samples=samples, metrics=metrics)
        found = injected(world, tolerance=tolerance, repeats=repeats, resamples=2000, factor=factor)
        head = [
            str(prompts),
            str(samples),
            f"{tolerance:g}",
            str(metrics),
            f"{found.stated:.3f}",
            f"{factor:g}",
        ]
        rows.append([*head, share(found.named, repeats), share(found.others, repeats)])
    return rows


def closed_form(sd: float, count: int, *, repeats: int, resamples: int) -> tuple[float, int]:
    """The minimum detectable effect of the closed form and how many of normal differences show it at 5 %."""
    effect = minimum_detectable_effect(sd, count)
    rng = np.random.default_rng([count, round(1000 * sd)])
    caught = 0
    for k in range(repeats):
        values = rng.normal(-effect, sd, count)
        caught += sign_flip_p(values, resamples=resamples, seed=k) <= 0.05 and values.mean() < 0
    return effect, caught


def closed_form_table(repeats: int) -> list[Row]:
    rows = [["sd of differences", "prompts", "minimum detectable effect", "found at 5 %"]]
    for sd, count in ((0.15, 300), (0.25, 300), (0.35, 300), (0.25, 100), (0.25, 50), (0.25, 20)):
        effect, caught = closed_form(sd, count, repeats=repeats, resamples=2000)
        rows.append([f"{sd:g}", str(count), f"{effect:.4f}", share(caught, repeats)])
    return rows


# ---- calibration -----------------------------------------------------------------------------------------


def band_left(world: World, *, runs: int, repeats: int) -> int:
    """How often some metric of two fresh runs leaves a band that was made of other runs of that system."""
    left = 0
    for k in range(repeats):
        rng = np.random.default_rng([11, k, world.prompts])
        ease = world.ease(rng)
        known = np.stack([world.run(ease, rng).mean(axis=2) for _ in range(runs)])  # (K, M, N)
        bands = [
            metric_band(known[:, m], alpha=0.05, num_metrics=world.metrics).band for m in range(world.metrics)
        ]
        fresh = world.run(ease, rng).mean(axis=(1, 2)) - world.run(ease, rng).mean(axis=(1, 2))
        left += bool((np.abs(fresh) > bands).any())
    return left


def band_table(repeats: int) -> list[Row]:
    rows = [["prompts", "images a prompt", "runs", "pairs beyond the band"]]
    for prompts, samples, runs in ((20, 1, 2), (20, 1, 5), (300, 1, 2), (300, 1, 3), (300, 4, 3)):
        left = band_left(World(prompts=prompts, samples=samples), runs=runs, repeats=repeats)
        rows.append([str(prompts), str(samples), str(runs), share(left, repeats)])
    return rows


# ---- all of it -------------------------------------------------------------------------------------------

# name -> (table, repeats at full size)
TABLES = {
    "coverage": (coverage_table, 2000),
    "false-red": (false_red_table, 1000),
    "power": (power_table, 1000),
    "closed-form": (closed_form_table, 2000),
    "band": (band_table, 2000),
}


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def write_into(path: Path, name: str, table: str) -> None:
    """Put a table between <!-- name --> and <!-- /name -->."""
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not pattern.search(text):
        raise SystemExit(f"{path} has no place for the table '{name}'")
    path.write_text(pattern.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description="Simulations of compare and gate.")
    found.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    found.add_argument("--repeats", type=int, help="of each row; default: full size")
    found.add_argument("--write", type=Path, help="the document to put the tables into")
    return found


def main() -> None:
    arguments = parser().parse_args()
    for name in arguments.tables:
        table, full = TABLES[name]
        start = time.monotonic()
        repeats = arguments.repeats or full
        text = f"{markdown(table(repeats))}\n\n{repeats} repeats a row."
        if arguments.write:
            write_into(arguments.write, name, text)
        print(f"{name}, {time.monotonic() - start:.0f} s\n\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
