"""Store what the tools that people quote say of the inputs in cases.py, on shared random weights.

    python make.py fid                     # clean-fid, torch-fidelity, pytorch-fid, torchmetrics; 3 min
    python make.py statistics              # KID, precision/recall and Fréchet steps of the same tools
    python make.py dinov2 DINOV2           # a checkout of facebookresearch/dinov2
    python make.py cmmd DISTANCE_PY        # cmmd/distance.py of google-research/google-research; needs jax

Versions stand in the files. The Inception weights are random_state_dict of features/inception.py,
whose sha256 is stored; each tool loads them through its own code for its own file format.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.golden.set_metrics import cases  # noqa: E402


def write_json(name: str, data: dict[str, Any], packages: tuple[str, ...]) -> None:
    versions = {package: importlib.metadata.version(package) for package in packages}
    (HERE / name).write_text(json.dumps({"versions": versions, **data}, indent=1) + "\n")


def state_sha256(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()


# ---- FID from pictures to number -------------------------------------------------------------------------


def make_fid() -> None:
    import torch

    from bench.set_metrics.features.inception import random_state_dict
    from bench.systems.images import encode_png
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    torch.set_num_threads(1)
    state = random_state_dict(divisor=1, seed=cases.INCEPTION_SEED)
    with tempfile.TemporaryDirectory() as where:
        folders = [Path(where) / name for name in ("first", "second")]
        for folder, images in zip(folders, cases.pictures(), strict=True):
            folder.mkdir()
            for k, image in enumerate(images):
                (folder / f"{k:02d}.png").write_bytes(encode_png(image))
        weights = Path(where) / "weights.pth"
        torch.save(state, weights)
        values, features = {}, {}
        for mode, tool in TOOLS.items():
            values[mode], features[mode] = tool(folders, weights, state)
            print(mode, values[mode], flush=True)
    packages = (
        "clean-fid",
        "torch-fidelity",
        "pytorch-fid",
        "torchmetrics",
        "torch",
        "torchvision",
        "pillow",
        "scipy",
    )
    data = {"inception_sha256": state_sha256(state), "seed": cases.INCEPTION_SEED, "fid": values}
    write_json("fid.json", data, packages)
    np.savez_compressed(HERE / "inception.npz", **{m: f[: cases.KEPT] for m, f in features.items()})


def _pytorch_fid_network(state: dict[str, Any], **options: Any) -> Any:
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda *args, **kwargs: state
    return inception.InceptionV3([3], **options).eval()


def clean_fid(folders: list[Path], weights: Path, state: dict[str, Any]) -> tuple[float, np.ndarray]:
    """clean-fid with pytorch-fid's network in place of its TorchScript file, scaled as that one scales."""
    import torch
    from cleanfid import fid

    network = _pytorch_fid_network(state, resize_input=False, normalize_input=False)

    def extractor(batch: Any) -> Any:
        with torch.no_grad():
            return network((batch - 128) / 128)[0].flatten(1)

    options = {"num_workers": 0, "batch_size": 1, "device": torch.device("cpu"), "verbose": False}
    value = fid.compute_fid(
        str(folders[0]), str(folders[1]), mode="clean", custom_feat_extractor=extractor, **options
    )
    return float(value), fid.get_folder_features(str(folders[0]), extractor, mode="clean", **options)


def torch_fidelity(folders: list[Path], weights: Path, state: dict[str, Any]) -> tuple[float, np.ndarray]:
    import torch
    import torch_fidelity as tool
    from PIL import Image
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    found = tool.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        fid=True,
        cuda=False,
        cache=False,
        batch_size=1,
        feature_extractor_weights_path=str(weights),
        save_cpu_ram=True,
        verbose=False,
    )
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))
    rows = []
    for path in sorted(folders[0].iterdir()):
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
        rows.append(network(image)[0][0].numpy())
    return float(found["frechet_inception_distance"]), np.stack(rows)


def pytorch_fid(folders: list[Path], weights: Path, state: dict[str, Any]) -> tuple[float, np.ndarray]:
    from pytorch_fid import fid_score

    network = _pytorch_fid_network(state)
    options = {"batch_size": 1, "device": "cpu", "num_workers": 0}
    value = fid_score.calculate_fid_given_paths([str(folder) for folder in folders], dims=2048, **options)
    files = sorted(folders[0].iterdir())
    return float(value), fid_score.get_activations(files, network, **options).astype(np.float32)


def torchmetrics(folders: list[Path], weights: Path, state: dict[str, Any]) -> tuple[float, np.ndarray]:
    import torch
    from PIL import Image
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights))
    rows = []
    for folder, real in zip(folders, (False, True), strict=True):
        for path in sorted(folder.iterdir()):
            image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
            metric.update(image, real=real)
            if not real:
                rows.append(metric.inception(image)[0].numpy())
    return float(metric.compute()), np.stack(rows)


TOOLS = {"clean": clean_fid, "tf": torch_fidelity, "pytorch-fid": pytorch_fid, "torchmetrics": torchmetrics}


