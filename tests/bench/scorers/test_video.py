"""Scorers of clips: closed forms, torchmetrics, torchvision's RAFT, VBench's decisions spelled out."""

# F frames of a clip, H W size of a frame

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.prompts.motion import realise_clip
from bench.prompts.protocol import load_protocol
from bench.scorers import Context
from bench.scorers.video import MEASURES, OfLastClip, build_clip_scorers, clip_frames, flow
from bench.scorers.video.neighbours import MOST_DECIBELS, psnr, ssim, temporal_flickering
from bench.scorers.video.optical_flow import (
    NUM_UPDATES,
    DisFlow,
    RaftFlow,
    random_state_dict,
    read_raft,
)
from bench.weights import Located, add, locate, make_random
from gentron.errors import UserError
from gentron.shapes.motion import render_clip
from gentron.torchvision_ops import prepare_torchvision
from tests.parity import Compare

pytestmark = pytest.mark.usefixtures("one_thread")

pytest.importorskip("cv2")
prepare_torchvision()


EVERYWHERE = [name for name in MEASURES if not name.startswith("judge_")]  # of any prompts, or of none


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for id in ("raft-large", "clip-vit-b-32"):
        make_random(id, folder)
    return folder


def texture(num_frames: int, speed: tuple[float, float], size: tuple[int, int] = (64, 80)) -> np.ndarray:
    """(F, H, W, 3) uint8: a sum of waves that moves by `speed` (x, y) pixels a frame, exactly."""
    rng = np.random.RandomState(0)
    waves = rng.uniform(-0.5, 0.5, (12, 2)), rng.uniform(0, 2 * np.pi, 12), rng.uniform(0, 1, (12, 3))
    rows, columns = np.mgrid[: size[0], : size[1]]
    frames = []
    for k in range(num_frames):
        x, y = columns - k * speed[0], rows - k * speed[1]
        sums = sum(
            np.sin(wave[0] * x + wave[1] * y + phase)[..., None] * colour
            for wave, phase, colour in zip(*waves, strict=True)
        )
        frames.append(np.round(127.5 + 20 * np.asarray(sums)).clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def still(num_frames: int = 8) -> np.ndarray:
    return np.repeat(texture(1, (0, 0)), num_frames, axis=0)


def alternating(num_frames: int = 8) -> np.ndarray:
    """Black, white, black, ..."""
    frames = np.zeros((num_frames, 64, 80, 3), np.uint8)
    frames[1::2] = 255
    return frames


def scores(clip: np.ndarray, *names: str, models: Path | None = None) -> dict[str, float]:
    built = build_clip_scorers(names, Context(models=models))
    assert not built.skipped
    return {name: scorer.score(clip, "a", "a").score for name, scorer in built.scorers.items()}


# ---- without a network -----------------------------------------------------------------------------------


def test_a_still_clip_does_not_flicker() -> None:
    found = scores(still(), "temporal_flickering", "neighbour_ssim", "neighbour_psnr")
    assert found["temporal_flickering"] == 1
    assert found["neighbour_ssim"] == pytest.approx(1, abs=1e-12)
    assert found["neighbour_psnr"] == MOST_DECIBELS


def test_black_and_white_in_turn_flicker_as_much_as_can_be() -> None:
    found = scores(alternating(), "temporal_flickering", "neighbour_ssim", "neighbour_psnr")
    assert found["temporal_flickering"] == 0
    assert found["neighbour_psnr"] == pytest.approx(0, abs=1e-6)
    c1 = (0.01 * 255) ** 2  # of SSIM's luminance term, all that is left of it between two flat frames
    assert found["neighbour_ssim"] == pytest.approx(c1 / (255**2 + c1), rel=1e-6)


def test_flicker_of_a_known_step() -> None:
    """Frames that differ by 10, then 30 levels in a quarter of the pixels: (10 + 30) / 4 / 2 = 5 of 255."""
    frames = np.full((3, 8, 8, 3), 100, np.uint8)
    frames[1, :4, :4] += 10
    frames[2, :4, :4] += 40
    assert temporal_flickering(frames) == pytest.approx(1 - 5 / 255, abs=1e-12)


def test_ssim_and_psnr_are_torchmetrics(parity: Compare) -> None:
    from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

    clip = texture(4, (1.5, -0.5))
    pairs = list(zip(clip, clip[1:], strict=False))
    for name, ours, module in (
        ("SSIM", ssim, StructuralSimilarityIndexMeasure(data_range=1.0)),
        ("PSNR", psnr, PeakSignalNoiseRatio(data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3))),
    ):
        found = [ours(a, b) for a, b in pairs]
        wanted = []
        for a, b in pairs:
            x, y = (torch.from_numpy(f.transpose(2, 0, 1).copy())[None].double() / 255 for f in (a, b))
            module.reset()
            wanted.append(float(module(x, y)))
        parity(
            "Video",
            f"{name} of neighbouring frames",
            found,
            wanted,
            against="torchmetrics, 0 to 1",
            rtol=1e-6,
        )


