# H W a picture; depth is larger where it is nearer

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.scorers import Context, ScorerRecord
from bench.scorers.checkpoints import Checkpoint, load
from bench.scorers.depth import (
    SIDE,
    SMALL,
    WEIGHTS_ID,
    Architecture,
    DepthEstimator,
    build_depth,
    check_keys,
    empty_network,
    load_network,
    network_input,
    published_shapes,
    renamed,
    stored_map,
)
from bench.weights import Located, MissingWeights, locate, make_random
from gentron.config import to_dict
from gentron.errors import UserError
from tests.golden.depth.case import CASES, PICTURES, STEP, state_dict
from tests.golden.unidet.case import picture
from tests.parity import Compare

DPT = "isl-org/DPT (stored)"
# by the official code: make.py beside it
GOLDEN = Path(__file__).parents[2] / "golden" / "depth" / "small.npz"
FP32 = {"precision": "fp32"}
# names and shapes in the official DPTDepthModel("vitb_rn50_384") of timm 0.4.12, without its classifier
PUBLISHED_SHA256 = "814651c9414d389835c3b80be90a56909e397835185fd1635e264f16b63a55bd"
DIGEST = hashlib.sha256(b"a picture").hexdigest()


@pytest.fixture(scope="module")
def official_weights() -> DepthEstimator:
    """The small network with the weights that the official code was run on."""
    network = empty_network(CASES["small"])
    state = renamed(state_dict(CASES["small"], 1))
    load(network, Checkpoint(Path("golden"), state, None), what="DPT", is_other=lambda key: False)
    return DepthEstimator(ScorerRecord(name="depth", version=1), network.eval(), "cpu", "fp32", None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder for rehearsals; read-only."""
    folder = tmp_path_factory.mktemp("models")
    make_random(WEIGHTS_ID, folder)
    return folder


def spread(depth: torch.Tensor) -> torch.Tensor:
    return (depth - depth.min()) / (depth.max() - depth.min())


# ---- the official code -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_depth_is_that_of_the_official_code(
    name: str, official_weights: DepthEstimator, parity: Compare
) -> None:
    """Equal to 1e-5 of a map's range; a byte may fall on the other side of a whole number."""
    image = picture(name)
    depth = official_weights.inverse_depth(image)
    with np.load(GOLDEN) as golden:
        low, high = golden[f"{name}/range"]
        reference, stored = golden[f"{name}/depth"], golden[f"{name}/map"]
    ours, theirs = spread(depth)[::STEP, ::STEP], (reference - low) / (high - low)
    parity("DPT depth", f"over its range, {name} picture", ours, theirs, against=DPT, atol=1e-5)
    found = official_weights.depth(image, DIGEST)[::STEP, ::STEP]
    assert found.shape == stored.shape
    wrong = np.abs(found.astype(int) - stored)
    assert wrong.max() <= 1 and np.count_nonzero(wrong) <= wrong.size / 1000


@pytest.mark.parametrize("size", [(480, 480), (640, 360), (1, 1), (7, 900)])
def test_bytes_are_those_that_pillow_cuts_from_floats(size: tuple[int, int]) -> None:
    width, height = size
    depth = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 7 + 30
    resized = torch.nn.functional.interpolate(
        spread(depth)[None, None], size=(height, width), mode="bilinear", align_corners=True
    )
    reference = np.asarray(Image.fromarray(255 * resized[0, 0].numpy()).convert("L"))
    assert np.array_equal(stored_map(depth, width, height), reference)


def test_the_nearest_is_255_and_the_farthest_0_and_fractions_are_cut() -> None:
    ramp = torch.arange(SIDE * SIDE, dtype=torch.float32).view(SIDE, SIDE)
    found = stored_map(ramp, SIDE, SIDE)
    assert (found[0, 0], found[-1, -1], found[-1, -2]) == (0, 255, 254)


def test_a_map_without_depth_is_0() -> None:
    assert stored_map(torch.full((SIDE, SIDE), 3.0), 4, 2).tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("size", [(512, 512), (1, 1), (640, 360)])
def test_a_picture_comes_in_as_torchvision_brings_it(size: tuple[int, int]) -> None:
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    transforms = pytest.importorskip("torchvision.transforms")
    image = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    steps = [
        transforms.Resize([SIDE, SIDE]),
        transforms.ToTensor(),
        transforms.Normalize(mean=0.5, std=0.5),
    ]
    assert network_input(image)[0].equal(transforms.Compose(steps)(Image.fromarray(image)))


# ---- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1)])
def test_any_shape_of_picture_has_a_depth(shape: tuple[int, int], models: Path) -> None:
    estimator = build_depth(FP32, Context(models=models))
    image = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
    found = estimator.depth(image, DIGEST)
    assert found.shape == shape and found.dtype == np.uint8


def test_random_weights_give_a_map_and_the_same_again(models: Path) -> None:
    estimator = build_depth(FP32, Context(models=models))
    found = estimator.depth(picture("wide"), DIGEST)
    assert found.shape == (360, 640) and found.min() == 0 and found.max() > 250
    assert np.array_equal(estimator.depth(picture("wide"), DIGEST), found)
    assert estimator.record.random_weights and set(estimator.record.weights) == {WEIGHTS_ID}


def test_depth_that_is_not_finite_is_an_error(official_weights: DepthEstimator) -> None:
    class Broken(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> Any:
            return type("Output", (), {"predicted_depth": torch.full((1, SIDE, SIDE), float("nan"))})

    network: Any = Broken()
    broken = DepthEstimator(official_weights.record, network, "cpu", "fp32", None)
    with pytest.raises(UserError, match="not finite in fp32: its weights are damaged"):
        broken.depth(picture("dot"), DIGEST)


# ---- weights ---------------------------------------------------------------------------------------------


def save(path: Path, content: Any) -> Located:
    torch.save(content, path)
    return Located(WEIGHTS_ID, path, "", True)


def small_content() -> dict[str, Any]:
    return {"model": state_dict(SMALL, 1), "architecture": to_dict(SMALL)}


def test_every_tensor_of_the_real_network_has_a_published_one() -> None:
    ours = {key: tuple(value.shape) for key, value in empty_network(Architecture()).state_dict().items()}
    published = published_shapes(ours)
    lines = "\n".join(f"{key} {shape}" for key, shape in sorted(published.items()))
    assert len(published) == 366 and hashlib.sha256(lines.encode()).hexdigest() == PUBLISHED_SHA256
    with torch.device("meta"):
        state = {key: torch.zeros(shape) for key, shape in published.items()}
    assert {key: tuple(value.shape) for key, value in renamed(state).items()} == ours


def test_the_classifier_does_not_matter_and_wrong_keys_are_one_clear_line(tmp_path: Path) -> None:
    content = small_content()
    content["model"] |= {"pretrained.model.head.weight": torch.zeros(1000, 32)}
    load_network(save(tmp_path / "a.pt", content))
    del content["model"]["pretrained.model.blocks.3.attn.qkv.bias"]
    content["model"] |= {"scratch.refinenet5.out_conv.weight": torch.zeros(1)}
    with pytest.raises(UserError) as caught:
        load_network(save(tmp_path / "a.pt", content))
    message = str(caught.value)
    assert "\n" not in message and "a.pt' is not DPT-Hybrid: 3 of its tensors are missing" in message
    assert "belong to no part of it, such as 'scratch.refinenet5.out_conv.weight'" in message


def test_a_bare_state_dict_is_the_published_form(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", small_content()["model"])
    with pytest.raises(
        UserError, match="is not DPT-Hybrid: .* have another shape"
    ):  # small, so not the real one
        check_keys(WEIGHTS_ID, tmp_path / "a.pt")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", small_content())
    data = (tmp_path / "a.pt").read_bytes()
    for length in (0, 100, len(data) // 2):
        (tmp_path / "b.pt").write_bytes(data[:length])
        with pytest.raises(UserError, match="cannot read weights from .*b.pt'.*get it again"):
            check_keys(WEIGHTS_ID, tmp_path / "b.pt")


def test_small_random_weights_are_refused_as_real_ones(models: Path) -> None:
    with pytest.raises(UserError, match="holds small random weights, not DPT-Hybrid's"):
        check_keys(WEIGHTS_ID, locate(WEIGHTS_ID, models).path)


def test_missing_weights_and_fp16_without_cuda_say_so(models: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="dpt-hybrid"):
        build_depth(FP32, Context(models=tmp_path))
    with pytest.raises(UserError, match="depth.precision fp16 needs CUDA, the device is cpu"):
        build_depth({"precision": "fp16"}, Context(models=models))
    with pytest.raises(ValueError, match="depth.precision must be one of"):
        build_depth({"precision": "bf16"}, Context(models=models))


# ---- the cache -------------------------------------------------------------------------------------------


class Ramp(torch.nn.Module):
    """A network that counts its looks."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def forward(self, pixels: torch.Tensor) -> Any:
        self.looks += 1
        ramp = torch.arange(SIDE * SIDE, dtype=torch.float32).view(1, SIDE, SIDE)
        return type("Output", (), {"predicted_depth": ramp})


def test_a_map_is_made_once_and_again_if_damaged(tmp_path: Path) -> None:
    network: Any = Ramp()
    estimator = DepthEstimator(ScorerRecord(name="depth", version=1), network, "cpu", "fp32", tmp_path)
    image = picture("tall")
    first = estimator.depth(image, DIGEST)
    assert np.array_equal(estimator.depth(image, DIGEST), first) and network.looks == 1
    path = estimator.path(DIGEST)
    assert path is not None
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    smaller = tmp_path / "smaller.png"
    Image.fromarray(first[:5]).save(smaller)
    for number, data in enumerate([b"", whole[:50], whole[:-40], bytes(flipped), smaller.read_bytes()], 2):
        path.write_bytes(data)
        assert np.array_equal(estimator.depth(image, DIGEST), first)
        assert network.looks == number and path.read_bytes() == whole
