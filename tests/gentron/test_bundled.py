"""Parts that bundled models share, and how a checkpoint becomes a bundled model."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gentron import bundled
from gentron.bundled import BUNDLED_MODELS, bundled_part, folder_hash, shared_folder
from gentron.checkpoint import read_config, resolve_part
from gentron.errors import UserError
from gentron.pipeline import GenTronPipeline
from gentron.train.bundle import app

PARTS = ("autoencoder", "clip", "t5")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that stands for the package's."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(bundled, "weights_folder", lambda: folder)
    return folder


def bundle(checkpoint: Path, model: str, weights: Path, *options: str) -> Result:
    return CliRunner().invoke(app, [str(checkpoint), model, "--weights", str(weights), *options])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bundled_model_draws_what_its_checkpoint_draws(tiny_checkpoint: Path, weights: Path) -> None:
    result = bundle(tiny_checkpoint, "mini", weights)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (weights / "mini").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert files_of(weights / "shared" / "clip") == files_of(tiny_checkpoint / "clip")
    config = read_config(weights / "mini")
    assert config.text.clip == f"shared:clip@{folder_hash(tiny_checkpoint / 'clip')}"
    assert resolve_part(weights / "mini", config.autoencoder) == weights / "shared" / "autoencoder"
    first, second = (
        GenTronPipeline.from_pretrained(folder)(["a red circle"], seeds=[1], num_inference_steps=2)
        for folder in (tiny_checkpoint, weights / "mini")
    )
    assert first == second


def test_models_share_their_parts_and_bundling_again_in_place_changes_nothing(
    tiny_checkpoint: Path, weights: Path
) -> None:
    assert bundle(tiny_checkpoint, "mini", weights).exit_code == 0
    assert bundle(tiny_checkpoint, "mini-t2v", weights).exit_code == 0
    (weights / "mini" / "README.md").write_text("how it was made")
    before = files_of(weights)
    assert bundle(weights / "mini", "mini", weights).exit_code == 0
    assert bundle(tiny_checkpoint, "mini", weights).exit_code == 0  # a README that stands there is kept
    assert files_of(weights) == before
    assert [str(bundled_part(part, model="mini-t2v")) for part in PARTS] == [
        str(weights / "shared" / part) for part in PARTS
    ]


def test_another_part_is_replaced_on_request_alone_and_the_models_left_behind_are_named(
    tiny_checkpoint: Path, weights: Path, tmp_path: Path
) -> None:
    assert bundle(tiny_checkpoint, "mini", weights).exit_code == 0
    other = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    (other / "clip" / "note.txt").write_text("another encoder")
    before = files_of(weights)
    result = bundle(other, "mini-t2v", weights)
    assert isinstance(result.exception, UserError) and "--replace-parts" in str(result.exception)
    assert files_of(weights) == before
    result = bundle(other, "mini-t2v", weights, "--replace-parts")
    assert result.exit_code == 0 and "mini was trained with another clip: bundle it anew" in result.output
    assert bundled_part("clip", model="mini-t2v") == weights / "shared" / "clip"
    with pytest.raises(UserError, match="trained with another 'clip' .* hash must be [0-9a-f]{16}, got"):
        bundled_part("clip", model="mini")
    with pytest.raises(UserError, match="trained with another 'clip'"):
        GenTronPipeline.from_pretrained(weights / "mini")


@pytest.mark.parametrize("change", ["content", "name", "absent"])
def test_the_hash_is_checked_at_load(tiny_checkpoint: Path, weights: Path, change: str) -> None:
    bundle(tiny_checkpoint, "mini", weights)
    folder = weights / "shared" / "autoencoder"
    if change == "absent":
        shutil.rmtree(folder)
    elif change == "name":
        (folder / "config.json").rename(folder / "config2.json")
    else:
        (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    message = "has no shared part" if change == "absent" else "another 'autoencoder'"
    with pytest.raises(UserError, match=message):
        GenTronPipeline.from_pretrained(weights / "mini")


@pytest.mark.parametrize(
    "name", ["shared:clip", "shared:clip@12", "shared:../clip@0123456789abcdef", "shared:@", "shared:a@b@c"]
)
def test_a_reference_that_is_none_says_its_form(name: str) -> None:
    with pytest.raises(UserError, match="must be named shared:<name>@<16 hex digits>"):
        shared_folder(name)


def test_unknown_bundled_models_and_folders_are_refused(tiny_checkpoint: Path, weights: Path) -> None:
    for arguments in ((tiny_checkpoint, "xl2"), (weights, "mini")):
        assert isinstance(bundle(*arguments, weights).exception, UserError)
    assert list(weights.iterdir()) == []


def test_the_hash_is_that_of_sha256sum(tiny_checkpoint: Path) -> None:
    command = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(
        command, shell=True, cwd=tiny_checkpoint / "clip", capture_output=True, text=True, check=True
    ).stdout
    assert printed[:16] == folder_hash(tiny_checkpoint / "clip")


def test_every_bundled_model_has_its_parts() -> None:
    for model in BUNDLED_MODELS:
        if bundled.bundled(model).is_dir():
            assert all((bundled_part(part, model=model) / "config.json").is_file() for part in PARTS)


def test_a_damaged_bundled_model_is_one_line(weights: Path) -> None:
    with pytest.raises(UserError, match="is damaged"):
        bundled_part("clip")
    (weights / "mini").mkdir()
    for text in ("{", "[]", json.dumps({"text": {}}), json.dumps({"text": {"clip": None}})):
        (weights / "mini" / "config.json").write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            bundled_part("clip")
    (weights / "mini" / "config.json").write_text(json.dumps({"text": {"clip": "clip"}}))
    with pytest.raises(UserError, match="lacks its folder 'clip'"):
        bundled_part("clip")
