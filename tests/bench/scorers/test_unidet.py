# N boxes as x1, y1, x2, y2 in pixels of the resized picture

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.scorers import Context, ScorerRecord, unidet
from bench.scorers.checkpoints import Checkpoint, load, read_checkpoint
from bench.scorers.detection import (
    CachedDetector,
    Detection,
    Detections,
    read_detections,
    write_detections,
)
from bench.scorers.unidet import (
    LABELS_ID,
    Look,
    build_detector,
    check_keys,
    label,
    load_network,
    network_input,
    read_labels,
    resized_size,
)
from bench.scorers.unidet_network import MAX_DETECTIONS, MIN_SCORE, UniDet
from bench.scorers.unidet_random import SMALL as TINY
from bench.scorers.unidet_random import random_label_space, random_network
from bench.weights import Located, MissingWeights, locate, make_random
from gentron.config import to_dict
from gentron.errors import UserError
from tests.golden.unidet.case import PICTURES, SMALL, picture, state_dict
from tests.parity import Compare

OFFICIAL = "UniDet on detectron2 5aeb252 (stored)"
GOLDEN = (
    Path(__file__).parents[2] / "golden" / "unidet" / "small.npz"
)  # by the official code: make.py beside it
FP32 = {"r50": {"network": "r50", "precision": "fp32"}, "rs200": {"network": "rs200", "precision": "fp32"}}
DIGEST = hashlib.sha256(b"a picture").hexdigest()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder for rehearsals; read-only."""
    folder = tmp_path_factory.mktemp("models")
    for id in ("unidet-r50", "unidet-rs200", LABELS_ID):
        make_random(id, folder)
    return folder


@pytest.fixture(scope="module")
def r50(models: Path) -> CachedDetector:
    return build_detector(FP32["r50"], Context(models=models))


def golden_network(network: str) -> UniDet:
    case = SMALL[network]
    with torch.device("meta"):
        built = UniDet(case.sizes)
    state = state_dict(case, 1)
    load(built, Checkpoint(Path(network), state, None), what=network, is_other=lambda key: False)
    return built.eval()


def save(path: Path, **content: Any) -> Located:
    torch.save(content, path)
    return Located("unidet-r50", path, "", True)


# ---- the official code -----------------------------------------------------------------------------------

QUICK = [("r50", "tall"), ("r50", "line"), ("rs200", "wide"), ("rs200", "line")]
# all but the dot, whose equal pixels give equal scores, which a rounding may order differently
ALL = [(network, name) for network in SMALL for name in PICTURES if name != "dot"]
SLOW = [pytest.param(*pair, marks=pytest.mark.slow) for pair in ALL if pair not in QUICK]


@pytest.mark.parametrize(("network", "name"), [*QUICK, *SLOW])
def test_detections_are_those_of_the_official_code(network: str, name: str, parity: Compare) -> None:
    """Equal to the last bit on the machine that made them; another processor may round otherwise."""
    given = network_input(picture(name))
    built = golden_network(network)
    with torch.no_grad():
        found = built.find(built.features(given), given.shape[1], given.shape[2])
    with np.load(GOLDEN) as golden:
        boxes, scores, classes = (golden[f"{network}/{name}/{part}"] for part in found._fields)
    assert found.classes.tolist() == classes.tolist()
    if len(classes):
        of = f"UniDet {network.upper()}"
        parity(of, f"classes, {name} picture", found.classes, classes, against=OFFICIAL)
        parity(of, f"boxes, {name} picture", found.boxes, boxes, against=OFFICIAL, atol=1e-3)
        parity(of, f"scores, {name} picture", found.scores, scores, against=OFFICIAL, atol=1e-5)


def test_the_golden_cases_hold_full_short_and_empty_lists() -> None:
    with np.load(GOLDEN) as golden:
        counts = {len(golden[f"{network}/{name}/scores"]) for network, name in QUICK}
    assert 0 in counts and any(0 < count < MAX_DETECTIONS for count in counts)


# ---- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(512, 512), (1, 1), (768, 1024), (1024, 576), (3, 1400), (481, 480), (479, 480)]
)
def test_a_picture_is_resized_as_torchvision_does(size: tuple[int, int]) -> None:
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    transforms = pytest.importorskip("torchvision.transforms")
    from PIL import Image

    image = np.random.RandomState(0).randint(0, 256, (*size, 3)).astype(np.uint8)
    reference = np.array(transforms.Resize(size=479, max_size=480)(Image.fromarray(image)))
    given = network_input(image)
    assert np.array_equal(given.flip(0).permute(1, 2, 0).numpy(), reference)  # BGR


@pytest.mark.parametrize(
    ("width", "height", "resized"),
    [
        (512, 512, (479, 479)),
        (1024, 768, (480, 360)),
        (768, 1024, (360, 480)),
        (1, 2000, (1, 480)),
        (2000, 1, (480, 1)),
    ],
)
def test_sides_become_479_or_480(width: int, height: int, resized: tuple[int, int]) -> None:
    assert resized_size(width, height) == resized


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1), (64, 64)])
def test_any_shape_of_picture_is_looked_at(shape: tuple[int, int], r50: CachedDetector) -> None:
    image = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
    seen = r50.detect(image, DIGEST)
    width, height = seen.size
    assert (width, height) == resized_size(shape[1], shape[0])
    for detection in seen:
        x1, y1, x2, y2 = detection.box
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@pytest.mark.parametrize("network", FP32)
def test_random_weights_see_something_and_the_same_again(network: str, models: Path) -> None:
    detector = build_detector(FP32[network], Context(models=models))
    seen = detector.detect(picture("square"), DIGEST)
    assert 0 < len(seen) < MAX_DETECTIONS
    scores = [detection.score for detection in seen]
    assert scores == sorted(scores, reverse=True) and min(scores) > MIN_SCORE
    assert detector.detect(picture("square"), DIGEST) == seen
    assert detector.record.random_weights
    assert set(detector.record.weights) == {f"unidet-{network}", LABELS_ID}
    assert (seen.precision, seen.note) == ("fp32", "")


# ---- labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Cattle_cow_cow", "cattle, cow"),
        ("_wild bird_bird", "wild bird"),
        ("__surfboard", "surfboard"),
        ("Bus_bus_bus", "bus"),
        ("Table_desk_", "table, desk"),
        ("_tissue _", "tissue "),
        ("___object--traffic-sign--front", "front"),
        ("object--street-light", "street light"),
    ],
)
def test_names_become_labels(name: str, expected: str) -> None:
    assert label(name) == expected


def test_the_published_label_space_gives_the_pinned_labels() -> None:
    """The file is UniDet's datasets/label_spaces/learned_mAP+M.json, in the models folder."""
    try:
        located = locate(LABELS_ID)
    except MissingWeights as error:
        pytest.skip(str(error))
    if located.random:
        pytest.skip("the models folder is for rehearsals")
    labels = read_labels(located)
    assert len(labels) == 722 and labels[0] == "bottle" and labels[138] == "bench"