# ---- statistics of given features ------------------------------------------------------------------------


def make_statistics() -> None:
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    frechet = [_frechet_steps(*case) for case in cases.FRECHET_CASES]
    data = {"frechet": frechet, "kid": _kid(), "precision_recall": _precision_recall()}
    write_json(
        "statistics.json",
        data,
        ("clean-fid", "torch-fidelity", "pytorch-fid", "torchmetrics", "scipy", "numpy"),
    )


def _frechet_steps(num_images: int, num_reference: int, num_features: int) -> dict[str, float]:
    import torch
    from cleanfid.fid import fid_from_feats
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    x = cases.features(num_images, num_features, 1)
    y = cases.features(num_reference, num_features, 2)
    stats = [(a.mean(axis=0), np.cov(a, rowvar=False)) for a in (x, y)]
    tensors = [torch.from_numpy(array) for pair in stats for array in pair]
    fidelity = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(a)) for a in (x, y)), verbose=False
    )
    return {
        "clean-fid": float(fid_from_feats(x, y)),
        "pytorch-fid": float(calculate_frechet_distance(*stats[0], *stats[1])),
        "torch-fidelity": float(fidelity["frechet_inception_distance"]),
        "torchmetrics": float(_compute_fid(*tensors)),
    }


def _kid() -> dict[str, float]:
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torchmetrics.image.kid import KernelInceptionDistance

    count, reference, width = cases.KERNEL_CASE
    x, y = (torch.from_numpy(cases.features(n, width, k)) for k, n in ((1, count), (2, reference)))
    fidelity = kid_features_to_metric(
        x, y, kid_subsets=cases.KID_SUBSETS, kid_subset_size=cases.KID_SUBSET_SIZE, verbose=False
    )
    # all images in the one subset: no draw, whose order differs from tool to tool
    metric = KernelInceptionDistance(torch.nn.Identity(), subsets=1, subset_size=reference)
    metric.update(y, real=True)
    metric.update(x[:reference], real=False)
    return {
        "torch-fidelity mean": fidelity["kernel_inception_distance_mean"],
        "torch-fidelity std": fidelity["kernel_inception_distance_std"],
        "torchmetrics whole": float(metric.compute()[0]),
    }


def _precision_recall() -> dict[str, float]:
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    count, reference, width = cases.KERNEL_CASE
    x, y = (torch.from_numpy(cases.features(n, width, k)) for k, n in ((1, count), (2, reference)))
    found = prc_features_to_metric(
        x, y, prc_neighborhood=3, prc_batch_size=64, save_cpu_ram=False, verbose=False
    )
    return {"precision": found["precision"], "recall": found["recall"]}


# ---- the others ------------------------------------------------------------------------------------------


def make_dinov2(repository: Path) -> None:
    """The original network at the rehearsal's size, behind torchvision's transforms as in dgm-eval."""
    os.environ["XFORMERS_DISABLED"] = "1"
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(repository))
    import torch

    from bench.set_metrics.features.dinov2 import REHEARSAL, random_state_dict
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    import torchvision.transforms as transforms
    from dinov2.models.vision_transformer import DinoVisionTransformer  # type: ignore[import-not-found]
    from PIL import Image

    state = random_state_dict(REHEARSAL, seed=cases.DINOV2_SEED)
    # the arguments of dinov2/hub/backbones.py for vitl14, but for the sizes
    network = DinoVisionTransformer(
        img_size=518,
        patch_size=14,
        embed_dim=REHEARSAL.width,
        depth=REHEARSAL.depth,
        num_heads=REHEARSAL.heads,
        mlp_ratio=4,
        init_values=1.0,
        block_chunks=0,
        interpolate_antialias=False,
        interpolate_offset=0.1,
    ).eval()
    network.load_state_dict(state, strict=True)
    prepare: Any = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.set_num_threads(1)
    with torch.no_grad():
        rows = [network(prepare(Image.fromarray(image))[None])[0].numpy() for image in cases.pictures()[0]]
    np.savez_compressed(HERE / "dinov2.npz", features=np.stack(rows))


def make_cmmd(distance: Path) -> None:
    os.environ["JAX_ENABLE_X64"] = "1"
    spec = importlib.util.spec_from_file_location("distance", distance)
    module: Any = importlib.util.module_from_spec(spec) if spec else SimpleNamespace()
    assert spec and spec.loader
    spec.loader.exec_module(module)
    count, reference, width = cases.EMBEDDING_CASE
    x, y = (cases.features(n, width, k) for k, n in ((1, count), (2, reference)))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    write_json("cmmd.json", {"cmmd": float(module.mmd(x, y))}, ("jax", "numpy"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["fid", "statistics", "dinov2", "cmmd"])
    parser.add_argument("path", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.what == "fid":
        make_fid()
    elif arguments.what == "statistics":
        make_statistics()
    elif arguments.path is None:
        parser.error(f"{arguments.what} needs a path")
    elif arguments.what == "dinov2":
        make_dinov2(arguments.path)
    else:
        make_cmmd(arguments.path)


if __name__ == "__main__":
    main()
