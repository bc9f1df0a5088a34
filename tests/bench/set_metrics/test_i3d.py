"""I3D of the Fréchet video distance: the original's logits, the clip it takes, its weights."""

# F frames of a clip

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.set_metrics.features import i3d
from bench.set_metrics.frechet import frechet_distance
from bench.weights import MissingWeights, add, make_random
from gentron.errors import UserError
from tests.golden.i3d import case
from tests.parity import Compare

GOLDEN = Path(__file__).parents[2] / "golden" / "i3d" / "logits.npz"


def clip(num_frames: int, seed: int = 0, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (num_frames, *size, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_random("i3d", folder)
    return folder


@pytest.mark.slow
def test_logits_are_the_originals(parity: Compare) -> None:
    network = i3d.I3D().eval()
    network.load_state_dict(case.state_dict())
    with np.load(GOLDEN) as stored:
        wanted = np.stack([stored[f"frames_{count}"] for count in case.FRAMES])
    with torch.inference_mode():
        found = np.stack([network(case.clip(count))[0].numpy() for count in case.FRAMES])
    largest = np.abs(wanted).max()
    against = "piergiaj/pytorch-i3d (stored)"
    parity(
        "FVD", "I3D logits over their largest", found / largest, wanted / largest, against=against, atol=1e-5
    )


def test_the_published_file_has_344_tensors() -> None:
    with torch.device("meta"):
        network = i3d.I3D()
    names = network.state_dict().keys()
    assert len(names) == 344
    assert {"Conv3d_1a_7x7.conv3d.weight", "Mixed_4f.b2b.bn.running_var", "logits.conv3d.bias"} <= names
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(16, 7, 2), (17, 7, 2), (7, 3, 1), (112, 3, 2), (5, 2, 2)]
)
def test_same_padding_gives_size_over_stride_rounded_up(size: int, kernel: int, stride: int) -> None:
    front, back = i3d.same_padding((size,), (kernel,), (stride,))
    assert (size + front + back - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= back - front <= 1


def test_the_clip_is_the_first_16_frames_in_a_square() -> None:
    frames = clip(20)
    found = i3d.prepare(frames, "stylegan-v")
    assert found.shape == (1, 3, 16, 224, 224) and -1 <= found.min() and found.max() <= 1
    torch.testing.assert_close(found, i3d.prepare(frames[:16, :, 2:22], "stylegan-v"))
    with pytest.raises(UserError, match="FVD takes 16 frames of a clip, got 15"):
        i3d.prepare(frames[:15], "tf")


def test_a_clip_of_224_is_only_scaled() -> None:
    frames = clip(16, size=(224, 224))
    wanted = torch.from_numpy(frames.transpose(3, 0, 1, 2).copy()).float() * 2 / 255 - 1
    for mode in i3d.MODES:
        torch.testing.assert_close(i3d.prepare(frames, mode)[0], wanted, atol=1e-6, rtol=0)


def test_modes_differ_on_clips_of_another_size() -> None:
    frames = clip(16)
    assert (i3d.prepare(frames, "tf") - i3d.prepare(frames, "stylegan-v")).abs().max() > 0.01


def test_features_are_the_clips_alone(models: Path) -> None:
    extractor = i3d.build("i3d", None, device="cpu", models=models)
    assert extractor.record.random_weights and extractor.record.mode == "tf"
    one, other = extractor.features(clip(16, 1)), extractor.features(clip(16, 2))
    assert one.shape == (400,) and one.dtype == np.float32
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_array_equal(extractor.features(clip(16, 1)), one)


def test_order_of_frames_counts(models: Path) -> None:
    """What tells it from a distance of pictures."""
    extractor = i3d.build("i3d", None, device="cpu", models=models)
    frames = clip(16, 3)
    assert np.abs(extractor.features(frames) - extractor.features(frames[::-1])).max() > 1e-3


def test_distance_of_a_set_with_itself_is_zero(models: Path) -> None:
    extractor = i3d.build("i3d", None, device="cpu", models=models)
    features = np.stack([extractor.features(clip(16, seed)) for seed in range(3)])
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6 * float((features**2).sum()))


def test_weights_are_missing_small_or_wrong(models: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="gentron-bench weights fetch i3d"):
        i3d.build("i3d", None, device="cpu", models=tmp_path)
    with pytest.raises(UserError, match="random weights for rehearsals"):
        add("i3d", models / "rgb_imagenet.pt", tmp_path)
    with pytest.raises(ValueError, match="unknown mode 'clean'; known: tf, stylegan-v"):
        i3d.build("i3d", "clean", device="cpu", models=models)