def test_other_labels_are_refused_unless_known_as_random(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(random_label_space(0)))
    assert len(read_labels(Located(LABELS_ID, path, "", True))) == 722
    with pytest.raises(UserError, match="does not give the evaluation's labels: expected sha256 8840546c"):
        check_keys(LABELS_ID, path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"categories": [{"id": 1, "name": "a"}]}', "{"])
def test_a_file_that_is_no_label_space_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is not a label space of UniDet"):
        read_labels(Located(LABELS_ID, path, "", True))


# ---- weights ---------------------------------------------------------------------------------------------


def small_content(network: str = "r50") -> dict[str, Any]:
    case = SMALL[network]
    return {"model": state_dict(case, 1), "architecture": to_dict(case.sizes)}


def test_constants_and_counters_of_older_checkpoints_do_not_matter(tmp_path: Path) -> None:
    content = small_content()
    content["model"] |= {
        "pixel_mean": torch.zeros(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(9, 4),
        "backbone.fpn_output3.norm.num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }
    network = load_network(save(tmp_path / "a.pth", iteration=3, optimizer={"lr": 0.1}, **content))
    assert network.sizes == SMALL["r50"].sizes and not network.training


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    content = small_content()
    content["model"] = {key: value.half() for key, value in content["model"].items()}
    network = load_network(save(tmp_path / "a.pth", **content))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_wrong_keys_and_shapes_are_one_clear_line(tmp_path: Path) -> None:
    content = small_content()
    del content["model"]["backbone.top_block.p6.weight"]
    content["model"]["backbone.bottom_up.res4.6.conv1.weight"] = torch.zeros(1)  # a deeper network's
    content["model"]["roi_heads.box_head.0.fc1.bias"] = torch.zeros(7)
    with pytest.raises(UserError) as caught:
        load_network(save(tmp_path / "a.pth", **content))
    message = str(caught.value)
    assert "\n" not in message and "a.pth' is not UniDet r50" in message
    assert "1 of its tensors are missing, such as 'backbone.top_block.p6.weight'" in message
    assert (
        "1 of its tensors belong to no part of it, such as 'backbone.bottom_up.res4.6.conv1.weight'"
        in message
    )
    assert "1 of its tensors have another shape, such as 'roi_heads.box_head.0.fc1.bias'" in message


def test_small_random_weights_are_refused_as_real_ones(models: Path) -> None:
    path = locate("unidet-r50", models).path
    with pytest.raises(UserError, match="holds small random weights, not UniDet's"):
        check_keys("unidet-r50", path)


def test_a_small_network_without_its_sizes_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", model=small_content()["model"])
    with pytest.raises(UserError, match="is not UniDet r50: .* have another shape"):
        check_keys("unidet-r50", tmp_path / "a.pth")


def test_weights_of_the_other_network_are_refused(tmp_path: Path) -> None:
    content = small_content("rs200") | {"architecture": to_dict(SMALL["r50"].sizes)}
    with pytest.raises(UserError, match="is not UniDet r50"):
        load_network(save(tmp_path / "a.pth", **content))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", **small_content())
    data = (tmp_path / "a.pth").read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "b.pth").write_bytes(data[:length])
        with pytest.raises(UserError, match="cannot read weights from .*b.pth'.*get it again"):
            check_keys("unidet-r50", tmp_path / "b.pth")


@pytest.mark.parametrize("content", [{"model": {}}, {"model": {"a": 1}}, [torch.zeros(1)], torch.zeros(3)])
def test_other_content_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="expected a state dict or one under 'model'"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Path("harmless")}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="cannot read weights"):
        read_checkpoint(tmp_path / "a.pth")


