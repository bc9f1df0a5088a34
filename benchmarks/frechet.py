"""CPU time of the Fréchet step, ours against the tools people use, from two sets of features to the distance.

    OMP_NUM_THREADS=1 python benchmarks/frechet.py [--repeats 5] [--json FILE]

What is compared: everything after the network, which all of them call on each evaluation: means, covariances
and the distance, from two float32 arrays (N, 2048). No tool gets anything ready made, and ours keeps nothing
from one repeat to the next.
    clean-fid        fid_from_feats: np.cov, then scipy.linalg.sqrtm of S1 S2
    torch-fidelity   fid_features_to_statistics, fid_statistics_to_metric: np.cov, then numpy eigvals of S1 S2
    torchmetrics     what FrechetInceptionDistance does in update and compute: sums and X^T X in float64, then
                     torch eigvals of S1 S2
    pytorch-fid      calculate_frechet_distance after np.cov, as its calculate_activation_statistics does
Runs are interleaved, each on one thread, and the time is that of the process, so that other work on the
machine hardly counts; reported are the fastest of the repeats and the ratio to ours. The features are
correlated and >= 0, with two spectra, the second so steep that ours is near the way that keeps more digits.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

from bench.set_metrics.frechet import frechet_distance  # noqa: E402
from gentron.torchvision_ops import prepare_torchvision  # noqa: E402

WIDTH = 2048
SIZES = (1000, 4096)


SPECTRA = {"flat": 0.3, "steep": 0.7}


def features(num_images: int, seed: int, decay: float) -> np.ndarray:
    """(N, 2048) float32, >= 0. decay: of the latent deviations, as a power of their rank."""
    mixing = np.random.RandomState(0).randn(512, WIDTH).astype(np.float32)
    scale = (1 + np.arange(512, dtype=np.float32)) ** -decay
    rng = np.random.RandomState(seed)
    latent = rng.randn(num_images, 512).astype(np.float32) * scale
    noise = 0.02 * rng.randn(num_images, WIDTH).astype(np.float32)
    return np.abs(0.3 * latent @ mixing / 4 + noise + 0.3)


def ours(x: np.ndarray, y: np.ndarray) -> float:
    return frechet_distance(x, y)


def clean_fid(x: np.ndarray, y: np.ndarray) -> float:
    from cleanfid.fid import fid_from_feats

    return float(fid_from_feats(x, y))


def pytorch_fid(x: np.ndarray, y: np.ndarray) -> float:
    from pytorch_fid.fid_score import calculate_frechet_distance

    m, s = np.mean(x, axis=0), np.cov(x, rowvar=False)
    n, t = np.mean(y, axis=0), np.cov(y, rowvar=False)
    return float(calculate_frechet_distance(m, s, n, t))


def torch_fidelity(x: np.ndarray, y: np.ndarray) -> float:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    first, second = (fid_features_to_statistics(torch.from_numpy(array)) for array in (x, y))
    return float(fid_statistics_to_metric(first, second, verbose=False)["frechet_inception_distance"])


def torchmetrics(x: np.ndarray, y: np.ndarray) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Given(torch.nn.Module):
        """Hands the features through, so that only the metric's own work is timed."""

        num_features = WIDTH

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows

    metric = FrechetInceptionDistance(feature=Given())
    metric.update(torch.from_numpy(x), real=False)
    metric.update(torch.from_numpy(y), real=True)
    return float(metric.compute())


TOOLS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "ours": ours,
    "torch-fidelity": torch_fidelity,
    "torchmetrics": torchmetrics,
    "clean-fid": clean_fid,
    "pytorch-fid": pytorch_fid,
}


def measure(num_images: int, decay: float, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds and value of each tool."""
    x, y = (features(num_images, seed, decay) for seed in (1, 2))
    seconds: dict[str, list[float]] = {name: [] for name in TOOLS}
    values: dict[str, float] = {}
    for _ in range(repeats):
        for name, tool in TOOLS.items():
            start = time.process_time()
            values[name] = tool(x, y)
            seconds[name].append(time.process_time() - start)
    best = min(seconds["ours"])
    return {
        name: {
            "seconds": min(times),
            "slowest": max(times),
            "ratio": min(times) / best,
            "value": values[name],
        }
        for name, times in seconds.items()
    }


PACKAGES = ("cleanfid.fid", "pytorch_fid.fid_score", "torch_fidelity.metric_fid", "torchmetrics.image.fid")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prepare_torchvision()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # scipy's of sqrtm(disp=), which two of the tools still call
    for package in PACKAGES:
        import_module(package)
    ours(*(features(50, seed, 0.3) for seed in (3, 4)))  # the first call of the algebra
    found: dict[str, dict[str, dict[str, float]]] = {}
    for spectrum, decay in SPECTRA.items():
        for n in SIZES:
            case = f"N = {n}, D = {WIDTH}, {spectrum} spectrum"
            found[case] = measure(n, decay, arguments.repeats)
            show(case, found[case])
    if arguments.json is not None:
        versions = {p: version(p) for p in ("numpy", "scipy", "torch", *list(TOOLS)[1:])}
        arguments.json.write_text(json.dumps({"versions": versions, "results": found}, indent=1) + "\n")


def show(case: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{case}\n{'':16} {'CPU s':>8} {'slowest':>8} {'ratio':>7}   distance")
    for name, row in rows.items():
        times = f"{row['seconds']:8.2f} {row['slowest']:8.2f} {row['ratio']:6.1f}x"
        print(f"{name:16} {times}   {row['value']:.8f}", flush=True)


if __name__ == "__main__":
    main()