def test_ssim_refuses_frames_below_its_window() -> None:
    with pytest.raises(UserError, match="at least 11 x 11 pixels, got 20 x 8"):
        scores(np.zeros((2, 8, 20, 3), np.uint8), "neighbour_ssim")


def test_one_frame_is_refused_by_every_scorer(models: Path) -> None:
    names = [name for name in EVERYWHERE if name != "clip_frames"]  # a picture has a CLIP score
    for scorer in build_clip_scorers(names, Context(models=models)).scorers.values():
        with pytest.raises(UserError, match="at least 2 frames, got 1"):
            scorer.score(still(1), "a", None)


# ---- optical flow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [(3.0, 0.0), (-2.0, 1.0), (0.0, 2.5)])
def test_dis_finds_the_speed_of_a_texture(speed: tuple[float, float]) -> None:
    clip = texture(4, speed)
    found = scores(clip, "flow_magnitude_dis", "warping_error_dis")
    assert found["flow_magnitude_dis"] == pytest.approx(math.hypot(*speed), rel=0.02)
    unwarped = np.square((clip[1:].astype(float) - clip[:-1]) / 255).mean()
    assert found["warping_error_dis"] < unwarped / 100


def test_dis_of_a_still_clip() -> None:
    found = scores(still(), "flow_magnitude_dis", "warping_error_dis", "static_flicker_dis")
    assert found["flow_magnitude_dis"] < 1e-3
    assert found["warping_error_dis"] < 1e-9
    assert found["static_flicker_dis"] == 0


def test_of_an_alternating_clip_all_is_flicker() -> None:
    """Flat frames: no flow can be seen, so every pixel stands still and changes by all there is."""
    built = build_clip_scorers(["static_flicker_dis", "warping_error_dis"], Context())
    found = built.scorers["static_flicker_dis"].score(alternating(), "a", None)
    assert found.score == 1 and found.parts["static"] == 1
    assert found.parts["temporal_flickering of static clips"] == 0
    assert built.scorers["warping_error_dis"].score(alternating(), "a", None).score == 1


def test_static_flicker_leaves_out_what_moves() -> None:
    """A textured band moves, the rest changes by 10 levels with every frame."""
    clip = texture(6, (3, 0), size=(128, 96))
    clip[:, 48:] = 100
    clip[1::2, 48:] += 10
    flows = known_flows(clip, np.where(np.arange(128)[:, None, None] < 48, (3.0, 0.0), (0.0, 0.0)))
    value, share = flow.static_flicker(clip, flows)
    assert value == pytest.approx(10 / 255) and share == pytest.approx(80 / 128)
    assert value < 1 - temporal_flickering(clip)


def test_dis_does_not_depend_on_the_machines_threads() -> None:
    import cv2

    clip = texture(2, (2.0, 1.0), size=(128, 128))
    dis = DisFlow()
    alone = dis.flow(*clip)
    cv2.setNumThreads(1)
    np.testing.assert_array_equal(DisFlow().flow(*clip), alone)