def test_the_same_seed_gives_the_same_random_network() -> None:
    sizes = dataclasses.replace(TINY["r50"], pyramid_channels=4, hidden_size=24)
    first, again, other = (random_network(sizes, seed).state_dict() for seed in (3, 3, 4))
    assert all(first[key].equal(again[key]) for key in first)
    assert not all(first[key].equal(other[key]) for key in first)


def test_missing_weights_say_so_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="unidet-rs200"):
        build_detector(FP32["rs200"], Context(models=tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "r101", "precision": "fp32"}, "detector.network must be one of"),
        ({"network": "r50"}, "missing field detector.precision"),
        ({"network": "r50", "precision": "fp32", "score": 0.1}, "unknown field detector.score"),
    ],
)
def test_settings_are_read_strictly(settings: dict[str, Any], message: str, models: Path) -> None:
    with pytest.raises(ValueError, match=message):
        build_detector(settings, Context(models=models))


# ---- precision -------------------------------------------------------------------------------------------


class Overflowing(torch.nn.Module):
    """A network whose features are finite from the n-th call on, and that finds nothing."""

    def __init__(self, first_finite: int) -> None:
        super().__init__()
        self.calls, self.first_finite = 0, first_finite

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.calls += 1
        return [torch.full((1,), 0.0 if self.calls >= self.first_finite else float("nan"))]

    def find(self, features: list[torch.Tensor], height: int, width: int) -> tuple[torch.Tensor, ...]:
        return torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)


