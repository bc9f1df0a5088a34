"""Text to video as the loop's second task, at a size that takes seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from gentron.checkpoint import load_model, read_config
from gentron.data import item_of_index
from gentron.data.clip_writer import write_clip
from gentron.data.shapes import ShapesSource, draw_scene, shifted
from gentron.data.shapes_clips import ShapesClips, encode_frames
from gentron.errors import UserError
from gentron.model import GenTron, is_temporal
from gentron.shapes import clip_caption, render, render_clip, sample_clip, sample_scene, scene_rng
from gentron.shapes.scene import DEFAULT_MIXTURE, fits_canvas
from gentron.train import parts, recipes, t2v
from gentron.train.cli import app
from gentron.train.loss import draw_clips, first_frame_share_at
from gentron.train.optimizer import learning_rate_at, make_optimizer
from gentron.train.recipe import TrainRecipe, VideoRecipe
from gentron.train.task import Task
from tests.run_folders import rows, tensors
from tests.tiny import make_model
from tests.tiny_recipe import run_tiny, run_tiny_video, tiny_recipe, tiny_video_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
RECIPE = tiny_video_recipe()
assert RECIPE.video is not None
VIDEO: VideoRecipe = RECIPE.video


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="module")
def finished(tiny_checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_tiny_video(out, tiny_checkpoint, cache)
    torch.set_num_threads(threads)
    return out


def changed(recipe: TrainRecipe, **changes: Any) -> TrainRecipe:
    """The recipe with changes of its video part."""
    assert recipe.video is not None
    return replace(recipe, video=replace(recipe.video, **changes))


def make_task(folder: Path, cache: Path, *, recipe: TrainRecipe = RECIPE) -> Task[GenTron, t2v.ClipBatch]:
    """The task alone, without the loop. folder: holds autoencoder, clip and t5."""
    names = {name: str(folder / name) for name in ("autoencoder", "clip", "t5")}
    recipe = replace(recipe, **names)
    device = torch.device("cpu")
    autoencoder, text_encoders = parts.load_frozen_parts(recipe, device)
    from rich.console import Console

    where: dict[str, Any] = {"seed": 3, "cache_dir": cache, "console": Console(quiet=True)}
    clips = t2v.shapes_clips(recipe, autoencoder, **where)
    assert recipe.video is not None
    joint = recipe.video.joint
    return t2v.text_to_video(
        recipe,
        clips=clips,
        swapped_captions=clips.swapped_captions(),
        pictures=parts.picture_source("shapes", recipe, autoencoder, **where) if joint else None,
        text_encoders=text_encoders,
        autoencoder=autoencoder,
        seed=3,
        device=device,
        build_model=make_model,
    )


# ---- runs ------------------------------------------------------------------------------------------------


def test_run_leaves_rows_by_name_sheets_and_a_model_that_loads(finished: Path) -> None:
    kinds = {row["kind"] for row in rows(finished)}
    sets = ("motion_on", "motion_free", "swapped", "swapped_first_frame")
    assert kinds == {"train", *(f"validation_{name}" for name in sets)}
    swapped = rows(finished, "validation_swapped")[-1]
    assert {"loss", "t62", "t937", "t700", "t850", "t950"} <= swapped.keys()
    losses = {name for row in rows(finished, "train") for name in row if name.startswith("loss_")}
    assert losses == {"loss_clips", "loss_pictures"}
    from PIL import Image

    with Image.open(finished / "samples/000000000064.png") as sheet:
        assert sheet.size == (3 * 64, 2 * 64)  # a column a frame, a row a prompt
    config = read_config(finished / "model")
    assert config.model.temporal is not None and config.sampling.num_frames == 3
    assert (config.sampling.fps, config.training["samples_seen"]) == (4.0, 64)
    model = load_model(finished / "model", config.model, dtype=torch.float32)
    assert all(value.any() for name, value in model.state_dict().items() if is_temporal(name))


def test_killed_run_resumes_bit_for_bit(
    finished: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.tiny_recipe", "t2v", out, tiny_checkpoint, cache]
    command += ["loop.update_ema", 7]
    killed = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    run_tiny_video(out, tiny_checkpoint, cache)
    whole, resumed = tensors(finished, 64), tensors(out, 64)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert rows(out) == rows(finished)
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (finished / weights).read_bytes()


def test_micro_batches_change_rounding_only(tiny_checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    for micro in (None, 2):
        recipe = replace(RECIPE, micro_batch_size=micro, precision="fp32", total_images=16)
        run_tiny_video(tmp_path / str(micro), tiny_checkpoint, cache, recipe=recipe)
    whole, split = tensors(tmp_path / "None", 16), tensors(tmp_path / "2", 16)
    # the moments, not the weights: Adam's first steps turn rounding of a tiny gradient into its sign
    for name in (n for n in whole if n.startswith("optimizer/exp_avg/")):
        torch.testing.assert_close(whole[name], split[name], rtol=1e-3, atol=1e-6)


def test_starts_from_a_picture_model_whose_frames_it_repeats(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    pictures = replace(tiny_recipe(), total_images=8, prediction_type="v_prediction")
    run_tiny(tmp_path / "t2i", tiny_checkpoint, cache, recipe=pictures)
    recipe = replace(changed(RECIPE, temporal_learning_rate=1e-12), learning_rate=1e-12, total_images=4)
    run_tiny_video(tmp_path / "t2v", tiny_checkpoint, cache, recipe=recipe, initial=tmp_path / "t2i/model")
    first = load_file(tmp_path / "t2i/model/model.safetensors")
    second = load_file(tmp_path / "t2v/model/model.safetensors")
    assert second.keys() - first.keys() == {name for name in second if is_temporal(name)}
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-6)
    # and from a clip model, which must be the recipe's
    run_tiny_video(tmp_path / "again", tiny_checkpoint, cache, recipe=recipe, initial=tmp_path / "t2v/model")
    with pytest.raises(UserError, match="holds another model than"):
        run_tiny_video(tmp_path / "other", tiny_checkpoint, cache, initial=tiny_checkpoint)


def test_temporal_only_trains_the_temporal_weights_alone(
    finished: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = replace(changed(RECIPE, temporal_only=True), total_images=16)
    for _ in range(2):  # the second time a resume, which finds no moments amiss
        run_tiny_video(tmp_path / "run", tiny_checkpoint, cache, recipe=recipe, initial=finished / "model")
    saved = tensors(tmp_path / "run", 16)
    begun = load_file(finished / "model/model.safetensors")
    moved = {name for name, value in begun.items() if not torch.equal(saved[f"model/{name}"], value.float())}
    assert moved == {name for name in begun if is_temporal(name)}


def test_without_pictures_motion_free_steps_take_clips(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, total_images=32)
    run_tiny_video(tmp_path / "run", tiny_checkpoint, cache, recipe=recipe, joint=None)
    losses = {name for row in rows(tmp_path / "run", "train") for name in row if name.startswith("loss_")}
    assert losses == {"loss_clips", "loss_motion_free"}
    assert json.loads((tmp_path / "run/config.json").read_text())["recipe"]["video"]["joint"] is False


def write_clips(folder: Path, count: int = 8) -> Path:
    """Folders of frames, a caption beside each; the third is damaged."""
    folder.mkdir()
    for i in range(count):
        clip = sample_clip(scene_rng(0, i), num_frames=4)
        write_clip(folder / f"{i}.webp", render_clip(clip, 4), 4.0)
        (folder / f"{i}.txt").write_text(clip_caption(clip, scene_rng(1, i)))
    content = (folder / "2.webp").read_bytes()
    (folder / "2.webp").write_bytes(content[: len(content) // 3])
    return folder


def test_clips_of_files_train_and_a_damaged_one_is_counted_and_skipped(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    data = write_clips(tmp_path / "data")
    recipe = replace(changed(RECIPE, p_motion_free=0.25), total_images=32)
    options: dict[str, Any] = {"recipe": recipe, "data": str(data), "joint": None}
    run_tiny_video(tmp_path / "whole", tiny_checkpoint, cache, **options)
    run_tiny_video(tmp_path / "parts", tiny_checkpoint, cache, max_samples=16, **options)
    run_tiny_video(tmp_path / "parts", tiny_checkpoint, cache, **options)
    skipped = rows(tmp_path / "whole", "unreadable")
    assert len(skipped) >= 3 and all("2.webp" in row["reason"] for row in skipped)
    assert rows(tmp_path / "parts", "unreadable") == skipped
    whole, parts_ = tensors(tmp_path / "whole", 32), tensors(tmp_path / "parts", 32)
    assert all(torch.equal(value, parts_[name]) for name, value in whole.items())
    assert len(rows(tmp_path / "whole", "validation_motion_on")) == 1


# ---- what a step takes -----------------------------------------------------------------------------------


def test_kind_of_a_step_is_keyed_on_its_number(tiny_checkpoint: Path, cache: Path) -> None:
    task = make_task(tiny_checkpoint, cache)
    kinds = []
    for step in range(8):
        whole = task.prepare(range(4 * step, 4 * step + 4))
        halves = [task.prepare(range(4 * step + i, 4 * step + i + 2)) for i in (0, 2)]  # two ranks
        assert {half.kind for half in halves} == {whole.kind}
        for name in ("latents", "noise", "timesteps"):
            joined = torch.cat([_per_frame(half.batch, name) for half in halves])
            assert torch.equal(joined, _per_frame(whole.batch, name)), name
        kinds.append(whole.kind)
        expected = "pictures" if t2v.is_motion_free(VIDEO, seed=3, step=step) else "clips"
        assert whole.kind == expected
        assert whole.batch.latents.shape[:2] == ((8, 1) if whole.kind == "pictures" else (4, 3))
        assert whole.batch.motion_free == (whole.kind == "pictures")
    assert {*kinds} == {"clips", "pictures"}
    share = np.mean([t2v.is_motion_free(VIDEO, seed=0, step=step) for step in range(4000)])
    assert share == pytest.approx(0.5, abs=0.03)


def _per_frame(batch: t2v.ClipBatch, name: str) -> Tensor:
    value = getattr(batch, name)
    if name == "timesteps" and value.ndim == 1:
        return value[:, None].expand(-1, batch.latents.shape[1])
    return value


def test_repeated_picture_has_noise_of_its_own_in_each_frame(tiny_checkpoint: Path, cache: Path) -> None:
    task = make_task(tiny_checkpoint, cache, recipe=changed(RECIPE, joint_repeats=3, p_motion_free=1.0))
    batch = task.prepare(range(4)).batch
    assert batch.latents.shape[:2] == batch.noise.shape[:2] == (8, 3)
    assert torch.equal(batch.latents[:, 0], batch.latents[:, 2])
    assert not torch.equal(batch.noise[:, 0], batch.noise[:, 2])
    assert batch.timesteps.shape == (8,)


def clip_draws(count: int = 2000, **changes: Any):  # noqa: ANN201
    recipe = changed(RECIPE, **changes)
    assert recipe.video is not None
    return draw_clips(
        recipe, recipe.video, seed=0, global_indices=range(count), shape=(3, 1, 2, 2), num_timesteps=1000
    )


def test_one_timestep_a_clip_but_for_a_share_of_first_frames() -> None:
    drawn = clip_draws(first_frame_share=0.4, clean_first_frame=0.4)
    rest = drawn.timesteps[:, 1:]
    assert torch.equal(rest, rest[:, :1].expand_as(rest))
    clean = ~drawn.has_loss[:, 0]
    assert drawn.has_loss[:, 1:].all() and not drawn.timesteps[clean, 0].any()
    assert clean.float().mean() == pytest.approx(0.16, abs=0.025)
    cleaner = (drawn.timesteps[:, 0] < rest[:, 0]) & ~clean
    assert cleaner.float().mean() == pytest.approx(0.24, abs=0.03)
    assert (drawn.timesteps[:, 0] <= rest[:, 0]).all()
    ratio = drawn.timesteps[cleaner, 0] / rest[cleaner, 0]  # u * t, u uniform
    assert ratio.mean() == pytest.approx(0.5, abs=0.04)
    same = clip_draws(first_frame_share=0.0).timesteps
    assert torch.equal(same[:, 1:], rest) and torch.equal(same[:, 0], rest[:, 0])


def test_run_begins_with_short_clips_and_clean_first_frames(tiny_checkpoint: Path, cache: Path) -> None:
    recipe = changed(
        RECIPE, p_motion_free=0.0, first_frame_share=1.0, short_clips_until=6, short_clip_frames=2
    )
    task = make_task(tiny_checkpoint, cache, recipe=recipe)
    short = [task.prepare(indices).batch for indices in (range(4), range(4, 6), range(6, 8))]
    assert [batch.latents.shape[:2] for batch in short] == [(4, 2), (2, 2), (2, 2)]  # whole steps
    assert not any(batch.timesteps[:, 0].any() or batch.has_loss[:, 0].any() for batch in short)
    later = task.prepare(range(8, 12)).batch
    assert later.latents.shape[:2] == later.noise.shape[:2] == (4, 3)
    plain = make_task(tiny_checkpoint, cache, recipe=changed(recipe, short_clips_until=0)).prepare(range(4))
    assert torch.equal(plain.batch.latents[:, :2], short[0].latents)


def test_share_of_first_frames_falls_in_a_straight_line() -> None:
    recipe = changed(RECIPE, first_frame_share=0.5, first_frame_share_end=0.1)
    assert recipe.video is not None
    shares = [first_frame_share_at(recipe, recipe.video, index) for index in (0, 32, 64, 1000)]
    assert shares == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert first_frame_share_at(RECIPE, VIDEO, 50) == 0.5


def test_captions_drop_independently_of_motion() -> None:
    drawn = clip_draws(first_frame_share=0.5)
    drops = torch.tensor(drawn.drops_caption)
    first = drawn.timesteps[:, 0] < drawn.timesteps[:, 1]
    assert drops.float().mean() == pytest.approx(0.1, abs=0.02)
    assert abs(drops[first].float().mean() - drops[~first].float().mean()) < 0.04


def test_clean_first_frame_has_no_loss(tiny_checkpoint: Path, cache: Path) -> None:
    recipe = changed(RECIPE, p_motion_free=0.0, first_frame_share=1.0, clean_first_frame=1.0)
    task = make_task(tiny_checkpoint, cache, recipe=replace(recipe, precision="fp32"))
    batch = task.prepare(range(4)).batch
    assert batch.timesteps.shape == (4, 3) and not batch.timesteps[:, 0].any()

    def seeing(noisy_latents: Tensor, *_: Any, **__: Any) -> Tensor:
        outputs.append(torch.zeros_like(noisy_latents, requires_grad=True))
        return outputs[0]

    outputs: list[Tensor] = []
    loss = task.loss(seeing, batch)  # type: ignore[arg-type]
    loss.backward()
    assert outputs[0].grad is not None
    assert not outputs[0].grad[:, 0].any() and outputs[0].grad[:, 1:].abs().sum(dim=(2, 3, 4)).all()
    # the mean over the two noisy frames of each clip, then over the clips
    from gentron.diffusion import target

    schedule = parts.schedule_of(recipe)
    wanted = [
        target(schedule, batch.latents[:, f], batch.noise[:, f], batch.timesteps[:, f], "v_prediction")
        for f in (1, 2)
    ]
    assert loss.item() == pytest.approx(torch.stack(wanted).square().mean().item(), rel=1e-5)


def test_swapped_validation_is_positive_where_the_text_is_read(tiny_checkpoint: Path, cache: Path) -> None:
    """A model that is right for the right caption and wrong for all others, and one that cannot read."""
    held_back = _clips(cache, tiny_checkpoint).held_back()
    swapped = _clips(cache, tiny_checkpoint).swapped_captions()
    moving = [i for i, caption in enumerate(held_back.captions) if caption != swapped[i]]
    assert len(moving) >= 4
    _, text_encoders = parts.load_frozen_parts(_with_parts(tiny_checkpoint), torch.device("cpu"))
    validate = t2v.make_validation(
        RECIPE,
        clips=held_back,
        swapped_captions=swapped,
        pictures=None,
        text_encoders=text_encoders,
        seed=3,
        device=torch.device("cpu"),
    )
    right = text_encoders.encode([held_back.captions[i] for i in moving])
    assert right.t5_prompt_embeds is not None
    known = right.t5_prompt_embeds[:, :2].sum(-1)

    def reads(noisy: Tensor, timesteps: Tensor, text: Any, *, motion_free: bool) -> Tensor:
        is_right = torch.isclose(text.t5_prompt_embeds[:, None, :2].sum(-1), known).all(-1).any(1)
        return (~is_right).float().reshape(-1, 1, 1, 1, 1).expand_as(noisy) * 100

    def cannot(noisy: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.zeros_like(noisy)

    blind = validate(cannot)  # type: ignore[arg-type]
    for name in ("validation_swapped", "validation_swapped_first_frame"):
        assert blind[name]["loss"] == 0 and blind[name]["t950"] == 0
    assert blind["validation_motion_on"]["loss"] > 0
    reader = validate(reads)  # type: ignore[arg-type]
    assert reader["validation_swapped"]["loss"] > 0 and reader["validation_swapped"]["t850"] > 0


def _with_parts(folder: Path) -> TrainRecipe:
    return replace(RECIPE, **{name: str(folder / name) for name in ("autoencoder", "clip", "t5")})


def _clips(cache: Path, folder: Path) -> ShapesClips:
    from rich.console import Console

    recipe = _with_parts(folder)
    autoencoder, _ = parts.load_frozen_parts(recipe, torch.device("cpu"))
    return t2v.shapes_clips(recipe, autoencoder, seed=3, cache_dir=cache, console=Console(quiet=True))


# ---- sources ---------------------------------------------------------------------------------------------


def averaged(images: Tensor) -> Tensor:
    """A stand-in autoencoder: colours averaged over 4 x 4 pixels."""
    return torch.nn.functional.avg_pool2d(images, 4)


def clip_pool(cache: Path) -> ShapesClips:
    return ShapesClips(
        encode=averaged,
        autoencoder_hash="stub",
        cache_dir=cache,
        seed=1,
        num_frames=3,
        pool_size=8,
        validation_size=6,
    )


def test_clips_depend_on_their_index_alone_and_are_phrased_anew(tmp_path: Path) -> None:
    source, again = clip_pool(tmp_path), clip_pool(tmp_path)
    whole, part = source.batch(range(24)), again.batch([17, 3])
    assert torch.equal(part.latents, whole.latents[[17, 3]])
    assert part.captions == [whole.captions[17], whole.captions[3]]
    visits: dict[int, set[str]] = {}
    for index, caption in enumerate(whole.captions):
        visits.setdefault(item_of_index(1, index, 8), set()).add(caption)
    assert any(len(captions) > 1 for captions in visits.values())
    held_back, swapped = source.held_back(), source.swapped_captions()
    assert held_back.latents.shape == (6, 3, 3, 16, 16)
    assert swapped != held_back.captions


def test_equal_frames_are_encoded_once() -> None:
    clips = np.stack([render_clip(sample_clip(scene_rng(0, i), num_frames=4), 4) for i in range(3)])
    clips[1] = clips[1, :1]  # stands still
    clips[2, 3] = clips[0, 0]
    asked: list[int] = []

    def counting(images: Tensor) -> Tensor:
        asked.append(len(images))
        return averaged(images)

    latents = encode_frames(clips, counting)
    assert asked == [len({frame.tobytes() for clip in clips for frame in clip})]
    plain = averaged(torch.from_numpy(clips).movedim(-1, -3).flatten(0, 1).float() / 127.5 - 1)
    torch.testing.assert_close(torch.from_numpy(latents).flatten(0, 1).float(), plain, rtol=0, atol=1e-3)


def test_shifted_scene_fits_and_keeps_its_layout() -> None:
    moved = 0
    for i in range(200):
        scene = sample_scene(scene_rng(1, i))
        other = shifted(scene, scene_rng(2, i))
        assert all(map(fits_canvas, other.objects))
        offsets = {(b.x - a.x, b.y - a.y) for a, b in zip(scene.objects, other.objects, strict=True)}
        ((dx, dy),) = offsets
        assert dx % 4 == 0 and dy % 4 == 0 and other.relation == scene.relation
        moved += bool(dx % 16 or dy % 16)
    assert moved > 100


def test_share_of_shifted_scenes_is_off_by_default_and_another_pool(tmp_path: Path) -> None:
    assert draw_scene(scene_rng(1, 5), DEFAULT_MIXTURE, 0.0) == sample_scene(scene_rng(1, 5))
    settings: dict[str, Any] = {
        "encode": averaged, "autoencoder_hash": "stub", "cache_dir": tmp_path, "seed": 1,
        "pool_size": 20, "validation_size": 4,
    }  # fmt: skip
    plain, half = ShapesSource(**settings), ShapesSource(**settings, off_grid=0.5)
    assert len(list(tmp_path.glob("*.f16"))) == 2
    same = (plain.batch(range(20)).latents == half.batch(range(20)).latents).flatten(1).all(1)
    assert 4 <= same.sum() <= 16
    assert "0.5 of them off the grid" in half.name and "grid" not in plain.name
    assert render(sample_scene(scene_rng(0, 0))).shape == (64, 64, 3)
    assert clip_caption(sample_clip(scene_rng(0, 0)), scene_rng(0, 1))


# ---- recipes, rates, refusals ----------------------------------------------------------------------------


def test_temporal_weights_have_a_rate_of_their_own() -> None:
    optimizer = make_optimizer(GenTron(RECIPE.model), RECIPE)
    assert [group["lr_scale"] for group in optimizer.param_groups] == [1.0, 2.0]
    names = {id(p): name for name, p in GenTron(RECIPE.model).named_parameters()}
    assert len(names) == sum(len(group["params"]) for group in optimizer.param_groups)
    plain = make_optimizer(GenTron(tiny_recipe().model), tiny_recipe())
    assert [group["lr_scale"] for group in plain.param_groups] == [1.0]


def test_late_decay_is_constant_for_two_thirds() -> None:
    recipe = replace(tiny_recipe(), lr_schedule="late_decay", total_images=900, warmup_images=80)
    assert learning_rate_at(recipe, 0) == pytest.approx(2e-4)
    assert learning_rate_at(recipe, 100) == learning_rate_at(recipe, 600) == 2e-3
    assert learning_rate_at(recipe, 750) == pytest.approx(1e-3)
    assert learning_rate_at(recipe, 900) == 0


@pytest.mark.parametrize("name", ["xl2_t2v", "g2_t2v"])
def test_video_recipes_hold_the_papers_numbers(name: str) -> None:
    recipe = recipes.RECIPES[name]()
    assert recipe.model.temporal is not None and recipe.video is not None
    assert (recipe.model.temporal.num_frames, recipe.model.temporal.fps) == (8, 4.0)
    assert (recipe.image_size, recipe.global_batch_size, recipe.learning_rate) == (512, 128, 1e-4)
    assert recipe.video.joint_repeats == 8 and recipe.video.temporal_learning_rate == 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_motion_free": 1.5}, r"p_motion_free must be in \[0, 1\], got 1.5"),
        ({"p_motion_free": float("nan")}, r"p_motion_free must be in \[0, 1\], got nan"),
        ({"first_frame_share_end": -0.1}, r"first_frame_share_end must be in \[0, 1\]"),
        ({"joint_batch_size": 6}, "video.joint_batch_size must be a multiple of global_batch_size 4, got 6"),
        ({"short_clip_frames": 1}, "short_clip_frames >= 2, got 0 and 1"),
        ({"joint_repeats": 0}, "joint_repeats must be >= 1, got 0"),
        ({"temporal_learning_rate": 0.0}, "temporal_learning_rate must be > 0, got 0.0"),
        ({"motion_guidance_scale": float("inf")}, "motion_guidance_scale must be a finite number >= 0"),
    ],
)
def test_video_recipe_refuses_bad_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(RECIPE, **changes)


def test_video_recipe_needs_a_video_model_and_the_other_way_round() -> None:
    with pytest.raises(ValueError, match="model.temporal is None"):
        replace(RECIPE, model=tiny_recipe().model)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["t2i", "--recipe", "mini_t2v"], "mini_t2v is a recipe of `gentron train t2v`; known here: mini, "),
        (["t2v", "--recipe", "mini"], "mini is a recipe of `gentron train t2i`; known here: mini_t2v, "),
        (["t2v", "--recipe", "xl2_stage1"], "xl2_256 is a recipe of `gentron train t2i`"),
        (["t2v", "--recipe", "huge"], "unknown recipe 'huge'; known: mini_t2v, xl2_t2v, g2_t2v"),
        (["t2v", "--data", "nowhere"], "nowhere"),
        (["t2v", "--joint", "nowhere"], "nowhere"),
        (["t2v", "--initial", "nowhere"], "no GenTron checkpoint in 'nowhere'"),
    ],
)
def test_bad_options_are_one_line(
    command: list[str], message: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "tiny_t2v", tiny_video_recipe)
    monkeypatch.setattr(t2v, "bundled_mini", lambda: tiny_checkpoint)
    options = ["--out", str(tmp_path / "run"), "--device", "cpu", "--cache", str(tmp_path / "cache")]
    options += ["--autoencoder", str(tiny_checkpoint), "--text", str(tiny_checkpoint)]
    if "--recipe" not in command:
        options += ["--recipe", "tiny_t2v"]
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 2, result.output
    assert message in result.output and result.output.count("\n") == 1


def test_command_trains_and_stops_where_told(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "tiny_t2v", tiny_video_recipe)
    command = ["t2v", "--recipe", "tiny_t2v", "--out", str(tmp_path / "run"), "--device", "cpu"]
    command += ["--autoencoder", str(tiny_checkpoint), "--text", str(tiny_checkpoint)]
    command += ["--cache", str(cache), "--total-samples", "32", "--max-samples", "16"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert stored["recipe"]["total_images"] == 32 and stored["format_version"] == 2
    assert read_config(tmp_path / "run/model").training["samples_seen"] == 16