def test_dis_refuses_frames_that_are_too_small() -> None:
    with pytest.raises(UserError, match="at least 12 pixels a side"):
        DisFlow().flow(*np.zeros((2, 8, 20, 3), np.uint8))


def known_flows(clip: np.ndarray, each: np.ndarray) -> flow.Flows:
    """The same flow (H, W, 2) between all neighbours."""
    height, width = clip.shape[1:3]
    forward = np.broadcast_to(each, (len(clip) - 1, height, width, 2)).astype(np.float32)
    return flow.Flows(forward, -forward, np.stack([forward[0], -forward[0]]) * (len(clip) - 1))


def test_warping_by_a_whole_step_is_exact() -> None:
    """With the true flow: what stays inside is found to the bit, what leaves is not counted."""
    clip = texture(2, (3, -2))
    each = np.broadcast_to(np.array([3.0, -2.0], np.float32), (64, 80, 2))
    error, share = flow.warping_error(clip[0], clip[1], each, -each)
    assert error == 0
    assert share == pytest.approx((80 - 3) * (64 - 2) / (80 * 64))


def test_hidden_pixels_are_not_counted() -> None:
    """Where there and back disagree by 2 px: 4 > 0.01 (9 + 1) + 0.5."""
    there, back = np.zeros((8, 8, 2)), np.zeros((8, 8, 2))
    there[2, 2], back[2, 5] = (3, 0), (-1, 0)
    seen = flow.visible(there, back)
    assert not seen[2, 2] and seen.sum() == 62  # and the pixel at (2, 5), whose way back leads elsewhere


def test_half_a_pixel_is_the_mean_of_two() -> None:
    image = np.arange(12.0).reshape(3, 4, 1)
    found, inside = flow.look_up(image, np.broadcast_to((0.5, 0.5), (3, 4, 2)))
    np.testing.assert_allclose(found[:2, :3, 0], (image[:2, :3, 0] + image[1:, 1:, 0]) / 2)
    assert inside.sum() == 6


def spelled_out(clip_flows: flow.Flows, side: int, num_frames: int) -> tuple[bool, bool]:
    """VBench's dynamic degree and static filter, step by step."""

    def radius(one: np.ndarray, share: float) -> float:
        sizes = sorted((math.hypot(u, v) for u, v in one.reshape(-1, 2)), reverse=True)
        count = int(len(sizes) * share)
        return sum(sizes[:count]) / count

    moving = [radius(one, 0.05) > 6 * side / 256 for one in clip_flows.forward]
    dynamic = sum(moving) >= round(4 * num_frames / 16)
    t, n = 3 * side / 256, round(2 * num_frames / 16)
    fast = [radius(one, 0.02) > t for one in clip_flows.forward]
    ends = [radius(one, 0.02) <= 2 * n * t for one in clip_flows.around]
    return dynamic, sum(fast) <= n and all(ends)