def test_fp16_needs_cuda(models: Path) -> None:
    with pytest.raises(UserError, match="detector.precision fp16 needs CUDA, the device is cpu"):
        build_detector({"network": "r50", "precision": "fp16"}, Context(models=models))


@pytest.mark.parametrize(("first_finite", "precision"), [(1, "fp16"), (2, "fp32")])
def test_overflow_of_fp16_falls_back_and_says_so(
    first_finite: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unidet.torch, "autocast", lambda *_: contextlib.nullcontext())
    network: Any = Overflowing(first_finite)
    seen = Look(network, ("cat",), "cpu", "fp16")(picture("dot"))
    assert seen.precision == precision
    assert seen.note == ("" if precision == "fp16" else "fp16 features were not finite")


def test_features_that_are_not_finite_are_an_error() -> None:
    network: Any = Overflowing(9)
    with pytest.raises(UserError, match="features that are not finite"):
        Look(network, ("cat",), "cpu", "fp32")(picture("dot"))


# ---- the cache -------------------------------------------------------------------------------------------

SEEN = Detections(
    found=(
        Detection("a cat", 0.87654321, (0.1, 2.0, 33.3, 4.5)),
        Detection("tür", 0.1234, (1.0, 2.0, 3.0, 4.0)),
    ),
    size=(479, 479),
    precision="fp32",
)


class Looks:
    """A network that counts its looks."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, image: np.ndarray) -> Detections:
        self.count += 1
        return SEEN


def cached(folder: Path, look: Looks, sha256: str = "1" * 64) -> CachedDetector:
    record = ScorerRecord(name="unidet-r50", version=1, weights={"unidet-r50": sha256})
    return CachedDetector(record, look, folder)


def test_a_picture_is_looked_at_once(tmp_path: Path) -> None:
    look, image = Looks(), picture("dot")
    assert cached(tmp_path, look).detect(image, DIGEST) == SEEN
    assert cached(tmp_path, look).detect(image, DIGEST) == SEEN  # read back to the last digit
    assert look.count == 1
    cached(tmp_path, look, "2" * 64).detect(image, DIGEST)  # other weights
    cached(tmp_path, look).detect(image, hashlib.sha256(b"another").hexdigest())
    assert look.count == 3


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    look, image = Looks(), picture("dot")
    detector = cached(tmp_path, look)
    detector.detect(image, DIGEST)
    path = detector.path(DIGEST)
    assert path is not None
    whole = path.read_bytes()
    changed = whole.replace(b"0.87654321", b"0.97654321")
    assert changed != whole
    damaged = [b"", b"{", b"null", b"[1]", whole[: len(whole) // 2], changed, b"\xff\xfe\x00"]
    for number, data in enumerate(damaged, 2):
        path.write_bytes(data)
        assert detector.detect(image, DIGEST) == SEEN
        assert look.count == number and path.read_bytes() == whole


def test_detections_of_another_picture_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_detections(path, DIGEST, SEEN)
    assert read_detections(path, DIGEST) == SEEN
    assert read_detections(path, hashlib.sha256(b"another").hexdigest()) is None


@pytest.mark.parametrize("digest", ["", "../" * 22, "A" * 64, "0" * 63])
def test_only_a_hash_names_a_file(digest: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digest must be a sha256"):
        cached(tmp_path, Looks()).detect(picture("dot"), digest)


def test_detections_need_no_torch() -> None:
    code = "import sys, bench.scorers.detection; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
