"""A typing error, a bad file, a full disk: one line on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from gentron.atomic import atomic_file, atomic_folder
from gentron.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from gentron.cli import app
from tests.bad_input import disk_of, refused

PROMPT = "a red circle"


def gentron(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---- the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sampel"], ["no such command 'sampel'", "sample", "--help'"]),
        (["sample", "--promt", "a"], ["no such option: --promt", "--prompt-file", "sample --help'"]),
        (["sample", "a", "--num-images", "0"], ["'--num-images'", "got '0'"]),
        (["sample", "a", "--num-images", "1000000000000"], ["'--num-images'", "less than or equal"]),
        (["sample", "a", "--seed", "1.5"], ["'--seed'", "got '1.5'"]),
        (["sample", "a", "--dtype", "float64"], ["'--dtype': 'float64' is not one of 'auto'"]),
        (["sample", "--seed"], ["'--seed' requires an argument"]),
        (["models", "x"], ["unexpected extra argument", "models --help'"]),
        (["data", "shape"], ["no such command 'shape'"]),
        (["data", "shapes", "--count", "3"], ["missing option '--out'"]),
        (["data", "shapes", "--count", "3", "--out", "x", "--seed", str(2**64)], ["'--seed'"]),
        (["train", "t2j"], ["no such command 't2j'"]),
        (["train", "t2i", "--resume", "maybe"], ["'maybe' is not one of 'auto', 'never'"]),
        (["train", "t2i", "--max-images", "-1"], ["'--max-images'", "got '-1'"]),
        (["train", "t2i", "--seed", str(2**70)], ["'--seed'"]),
    ],
)
def test_a_typing_error_is_one_line(arguments: list[str], expected: list[str]) -> None:
    refused(gentron(*arguments), *expected)


def test_no_command_shows_the_help() -> None:
    result = gentron()
    assert result.exit_code == 2 and "Usage" in result.output and "error" not in result.output


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gentron.cli.read_prompts", interrupt)
    result = gentron("sample", "a")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate", "you can't allocate memory"])
def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    def exhaust(*arguments: object) -> None:
        raise RuntimeError(f"{message}\nC++ stack")

    monkeypatch.setattr("gentron.cli.read_prompts", exhaust)
    refused(gentron("sample", "a"), "not enough memory", message)


def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("sizes must match")

    monkeypatch.setattr("gentron.cli.read_prompts", fail)
    assert isinstance(gentron("sample", "a").exception, RuntimeError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["models"]])
def test_a_full_disk_behind_stdout_is_one_line(arguments: list[str]) -> None:
    code = f"import sys; from gentron.cli import main; sys.argv = ['gentron', *{arguments}]; main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


# ---- sample ------------------------------------------------------------------------------------------------


def test_prompt_files_of_other_editors_are_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfa red circle\r\n\r\n \r\na blue square")
    out = tmp_path / "set"
    result = gentron(
        "sample", "--model", tiny_checkpoint, "--prompt-file", tmp_path / "prompts.txt", "--out", out
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((out / "manifest.json").read_text("utf-8"))["images"]
    assert [row["prompt"] for row in rows] == ["a red circle", "a blue square"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no prompt"),
        (b"\xef\xbb\xbf\r\n \r\n", "holds no prompt"),
        (b"a red circle\ncaf\xe9\n", "prompts.txt:2: not UTF-8 text (byte 0xe9 at 16); save it as UTF-8"),
        (b"x" * 10_000, "prompt 0 has 10000 characters"),
    ],
)
def test_a_bad_prompt_file_is_one_line(
    tiny_checkpoint: Path, tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    result = gentron("sample", "--model", tiny_checkpoint, "--prompt-file", tmp_path / "prompts.txt")
    refused(result, expected)
    refused(gentron("sample", "--prompt-file", tmp_path), "cannot read the prompt file", "Is a directory")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", ""], "unknown model ''"),
        (["--checkpoint", "elsewhere"], "--checkpoint 'elsewhere' has no effect on"),
        (["--random-weights", "--model", "mini", "--checkpoint", "x"], "no effect with --random-weights"),
        (["--height", "63"], "height must be a positive multiple of 8 up to 4096, got 63"),
        (["--width", "1000000000"], "width must be a positive multiple of 8 up to 4096"),
        (["--height", "-64"], "got -64"),
        (["--num-inference-steps", "0"], "num_inference_steps must be in 1..1000, got 0"),
        (["--num-inference-steps", "100000"], "got 100000"),
        (["--guidance-scale", "inf"], "guidance_scale must be a finite number >= 1, got inf"),
        (["--guidance-scale", "0.5"], "got 0.5"),
        (["--guidance-scale", "-1"], "got -1.0"),
        (["--guidance-scale", "1e300"], "image 0 is not finite"),
        (["--seed", str(2**63 - 1), "--num-images", "2"], "a seed must be in [0, 2^63)"),
        (["--device", "meta"], "cannot use the device 'meta'"),
        (["--negative-prompt", "x" * 1001], "1001 characters"),
        (["caf\udce9"], "prompt 1 is not UTF-8 text: 'caf\\udce9'"),
    ],
)
def test_bad_settings_are_one_line(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(gentron("sample", PROMPT, "--model", tiny_checkpoint, *arguments), expected)
    assert files(tmp_path) == []


def test_out_is_checked_before_the_work(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "locked").mkdir(mode=0o500)
    tiny = ("sample", PROMPT, "--model", tiny_checkpoint, "--out")
    refused(gentron(*tiny, tmp_path / "file"), "is a file already")
    refused(gentron(*tiny, tmp_path / "file" / "a.png"), "cannot be written: Not a directory in")
    refused(gentron(*tiny, tmp_path / "file" / "folder"), "cannot be written: Not a directory in")
    refused(gentron(*tiny, "/dev/null"), "/dev/null")
    if os.geteuid() != 0:
        refused(gentron(*tiny, tmp_path / "locked" / "a.png"), "Permission denied")
    assert files(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "kept"


def test_a_folder_may_have_a_dot_in_its_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "v1.0").mkdir()
    result = gentron("sample", PROMPT, "--model", tiny_checkpoint, "--out", tmp_path / "v1.0")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "v1.0") == ["000000.png", "manifest.json"]


def test_an_old_manifest_never_describes_new_pictures(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = ("sample", PROMPT, "--model", tiny_checkpoint, "--num-images", 2, "--out", tmp_path / "set")
    assert gentron(*command).exit_code == 0
    with disk_of(100):
        refused(gentron(*command, "--seed", 5), "File too large", "000000.png")
    assert files(tmp_path / "set") == ["000000.png", "000001.png"]


# ---- checkpoints -------------------------------------------------------------------------------------------


def config_with(path: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        *groups, name = path.split(".")
        place = config
        for group in groups:
            place = place[group]
        place[name] = value
        (folder / CONFIG_FILE).write_text(json.dumps(config))

    return change


def weights_with(function: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        save_file({name: function(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS_FILE)

    return change


def content(name: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (config_with("model.foo", 1), "unknown field model.foo"),
        (config_with("model.depth", 3), "lacks tensor blocks.2"),
        (config_with("model.hidden_size", 64), "must be (64, 16), got (32, 16)"),
        (config_with("model.depth", "2"), "model.depth must be an integer, got '2'"),
        (config_with("model.clip_width", 48), "the model's clip_width is 48, the encoder's hidden_size 32"),
        (config_with("model.t5_width", 64), "the model's t5_width is 64"),
        (config_with("model.pooled_width", 64), "the model's pooled_width is 64"),
        (config_with("model.in_channels", 8), "its latents must have 8 channels, got 4"),
        (config_with("text.clip_max_length", 77), "clip_max_length must be <= 16, got 77"),
        (config_with("text.t5_max_length", 0), "t5_max_length must be >= 2, got 0"),
        (config_with("text.clip", "t5"), "the clip text encoder in"),
        (config_with("autoencoder", "clip"), "cannot load the autoencoder"),
        (content(CONFIG_FILE, b"[" * 100_000), "config.json is damaged"),
        (content(CONFIG_FILE, b"\xff"), "config.json is damaged"),
        (content(WEIGHTS_FILE, b""), "model.safetensors is damaged"),
        (without(WEIGHTS_FILE), "lacks model.safetensors"),
        (content("t5/config.json", b"{}"), "cannot load the t5 text encoder"),
        (without("autoencoder/diffusion_pytorch_model.safetensors"), "cannot load the autoencoder"),
        (content("autoencoder/config.json", b"{}"), "AutoencoderKL: size mismatch"),
        (weights_with(lambda x: x.to(torch.int8)), "must be of a floating-point type, got I8"),
        (weights_with(lambda x: x * float("nan")), "image 0 is not finite"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    tiny_checkpoint: Path, tmp_path: Path, change: Callable[[Path], None], expected: str
) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    change(copy)
    refused(gentron("sample", PROMPT, "--model", copy, "--out", tmp_path / "out.png"), expected)
    assert not (tmp_path / "out.png").exists()


# ---- data --------------------------------------------------------------------------------------------------


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text("mine")
    refused(gentron("data", "shapes", "--count", 2, "--out", tmp_path), "holds files of another kind")
    assert files(tmp_path) == ["captions.jsonl"]


@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_a_full_disk_leaves_whole_files_and_the_same_command_goes_on(tmp_path: Path, form: str) -> None:
    command = ("data", "shapes", "--count", 3, "--format", form, "--out", tmp_path / "data")
    with disk_of(200):
        refused(gentron(*command), "File too large", "data/")
    assert files(tmp_path / "data") == ["shapes.json"]
    assert gentron(*command).exit_code == 0
    if form == "webdataset":  # a damaged shard is written again
        shard = tmp_path / "data" / "shapes-000000.tar"
        whole = shard.read_bytes()
        shard.write_bytes(b"no tar" * 100)
        assert gentron(*command).exit_code == 0
        assert shard.read_bytes() == whole


# ---- atomic writes -----------------------------------------------------------------------------------------


def test_a_failed_replacement_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")
    rename, calls = os.rename, []

    def fail_at_the_second(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr("gentron.atomic.os.rename", fail_at_the_second)
    with pytest.raises(OSError, match="no"), atomic_folder(tmp_path / "model") as folder:
        (folder / "new").write_text("new")
    assert files(tmp_path) == ["model/old"]


def test_a_file_in_the_place_of_a_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("kept")
    with pytest.raises(OSError, match="not a folder"), atomic_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model").read_text() == "kept" and files(tmp_path) == ["model"]


def test_errors_name_the_file_that_was_wanted(tmp_path: Path) -> None:
    with disk_of(10), pytest.raises(OSError) as caught, atomic_file(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x" * 11)
    assert caught.value.filename == str(tmp_path / "a") and files(tmp_path) == []
