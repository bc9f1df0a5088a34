"""The training loop end to end, at a size that takes seconds."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from gentron.checkpoint import load_model, read_config
from gentron.errors import UserError
from gentron.train import metrics, recipes, state, t2i
from gentron.train.cli import app
from tests.run_folders import rows, tensors
from tests.tiny_recipe import run_tiny, tiny_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="module")
def finished(tiny_checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_tiny(out, tiny_checkpoint, cache)
    torch.set_num_threads(threads)
    return out


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def test_command_trains_a_model_folder_that_loads(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda: replace(tiny_recipe(), total_images=32))
    out = tmp_path / "run"
    command = ["t2i", "--recipe", "tiny", "--out", str(out), "--device", "cpu", "--cache", str(cache)]
    command += ["--autoencoder", str(tiny_checkpoint), "--text", str(tiny_checkpoint)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert '"learning_rate": 0.002' in result.output  # the configuration is printed
    config = read_config(out / "model")
    assert config.training["images_seen"] == 32
    assert config.training["recipe"]["clip"] == config.text.clip == "clip"
    load_model(out / "model", config.model, dtype=torch.float32)
    assert (out / "samples" / "000000000032.png").is_file()
    assert list((out / "tensorboard").iterdir())

    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert again.output.count("\n") == 1 and "add --resume auto" in again.output.replace("\n", " ")
    assert CliRunner().invoke(app, [*command, "--resume", "auto"]).exit_code == 0  # finished: nothing to do
    other = CliRunner().invoke(app, [*command, "--resume", "auto", "--seed", "1"])
    assert other.exit_code == 2 and "seed: 0 there, 1 now" in other.output


def test_run_keeps_its_last_two_checkpoints_and_every_row(finished: Path) -> None:
    assert [p.name for p in state.list_checkpoints(finished)] == ["000000000096", "000000000128"]
    assert [row["images_seen"] for row in rows(finished, "train")] == list(range(16, 129, 16))
    validation = rows(finished, "validation")
    assert [row["images_seen"] for row in validation] == [64, 128]
    assert {"t62", "t187", "t312", "t437", "t562", "t687", "t812", "t937"} <= validation[0].keys()
    assert json.loads((finished / "config.json").read_text())["recipe"]["total_images"] == 128


def test_killed_run_resumes_bit_for_bit(
    finished: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    # in a step after the first checkpoint, then while the second file of a checkpoint is being written
    for where, count in (("loop.update_ema", 7), ("state._save_tensors", 2)):
        command = [
            sys.executable,
            "-m",
            "tests.tiny_recipe",
            "t2i",
            out,
            tiny_checkpoint,
            cache,
            where,
            count,
        ]
        killed = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, timeout=300)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert [p.name for p in state.list_checkpoints(out)] == ["000000000032"]
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "images_se')  # a row cut short
    run_tiny(out, tiny_checkpoint, cache)
    for images_seen in (96, 128):
        assert_same_bits(tensors(out, images_seen), tensors(finished, images_seen))
    assert rows(out) == rows(finished)
    assert (out / "model/model.safetensors").read_bytes() == (
        finished / "model/model.safetensors"
    ).read_bytes()
    assert not list((out / "checkpoints").glob(".*"))


def test_stopping_early_and_going_on_changes_nothing(
    finished: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    run_tiny(tmp_path / "run", tiny_checkpoint, cache, max_images=40)  # not at a checkpoint of the whole run
    run_tiny(tmp_path / "run", tiny_checkpoint, cache)
    assert_same_bits(tensors(tmp_path / "run", 128), tensors(finished, 128))


def test_micro_batches_change_rounding_only(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int | None, list[int]] = {}
    for micro in (None, 2):
        recipe = replace(tiny_recipe(), micro_batch_size=micro, precision="fp32", total_images=32)
        drawn = seen.setdefault(micro, [])
        original = t2i.draw

        def spying(*args: Any, into: list[int] = drawn, call: Any = original, **options: Any) -> Any:
            into.extend(options["global_indices"])
            return call(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(t2i, "draw", spying)
            run_tiny(tmp_path / str(micro), tiny_checkpoint, cache, recipe=recipe)
    assert seen[None] == seen[2] == list(range(32))
    whole, split = tensors(tmp_path / "None", 32), tensors(tmp_path / "2", 32)
    # the moments, not the weights: Adam's first steps turn rounding of a tiny gradient into its sign
    for name in (n for n in whole if n.startswith("optimizer/exp_avg/")):
        torch.testing.assert_close(whole[name], split[name], rtol=1e-3, atol=1e-6)
    losses = [[row["loss"] for row in rows(tmp_path / name, "train")] for name in ("None", "2")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_non_finite_step_is_skipped_counted_and_survived(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = t2i.squared_error

    def poisoned(model_output: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return original(model_output, target) * (float("nan") if calls == 3 else 1.0)

    monkeypatch.setattr(t2i, "squared_error", poisoned)
    recipe = replace(tiny_recipe(), checkpoint_every=8, total_images=48)
    run_tiny(tmp_path / "run", tiny_checkpoint, cache, recipe=recipe, max_images=24)
    assert_same_bits(tensors(tmp_path / "run", 16), tensors(tmp_path / "run", 24))
    run_tiny(tmp_path / "run", tiny_checkpoint, cache, recipe=recipe)
    assert rows(tmp_path / "run", "train")[-1]["num_skipped"] == 1
    assert rows(tmp_path / "run", "skipped") == [{"kind": "skipped", "images_seen": 24, "first_sample": 16}]
    last = tensors(tmp_path / "run", 48)
    assert all(torch.isfinite(value).all() for value in last.values())
    assert float(last["optimizer/step/patch_embed.weight"]) == 5


def test_loss_of_a_fixed_set_goes_down(tiny_checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    recipe = replace(
        tiny_recipe(), pool_size=8, total_images=384, validate_every=64, checkpoint_every=384, ema_decay=0.8
    )
    run_tiny(tmp_path / "run", tiny_checkpoint, cache, recipe=recipe)
    losses = [row["loss"] for row in rows(tmp_path / "run", "validation")]
    assert losses[-1] < 0.8 * losses[0]


def test_second_stage_starts_from_the_weights_of_the_first(
    finished: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = replace(tiny_recipe(), learning_rate=1e-12, total_images=8)
    run_tiny(tmp_path / "run", tiny_checkpoint, cache, recipe=recipe, initial=finished / "model")
    first = load_file(finished / "model/model.safetensors")
    for name, value in load_file(tmp_path / "run/model/model.safetensors").items():
        torch.testing.assert_close(value, first[name], rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="holds another model than the recipe's"):
        run_tiny(tmp_path / "other", tiny_checkpoint, cache, initial=tiny_checkpoint)


def test_folder_of_pictures_trains_too(tiny_checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(12):
        Image.new("RGB", (70, 64), (i * 20, 0, 0)).save(data / f"{i}.png")
        (data / f"{i}.txt").write_text("a red square")
    recipe = replace(tiny_recipe(), total_images=16)
    run_tiny(tmp_path / "run", tiny_checkpoint, cache, recipe=recipe, data=str(data))
    assert len(rows(tmp_path / "run", "train")) == 1


def test_prefetching_in_another_order_of_threads_changes_nothing(
    finished: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gentron.train.prefetch.DEPTH", 7)
    run_tiny(tmp_path / "run", tiny_checkpoint, cache)
    assert_same_bits(tensors(tmp_path / "run", 128), tensors(finished, 128))


def test_full_disk_is_one_line_and_leaves_nothing_half_written(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "optimizer.safetensors")

    monkeypatch.setitem(recipes.RECIPES, "tiny", tiny_recipe)
    monkeypatch.setattr(state, "_save_tensors", full)
    command = ["t2i", "--recipe", "tiny", "--out", str(tmp_path / "run"), "--device", "cpu", "--cache"]
    command += [str(cache), "--autoencoder", str(tiny_checkpoint), "--text", str(tiny_checkpoint)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == "error: No space left on device: optimizer.safetensors"
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "huge"], "unknown recipe 'huge'; known: mini, mini_stage2, mini_stage3, xl2_256"),
        (["--device", "tpu7"], "cannot use the device 'tpu7' here"),
        (["--autoencoder", "nowhere"], "no autoencoder in nowhere"),
        (["--text", "nowhere"], "no clip encoder in nowhere"),
        (["--data", "nowhere"], "no such data folder: nowhere"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], message: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "tiny", tiny_recipe)
    command = ["t2i", "--out", str(tmp_path / "run"), "--recipe", "tiny", "--device", "cpu"]
    command += ["--autoencoder", str(tiny_checkpoint), "--text", str(tiny_checkpoint)]
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 2
    assert message in result.output and result.output.count("\n") == 1


def test_options_of_the_command_reach_the_files(
    tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda: replace(tiny_recipe(), total_images=8))
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"photo": f"{k}.png", "alt": "a red circle"} for k in range(6)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(5):  # the sixth is missing
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(folder / f"{number}.png")
    command = ["t2i", "--recipe", "tiny", "--data", folder, "--device", "cpu", "--cache", cache]
    command += ["--autoencoder", tiny_checkpoint, "--text", tiny_checkpoint]
    columns = ["--media-column", "photo", "--caption-column", "alt"]
    for number, (options, message) in enumerate(
        [
            ([], "expected {"),
            (columns, "1 of 6 pictures have no usable"),
            ([*columns, "--max-dropped", 0.2], ""),
        ]
    ):
        out = tmp_path / str(number)
        result = CliRunner().invoke(app, [*map(str, [*command, "--out", out, "--mirror", *options])])
        assert result.exit_code == (2 if message else 0), result.output
        assert message in result.output
    assert "5 pictures, 5 captions; dropped 1: 1 file missing (5.png)" in " ".join(result.output.split())
    config = json.loads((tmp_path / "2" / "model" / "config.json").read_text("utf-8"))
    assert config["training"]["data"].endswith("(4 pictures, 1 held back, half of them mirrored)")


def test_out_folder_that_holds_something_else_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    command = ["t2i", "--out", str(tmp_path), "--resume", "auto", "--device", "cpu"]
    command += ["--autoencoder", str(tiny_checkpoint), "--text", str(tiny_checkpoint)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "exists and is not a run" in result.output


def test_damaged_checkpoint_is_named(
    finished: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (state.checkpoint_folder(out, 128) / "ema.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match="cannot load checkpoint .*000000000128"):
        run_tiny(out, tiny_checkpoint, cache)


def test_spike_is_seen_and_does_not_hide_the_next() -> None:
    detector = metrics.SpikeDetector()
    quiet = [detector.is_spike(0.5 + 0.01 * (i % 5)) for i in range(metrics.SPIKE_HISTORY)]
    assert not any(quiet)
    assert detector.is_spike(2.0)
    assert detector.is_spike(2.0)
    assert not detector.is_spike(0.52)
