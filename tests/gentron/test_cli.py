from __future__ import annotations

import errno
import json
import logging
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from gentron.cli import app
from gentron.console import make_app, one_line
from gentron.media import Sample
from gentron.sample_output import make_grid

PROMPT = "a red circle and a blue square"


def gentron(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, *expected: str) -> None:
    """One line on stderr that names what is wrong, exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for text in expected:
        assert text in result.stderr


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


# ---- sample ------------------------------------------------------------------------------------------------


def test_one_prompt_makes_one_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.png"
    result = gentron("sample", "--model", tiny_checkpoint, PROMPT, "--seed", 3, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 1 picture\n" and result.stderr == ""
    assert drawn(out).shape == (32, 32, 3)
    with Image.open(out) as image:
        assert image.info == {}
    assert [path.name for path in out.parent.iterdir()] == ["out.png"]


def test_several_prompts_make_a_folder_named_by_number(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a green star\n\n  ../../a blue square  \n")
    arguments = ("--prompt-file", tmp_path / "prompts.txt", "--num-images", 2, "--seed", 5)
    result = gentron("sample", PROMPT, "--model", tiny_checkpoint, *arguments, "--out", tmp_path / "set")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert names == [*(f"{k:06d}.png" for k in range(6)), "manifest.json"]
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["weights"] == "trained" and manifest["model"] == str(tiny_checkpoint)
    rows = [(row["file"], row["prompt"], row["seed"]) for row in manifest["images"]]
    assert rows[1] == ("000001.png", PROMPT, 6) and rows[4] == ("000004.png", "../../a blue square", 5)
    alone = gentron(
        "sample", "a green star", "--model", tiny_checkpoint, "--seed", 6, "--out", tmp_path / "a.png"
    )
    assert alone.exit_code == 0
    assert np.array_equal(drawn(tmp_path / "a.png"), drawn(tmp_path / "set" / "000003.png"))


def test_a_grid_is_one_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    prompts = ("a red circle", "a blue square")
    result = gentron(
        "sample", *prompts, "--model", tiny_checkpoint, "--num-images", 3, "--grid", "--out", out
    )
    assert result.exit_code == 0, result.output
    assert drawn(out).shape == (2 * 32 + 2, 3 * 32 + 2 * 2, 3)  # lines of 2 pixels between them


def test_metadata_is_written_on_demand(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    gentron("sample", PROMPT, "--model", tiny_checkpoint, "--metadata", "--seed", 4, "--out", out)
    with Image.open(out) as image:
        assert image.info == {"prompt": PROMPT, "seed": "4"}


def test_unknown_words_are_one_line(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gentron("sample", "a mauve zebra", "--model", tiny_checkpoint, "--out", tmp_path / "a.png")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == ["words this model's text encoder does not know: mauve, zebra"]


def test_untrained_is_said_everywhere(tmp_path: Path) -> None:
    arguments = ("--random-weights", "--num-images", 2, "--num-inference-steps", 1, "--out", tmp_path / "set")
    result = gentron("sample", "a fox", *arguments)
    assert result.exit_code == 0, result.output
    assert "2 pictures by an untrained model" in result.stdout
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["weights"] == "untrained"


def test_bad_input_is_one_line_and_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENTRON_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("\n  \n")
    binary.write_bytes(b"\xff\xfe\xfa")
    before = sorted(tmp_path.iterdir())
    tiny = ("--model", tiny_checkpoint)
    refused(gentron("sample", PROMPT, "--model", "nope"), "unknown model 'nope'; known: mini")
    refused(gentron("sample", PROMPT, "--model", "g2"), "no weights for 'g2'", "--random-weights")
    refused(gentron("sample", PROMPT, "--checkpoint", "none"), "no weights for 'mini' in 'none'")
    refused(gentron("sample", *tiny), "no prompt")
    refused(gentron("sample", *tiny, "--prompt-file", empty), "empty.txt' holds no prompt")
    refused(gentron("sample", *tiny, "--prompt-file", binary), "not UTF-8")
    refused(gentron("sample", *tiny, "--prompt-file", "none.txt"), "'none.txt': No such file")
    refused(gentron("sample", *tiny, "a", "x" * 10_000), "prompt 1 has 10000 characters", "1000")
    refused(gentron("sample", *tiny, PROMPT, "--num-inference-steps", -4), "got -4")
    refused(gentron("sample", *tiny, PROMPT, "--guidance-scale", "nan"), "guidance_scale", "got nan")
    refused(gentron("sample", *tiny, PROMPT, "--height", 33), "height must be a positive multiple of 8")
    refused(gentron("sample", *tiny, PROMPT, "--sampler", "euler"), "unknown sampler 'euler'")
    refused(gentron("sample", *tiny, PROMPT, "--seed", -1), "a seed must be")
    refused(gentron("sample", *tiny, PROMPT, "--batch-size", 0), "batch_size")
    refused(gentron("sample", *tiny, PROMPT, "--device", "abacus"), "cannot use the device 'abacus'")
    refused(gentron("sample", *tiny, "a", "b", "--out", "a.png"), "one file for 2 pictures")
    refused(gentron("sample", *tiny, PROMPT, "--out", "a.jpg"), "must be a .png file or a folder")
    refused(gentron("sample", *tiny, PROMPT, "--grid", "--out", "folder"), "a .png file for a grid")
    refused(gentron("sample", *tiny, "a", "b", "--out", tmp_path / "empty.txt"), "a .png file or a folder")
    assert sorted(tmp_path.iterdir()) == before


def test_a_corrupt_checkpoint_is_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    files = {
        "config.json": "config.json is damaged",
        "model.safetensors": "model.safetensors is damaged",
        "autoencoder/diffusion_pytorch_model.safetensors": "cannot load the autoencoder",
        "clip/model.safetensors": "cannot load the clip text encoder",
        "t5/tokenizer.json": "cannot load the t5 text encoder",
    }
    for index, (name, message) in enumerate(files.items()):
        copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / str(index)))
        (copy / name).write_bytes((copy / name).read_bytes()[:300])
        result = gentron("sample", PROMPT, "--model", copy, "--out", tmp_path / "out.png")
        refused(result, message)
    assert not (tmp_path / "out.png").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = Image.Image.save, []

    def save_until_full(image: Image.Image, path: Path, **options: object) -> None:
        save(image, path, **options)  # type: ignore[arg-type]
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(path.read_bytes()[:50])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save_until_full)
    arguments = ("--model", tiny_checkpoint, "--num-images", 5, "--out", tmp_path / "set")
    refused(gentron("sample", PROMPT, *arguments), "No space left on device")
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert names == ["000000.png", "000001.png"]
    assert [drawn(tmp_path / "set" / name).shape for name in names] == [(32, 32, 3)] * 2


def test_grids_fill_in_reading_order() -> None:
    pictures = [Image.new("RGB", (2, 1), (k, 0, 0)) for k in range(5)]
    grid = np.asarray(make_grid([Sample((picture,)) for picture in pictures]))
    line, width, height = 2, 2, 1
    assert grid.shape == (2 * height + line, 3 * width + 2 * line, 3)
    assert grid[:: height + line, :: width + line, 0].tolist() == [[0, 1, 2], [3, 4, 128]]
    assert (grid[1:3] == 128).all()
    clips = [Sample(tuple(pictures[k : k + 2]), 4.0) for k in (0, 2)]
    grid = np.asarray(make_grid(clips, columns=1))  # a row a clip, whatever is asked
    assert grid[:: height + line, :: width + line, 0].tolist() == [[0, 1], [2, 3]]


# ---- models, data, help ------------------------------------------------------------------------------------


def test_models_prints_the_papers_counts() -> None:
    result = gentron("models")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    rows = {line[0]: line for line in lines if line[0] != "total"}
    assert rows["xl2"][1:] == "28 1152 4608 16 927.7M 28/1152/4608 930.0M -0.24 %".split()
    assert rows["g2"][1:] == "48 1664 6656 16 3081.5M 48/1664/6656 3083.8M -0.07 %".split()
    assert rows["xl2-clip-adaln"][5:] == ["675.9M", "28/1152/4608"]
    assert rows["xl2-t2v"][5] == "1076.5M" and rows["g2-t2v"][5] == "3613.5M"
    assert rows["temporal"][-2:] == ["148.8M", "531.9M"]
    assert rows["DiT-XL/2"][5:] == "675.1M 675.0M +0.02 %".split()
    assert "927.7M" in " ".join(word for line in lines if line[0] == "total" for word in line)
    assert "cross-attention" in rows and "adaLN" in rows


def test_shapes_as_a_folder_grow_and_keep_their_seed(tmp_path: Path) -> None:
    for count in (3, 5):
        result = gentron("data", "shapes", "--count", count, "--out", tmp_path / "data")
        assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "data" / "captions.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"images/000/{k:06d}.png" for k in range(5)]
    assert all(row["caption"] and row["scene"]["objects"] for row in rows)
    assert drawn(tmp_path / "data" / rows[4]["file"]).shape == (64, 64, 3)
    again = gentron("data", "shapes", "--count", 5, "--seed", 1, "--out", tmp_path / "data")
    refused(again, "holds other data", "choose another folder")


def test_shapes_as_webdataset_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        result = gentron("data", "shapes", "--count", 4, "--format", "webdataset", "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    shards = [tmp_path / name / "shapes-000000.tar" for name in ("a", "b")]
    assert shards[0].read_bytes() == shards[1].read_bytes()
    with tarfile.open(shards[0]) as shard:
        assert shard.getnames()[:3] == ["000000.png", "000000.txt", "000000.json"]
        assert len(shard.getnames()) == 12


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from gentron.cli import app;"
        "commands = [[], ['sample'], ['train', 't2i'], ['data', 'shapes']];"
        "results = [CliRunner().invoke(app, [*words, '--help']) for words in commands];"
        "assert [r.exit_code for r in results] == [0] * 4, results;"
        "print([name for name in ('torch', 'transformers', 'diffusers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_train_is_mounted() -> None:
    result = gentron("train", "--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("t2i", "autoencoder", "text"))


# ---- errors ------------------------------------------------------------------------------------------------


def test_errors_of_mounted_groups_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = make_app("parent"), typer.Typer()
    parent.add_typer(child, name="child")

    @child.command()
    def command(fail: bool = False) -> None:
        raise ValueError("first line\nsecond line")

    @child.command()
    def other() -> None: ...

    result = CliRunner().invoke(parent, ["child", "command"])
    assert (result.exit_code, result.stderr) == (2, "error: first line second line\n")
    monkeypatch.setenv("GENTRON_DEBUG", "1")
    assert isinstance(CliRunner().invoke(parent, ["child", "command"]).exception, ValueError)


def test_system_errors_name_the_file() -> None:
    assert one_line(OSError(errno.ENOSPC, "No space left on device", "/a")) == "No space left on device: /a"
    assert one_line(ValueError()) == "ValueError"