@pytest.mark.parametrize("speed", [0.0, 0.5, 0.8, 1.4, 1.6, 3.0])
@pytest.mark.parametrize("num_frames", [3, 8, 16])
def test_vbench_decisions(speed: float, num_frames: int) -> None:
    """The threshold at 64 px is 0.75 px a frame for the filter and 1.5 for the dynamic degree."""
    clip = np.zeros((num_frames, 64, 80, 3), np.uint8)
    flows = known_flows(clip, np.broadcast_to(np.array([speed, 0.0]), (64, 80, 2)))
    forward = flows.forward.copy()
    forward[: num_frames // 3] = 0  # a part of the clip stands still
    flows = flow.Flows(forward, flows.backward, flows.around)
    found = flow.is_dynamic(flows), flow.passes_static_filter(flows)
    assert found == spelled_out(flows, 64, num_frames)


def test_a_clip_that_moves_has_no_number_among_static_clips(models: Path) -> None:
    scorer = build_clip_scorers(["static_flicker_dis"], Context()).scorers["static_flicker_dis"]
    moving = scorer.score(texture(8, (3, 0)), "a", None)
    assert moving.parts["passes static filter"] == 0
    assert "temporal_flickering of static clips" not in moving.parts


# ---- RAFT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 136), (130, 141)])
def test_raft_is_torchvisions_with_its_own_transform(size: tuple[int, int], parity: Compare) -> None:
    """Padding as in the authors' InputPadder, spelled out; normalisation as in torchvision's transform."""
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

    network: torch.nn.Module = raft_large(weights=None)
    network.load_state_dict(random_state_dict(seed=1))
    network.eval()
    a, b = texture(2, (2, 1), size=size)
    high, wide = ((((n // 8) + 1) * 8 - n) % 8 for n in size)
    pad = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    images = [torch.from_numpy(f.transpose(2, 0, 1).copy())[None] for f in (a, b)]
    padded = [torch.nn.functional.pad(i.float(), pad, mode="replicate").to(torch.uint8) for i in images]
    with torch.inference_mode():
        transformed = Raft_Large_Weights.C_T_V1.transforms()(*padded)
        wanted = network(*transformed, num_flow_updates=NUM_UPDATES)[-1][0].permute(1, 2, 0).numpy()
    wanted = wanted[pad[2] : pad[2] + size[0], pad[0] : pad[0] + size[1]]
    found = RaftFlow(network, Located("raft-large", Path(), "0", True)).flow(a, b)
    assert found.shape == (*size, 2) and np.abs(found).max() > 0.1
    what = f"RAFT flow over its largest, {size[1]} x {size[0]}"
    largest = np.abs(wanted).max()
    parity("Video", what, found / largest, wanted / largest, against="torchvision raft_large", atol=1e-5)


def test_raft_of_small_frames_is_that_of_enlarged_ones(models: Path) -> None:
    """64 x 80 is enlarged twice; the flow is averaged back and halved."""
    located = locate("raft-large", models)
    raft = RaftFlow(read_raft(located.path), located)
    a, b = texture(2, (2, 1))
    large = [np.repeat(np.repeat(f, 2, axis=0), 2, axis=1) for f in (a, b)]
    found = raft.flow(a, b)
    assert found.shape == (64, 80, 2) and np.isfinite(found).all()
    coarse = raft.flow(*large).reshape(64, 2, 80, 2, 2).mean(axis=(1, 3)) / 2  # nearest instead of bilinear
    assert np.abs(found - coarse).max() < 0.2 * np.abs(found).max()
    np.testing.assert_array_equal(found, raft.flow(a, b))


def test_raft_refuses_another_networks_file(models: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(2)}, other)
    with pytest.raises(UserError, match="begins with 22a6c225"):
        add("raft-large", other, tmp_path / "models")
    with pytest.raises(UserError, match="is not torchvision's RAFT large"):
        read_raft(other)


def test_random_raft_is_the_same_for_a_seed() -> None:
    first, again, other = (random_state_dict(seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


# ---- CLIP ------------------------------------------------------------------------------------------------


def test_consistency_by_hand() -> None:
    """Angles of 0, 30 and 90 degrees."""
    angles = np.radians([0.0, 30.0, 90.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1.0], [2.0], [5.0]])
    assert clip_frames.consistency(embeddings) == pytest.approx((math.sqrt(3) / 2 + 0.5) / 2)
    assert clip_frames.consistency_first(embeddings) == pytest.approx((math.sqrt(3) / 2 + 0) / 2)


def test_clip_scores_are_those_of_the_picture_scorer(models: Path, parity: Compare) -> None:
    """Against OpenAI's own preprocessing and open_clip's network, picture by picture, outside our scorer."""
    from open_clip import image_transform
    from PIL import Image

    from bench.scorers.clip import B_32, load_clip, tokenize

    clip = texture(3, (6, 2))
    network = load_clip(locate(B_32, models)).network
    transform = image_transform(224, is_train=False)
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(frame)) for frame in clip])  # type: ignore[arg-type]
        frames = torch.nn.functional.normalize(network.encode_image(pixels), dim=-1)
        ids = torch.tensor([tokenize("a red circle").ids])
        text = torch.nn.functional.normalize(network.encode_text(ids), dim=-1)
    names = ("clip_frames", "clip_consistency", "clip_consistency_first")
    built = build_clip_scorers(names, Context(models=models))
    found = [built.scorers[name].score(clip, "a", "a red circle").score for name in names]
    wanted = [
        float((frames @ text.T).mean()),
        float((frames[1:] * frames[:-1]).sum(-1).mean()),
        float((frames[1:] @ frames[0]).mean()),
    ]
    against = "open_clip, frame by frame"
    parity(
        "Video", "CLIP score of frames, consistency, to the first", found, wanted, against=against, atol=1e-5
    )


def test_a_still_clip_is_consistent(models: Path) -> None:
    found = scores(still(3), "clip_consistency", "clip_consistency_first", models=models)
    assert found == pytest.approx({name: 1.0 for name in found}, abs=1e-6)


# ---- building --------------------------------------------------------------------------------------------


def test_missing_networks_are_skipped_with_the_way_on(tmp_path: Path) -> None:
    built = build_clip_scorers(list(EVERYWHERE), Context(models=tmp_path))
    assert list(built.scorers) == [
        name for name in EVERYWHERE if not name.endswith("raft") and not name.startswith("clip")
    ]
    assert "gentron-bench weights fetch raft-large" in built.skipped["flow_magnitude_raft"]
    assert "ViT-B-32.pt" in built.skipped["clip_consistency"]


def test_records_name_measure_network_and_settings(models: Path) -> None:
    built = build_clip_scorers(list(EVERYWHERE), Context(models=models))
    records = {name: scorer.record for name, scorer in built.scorers.items()}
    assert [record.name for record in records.values()] == list(EVERYWHERE)
    assert len({record.digest for record in records.values()}) == len(EVERYWHERE)
    raft = records["warping_error_raft"]
    assert raft.weights == {"raft-large": locate("raft-large", models).sha256} and raft.random_weights
    assert raft.settings["updates"] == 20
    assert not records["warping_error_dis"].weights and records["warping_error_dis"].settings["opencv"]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown video metric 'flow'; known: temporal_flickering"):
        build_clip_scorers(["flow"], Context())


def test_flow_is_found_once_a_clip() -> None:
    calls: list[int] = []
    of_clip = OfLastClip(lambda frames: calls.append(len(frames)))
    for digest in ("a", "a", "b", "a"):
        of_clip(still(3), digest)
    assert calls == [3, 3, 3]


# ---- the judge of the shapes world -----------------------------------------------------------------------


def test_the_judge_scores_true_clips_and_knows_its_prompts() -> None:
    """What the prompt says happens, then the same clip backwards: the motion is wrong, the frames are not."""
    prompts = load_protocol("motion-shapes_v1").select("direction", limit=2)
    names = [name for name in MEASURES if name.startswith("judge_")]
    built = build_clip_scorers(names, Context(prompts=tuple(prompts)))
    for prompt in prompts:
        scene = realise_clip(prompt.clip_claim, np.random.default_rng(0))
        assert scene is not None
        frames = render_clip(scene)
        true, back = (
            {name: scorer.score(clip, name_of, prompt.text) for name, scorer in built.scorers.items()}
            for name_of, clip in (("forth", frames), ("back", frames[::-1]))
        )
        assert all(true[f"judge_{kind}"].score == 1 for kind in ("motion", "appearance", "persistence"))
        assert back["judge_motion"].score == 0 and back["judge_appearance"].score == 1
        assert true["judge_motion"].parts["step px"] == pytest.approx(4, abs=0.2)
        assert 0.5 < true["judge_caption"].score <= 1
    with pytest.raises(UserError, match="does not know the prompt 'a cat'"):
        built.scorers["judge_motion"].score(frames, "a", "a cat")
    with pytest.raises(UserError, match="judge prompts of motion-shapes_v1 alone"):
        build_clip_scorers(["judge_motion"], Context())
