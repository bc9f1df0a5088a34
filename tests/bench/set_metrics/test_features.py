"""Extractors and their preprocessing: the tools' own outputs, bit by bit where that holds; the cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.set_metrics.features import (
    ExtractorRecord,
    build_extractor,
    check_keys,
    dinov2,
    inception,
    random_weights,
    resize,
)
from bench.set_metrics.features.cache import FeatureCache
from bench.set_metrics.features.clip import PREPARE
from bench.set_metrics.features.extract import CachedExtractor, DrawnPicture, FilePicture, extract
from bench.systems.images import encode_png
from bench.weights import MissingWeights, add, make_random
from gentron.errors import UserError
from tests.golden.set_metrics import cases
from tests.parity import Compare

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[2] / "golden" / "set_metrics"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with random weights of every extractor."""
    folder = tmp_path_factory.mktemp("models")
    for id in ("inception", "dinov2-vit-l-14", "clip-vit-b-32", "clip-vit-l-14-336"):
        make_random(id, folder)
    return folder


# ---- resize ----------------------------------------------------------------------------------------------


def tf1_by_hand(channel: np.ndarray, size: int) -> np.ndarray:
    """Pixel by pixel, from TensorFlow's definition."""
    height, width = channel.shape
    out = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            top, left = int(y), int(x)
            low, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = channel[top, left] + (channel[top, right] - channel[top, left]) * (x - left)
            lower = channel[low, left] + (channel[low, right] - channel[low, left]) * (x - left)
            out[i, j] = upper + (lower - upper) * (y - top)
    return out


@pytest.mark.parametrize(("height", "width"), [(5, 9), (16, 16), (23, 40)])
def test_tf1_bilinear_by_hand(height: int, width: int) -> None:
    image = cases.picture(1, height, width, 0.9)
    found = resize.tf1_bilinear(resize.to_tensor(image), 16)[0]
    for c in range(3):
        np.testing.assert_allclose(found[c], tf1_by_hand(image[..., c].astype(float), 16), atol=1e-3)


@pytest.mark.parametrize("mode", inception.MODES)
def test_a_picture_of_299_is_only_scaled(mode: str) -> None:
    image = cases.picture(2, 299, 299, 0.9)
    found = inception.MODES[mode].prepare(image)[0].permute(1, 2, 0).numpy()
    wanted = image / 127.5 - 1 if mode == "pytorch-fid" else (image.astype(np.float32) - 128) / 128
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_modes_differ_on_a_picture_of_another_size() -> None:
    image = cases.picture(3, 500, 333, 0.9)
    found = {name: mode.prepare(image) for name, mode in inception.MODES.items()}
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert (found[one] - found[other]).abs().max() > 0.01, (one, other)


def test_crop_and_resize_of_cmmd() -> None:
    """io_util.py of the authors: crop box ((w - l) // 2, (h - l) // 2), then PIL's bicubic."""
    for height, width in ((50, 81), (81, 50), (336, 336)):
        image = cases.picture(4, height, width, 0.9)
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        wanted = Image.fromarray(image).crop((left, top, left + side, top + side))
        wanted = np.asarray(wanted.resize((336, 336), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(PREPARE["clip-vit-l-14-336"][1](image), wanted)


# ---- Inception -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official_inception() -> inception.Inception:
    """The network at full size on the weights that make.py gave to every tool."""
    state = inception.random_state_dict(divisor=1, seed=cases.INCEPTION_SEED)
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    stored = json.loads((GOLDEN / "fid.json").read_text())["inception_sha256"]
    assert digest.hexdigest() == stored, "drawn otherwise than in make.py"
    network = inception.Inception()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("mode", inception.MODES)
def test_features_are_those_of_the_tool(
    official_inception: inception.Inception, mode: str, parity: Compare
) -> None:
    with np.load(GOLDEN / "inception.npz") as stored:
        wanted = stored[mode]
    found = []
    for image in cases.pictures()[0][: len(wanted)]:
        with torch.inference_mode():
            found.append(official_inception(inception.MODES[mode].prepare(image))[0].numpy())
    largest = np.abs(wanted).max(axis=1, keepdims=True)
    what = f"Inception features over their largest, {mode}"
    parity("FID", what, found / largest, wanted / largest, against="the tool of the mode (stored)", atol=1e-5)


def test_the_published_file_has_566_tensors(official_inception: inception.Inception) -> None:
    assert len(official_inception.state_dict()) == 566
    assert official_inception.num_features == 2048


def test_small_random_weights_are_taken_only_where_they_are_marked(tmp_path: Path, models: Path) -> None:
    found = build_extractor("inception", mode="tf", models=models)
    assert found.record.random_weights and found.record.num_features == 256
    vectors = [found.features(image) for image in cases.pictures()[0][:2]]
    assert vectors[0].shape == (256,) and vectors[0].dtype == np.float32
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    for id in ("inception", "dinov2-vit-l-14"):
        path = tmp_path / id
        random_weights(id, path, seed=3)
        first = path.read_bytes()
        random_weights(id, path, seed=3)
        assert path.read_bytes() == first
        with pytest.raises(UserError, match="holds random weights for rehearsals"):
            check_keys(id, path)


def test_wrong_weights_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="is not the Inception of FID: 471 of its tensors are missing"):
        check_keys("inception", path)
    with pytest.raises(UserError, match="is not DINOv2 ViT-L/14"):
        check_keys("dinov2-vit-l-14", path)
    path.write_bytes(b"half a file")
    with pytest.raises(UserError, match="cannot read weights"):
        check_keys("inception", path)
    with pytest.raises(UserError, match="begins with"):
        add("inception", path, tmp_path / "models")
    with pytest.raises(MissingWeights, match="missing weights 'inception'"):
        build_extractor("inception", models=tmp_path / "none")
    with pytest.raises(ValueError, match="unknown extractor 'vgg'"):
        build_extractor("vgg")
    with pytest.raises(ValueError, match="unknown mode 'cv2'; known: clean, tf, pytorch-fid, torchmetrics"):
        inception.InceptionExtractor(inception.Inception(divisor=16), "cv2", None)  # type: ignore[arg-type]


# ---- the others ------------------------------------------------------------------------------------------


def test_dinov2_is_the_original(parity: Compare) -> None:
    network = dinov2.DinoV2(dinov2.REHEARSAL)
    network.load_state_dict(dinov2.random_state_dict(dinov2.REHEARSAL, seed=cases.DINOV2_SEED))
    network.eval()
    with np.load(GOLDEN / "dinov2.npz") as stored:
        wanted = stored["features"]
    with torch.inference_mode():
        found = [network(dinov2.prepare(image))[0].numpy() for image in cases.pictures()[0]]
    parity("FD-DINOv2", "features", found, wanted, against="facebookresearch/dinov2 (stored)", atol=2e-5)


def test_dinov2_at_its_published_size_has_the_published_names() -> None:
    with torch.device("meta"):
        state = dinov2.DinoV2(dinov2.OFFICIAL).state_dict()
    assert len(state) == 4 + 24 * 14 + 3  # tokens, positions, patches; blocks; norm, and the patches' bias
    assert state["blocks.23.attn.qkv.weight"].shape == (3072, 1024)
    assert state["pos_embed"].shape == (1, 1370, 1024)


@pytest.mark.parametrize(
    "name", ["dinov2-vit-l-14", "clip-vit-b-32", "clip-vit-l-14-336", "mini-autoencoder"]
)
def test_extractors_take_any_picture(models: Path, name: str) -> None:
    found = build_extractor(name, models=models)
    record = found.record
    assert record.random_weights == (name != "mini-autoencoder") and len(record.digest) == 16
    grey = np.repeat(cases.picture(5, 9, 31, 0.9)[..., :1], 3, axis=2)
    for image in (cases.picture(5, 70, 64, 0.9), grey, np.zeros((1, 1, 3), np.uint8)):
        vector = found.features(image)
        assert vector.shape == (record.num_features,) and vector.dtype == np.float32
        assert np.isfinite(vector).all()
        np.testing.assert_array_equal(vector, found.features(image.copy()))
    with pytest.raises(ValueError, match="has no modes"):
        build_extractor(name, mode="clean", models=models)


def test_mini_features_are_pooled_latents() -> None:
    from gentron.autoencoder import Autoencoder
    from gentron.bundled import bundled_part

    found = build_extractor("mini-autoencoder")
    image = cases.picture(6, 64, 64, 0.9)
    autoencoder = Autoencoder.from_pretrained(bundled_part("autoencoder"))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    latents = autoencoder.encode(pixels)[0].numpy()
    cell = latents[2, 4:8, 12:16]  # channel 2, second row, last column
    vector = found.features(image)
    place = 2 * 16 + 1 * 4 + 3
    assert vector[place] == pytest.approx(cell.mean(), abs=1e-5)
    assert vector[64 + place] == pytest.approx(cell.std(), abs=1e-5)


# ---- cache and extraction --------------------------------------------------------------------------------

RECORD = ExtractorRecord(name="mean", version=1, resize="none", layer="mean", num_features=3)


class MeanColour:
    """A quick extractor that counts its work."""

    def __init__(self) -> None:
        self.record, self.calls = RECORD, 0

    def features(self, image: np.ndarray) -> np.ndarray:
        self.calls += 1
        return image.reshape(-1, 3).mean(axis=0).astype(np.float32)


def run(folder: Path, pictures: list, extractor: MeanColour, rank: int = 0):
    cached = CachedExtractor(extractor, FeatureCache(folder, RECORD, device="cpu", rank=rank))
    steps: list[int] = []
    found = extract(pictures, [cached], device="cpu", advance=steps.append)
    assert sum(steps) == len(pictures)
    return found, cached.matrix(found.digests)


def files(folder: Path, count: int) -> list[FilePicture]:
    folder.mkdir(exist_ok=True)
    pictures = []
    for k in range(count):
        path = folder / f"{k}.png"
        path.write_bytes(encode_png(cases.picture(k, 8, 9, 0.9)))
        pictures.append(FilePicture(path.name, path, prompt_id=path.name))
    return pictures


def test_features_are_made_once_and_in_order(tmp_path: Path) -> None:
    pictures, extractor = files(tmp_path / "images", 12), MeanColour()
    found, first = run(tmp_path, pictures, extractor)
    assert extractor.calls == 12 and [p.name for p in found.pictures] == [p.name for p in pictures]
    _, again = run(tmp_path, pictures[::-1], extractor)
    assert extractor.calls == 12
    np.testing.assert_array_equal(again[::-1], first)
    (part,) = tmp_path.glob("mean-*/rank0.bin")
    assert part.parent.name == f"mean-{RECORD.digest}-cpu"
    assert part.stat().st_size == 12 * (32 + 4 + 3 * 4)


def test_a_cut_or_flipped_record_is_made_again(tmp_path: Path) -> None:
    pictures, extractor = files(tmp_path / "images", 6), MeanColour()
    _, first = run(tmp_path, pictures, extractor)
    (part,) = tmp_path.glob("mean-*/rank0.bin")
    data = bytearray(part.read_bytes()[:-5])  # a kill in the last record
    data[40] ^= 1  # a bad disk in the first
    part.write_bytes(data)
    _, again = run(tmp_path, pictures, extractor)
    assert extractor.calls == 8
    np.testing.assert_array_equal(again, first)
    run(tmp_path, pictures, extractor)
    assert extractor.calls == 8


def test_processes_share_what_they_made(tmp_path: Path) -> None:
    pictures, extractor = files(tmp_path / "images", 7), MeanColour()
    for rank in (0, 1):
        run(tmp_path, pictures[rank::2], extractor, rank)
    _, shared = run(tmp_path, pictures, extractor)
    assert extractor.calls == 7
    _, alone = run(tmp_path / "alone", pictures, MeanColour())
    np.testing.assert_array_equal(shared, alone)


def test_bad_pictures_are_listed_with_their_reason(tmp_path: Path) -> None:
    pictures = files(tmp_path / "images", 5)
    pictures[0].path.unlink()
    pictures[1].path.write_bytes(pictures[1].path.read_bytes()[:60])
    pictures[2].path.write_bytes(encode_png(np.full((4, 4, 3), 9, np.uint8)))
    stale = FilePicture("stale", pictures[3].path, prompt_id="stale", expected="0" * 64)
    found, matrix = run(tmp_path, [*pictures, stale], MeanColour())
    assert {b.picture.name: b.reason for b in found.bad} == {
        "0.png": "missing",
        "1.png": "corrupt",
        "stale": "changed since it was made",
    }
    assert matrix.shape == (3, 3)  # one of one colour is a picture


def test_one_pixel_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(cases.picture(1, 8, 8, 0.9)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    (tmp_path / "pixel.png").write_bytes(encode_png(np.full((1, 1, 3), 9, np.uint8)))
    pictures = [FilePicture(n, tmp_path / n, prompt_id=n) for n in ("cmyk.jpg", "pixel.png")]
    found, _ = run(tmp_path, pictures, MeanColour())
    assert [p.name for p in found.pictures] == ["cmyk.jpg", "pixel.png"] and not found.bad


def test_features_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    class Broken(MeanColour):
        def features(self, image: np.ndarray) -> np.ndarray:
            return np.array([1, np.nan, 2], np.float32)

    with pytest.raises(UserError, match="features of scene by mean are NaN or infinite"):
        picture = DrawnPicture("scene", "scene", 0, lambda: cases.picture(1, 8, 8, 0.9))
        run(tmp_path, [picture], Broken())
    assert not list(tmp_path.glob("mean-*/*.bin"))


def test_bits_do_not_depend_on_torchs_threads(tmp_path: Path, models: Path) -> None:
    """Which is why each picture is worked on by one thread."""
    pictures = [DrawnPicture(str(k), str(k), 0, lambda k=k: cases.picture(k, 40, 50, 0.9)) for k in range(4)]
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        extractors = [build_extractor(n, models=models) for n in ("inception", "dinov2-vit-l-14")]
        cached = [
            CachedExtractor(e, FeatureCache(tmp_path / str(threads), e.record, device="cpu"))
            for e in extractors
        ]
        digests = extract(pictures, cached, device="cpu", advance=lambda n: None).digests
        found.append([each.matrix(digests) for each in cached])
        assert torch.get_num_threads() == threads
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_cache_of_other_devices_and_preparations_is_another(tmp_path: Path) -> None:
    folders = {
        FeatureCache(tmp_path, RECORD, device="cpu").folder,
        FeatureCache(tmp_path, RECORD, device="cuda:1").folder,
        FeatureCache(tmp_path, RECORD, device="cpu", prepared="centre-bicubic-256").folder,
    }
    assert len(folders) == 3
