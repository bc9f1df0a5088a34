"""A checkpoint survives the way into one file and back to the last byte, and says where it comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from gentron.bundled import bundled_mini
from gentron.checkpoint import CONFIG_FILE, WEIGHTS_FILE, read_config
from gentron.cli import app
from gentron.dit import LICENCE_NOTE
from gentron.errors import UserError
from gentron.export import pack, read_header, unpack
from gentron.model_card import CARD_FILE, last_validation, model_card, provenance
from gentron.pipeline import GenTronPipeline
from tests.bad_input import disk_of, refused


def gentron(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def exported(*arguments: object) -> None:
    result = gentron("export", *arguments)
    assert result.exit_code == 0, result.output


# ---- one file and back -------------------------------------------------------------------------------------


def test_one_file_and_back_are_the_same_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    file, back, again = tmp_path / "tiny.safetensors", tmp_path / "back", tmp_path / "again.safetensors"
    exported(tiny_checkpoint, "--to", file)
    exported(file, "--to", back)
    exported(back, "--to", again)
    assert contents(back) == contents(tiny_checkpoint)
    assert file.read_bytes() == again.read_bytes()


def test_any_reader_of_safetensors_gets_the_weights_and_the_config(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.safetensors"
    exported(tiny_checkpoint, "--to", file)
    tensors = load_file(file)
    for name, tensor in load_file(tiny_checkpoint / WEIGHTS_FILE).items():
        assert torch.equal(tensors.pop(name), tensor)
    assert tensors and all(name.startswith("file:") and t.dtype == torch.uint8 for name, t in tensors.items())
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["config"] == (tiny_checkpoint / CONFIG_FILE).read_text("utf-8")


def test_a_bundled_model_takes_its_shared_parts_along(tmp_path: Path) -> None:
    file, folder, back = tmp_path / "mini.safetensors", tmp_path / "folder", tmp_path / "back"
    exported("mini", "--to", folder)
    exported("mini", "--to", file)
    exported(file, "--to", back)
    assert contents(back) == contents(folder)
    assert {"autoencoder", "clip", "t5"} <= {path.name for path in folder.iterdir()}
    assert (folder / CARD_FILE).read_text("utf-8") == (bundled_mini() / CARD_FILE).read_text("utf-8")
    assert read_config(folder).text.clip == "clip"
    pictures = [
        GenTronPipeline.from_pretrained(place)(["a red circle"], seeds=[3], num_inference_steps=2)[0].image
        for place in (bundled_mini(), back)
    ]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_weights_of_another_writer_stay_as_they_are(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Other order, padding and metadata of the header; torch would write these tensors otherwise."""
    folder = tmp_path / "odd"
    shutil.copytree(tiny_checkpoint, folder)
    weights = folder / WEIGHTS_FILE
    header = read_header(weights)
    data = weights.read_bytes()[header.data_start :]
    odd = {"__metadata__": {"format": "pt"}, **dict(sorted(header.entries.items(), reverse=True))}
    text = json.dumps(odd, indent=1).encode() + b"   "
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data)
    unpack(pack(folder, tmp_path / "odd.safetensors"), tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)


# ---- bad input ---------------------------------------------------------------------------------------------


def test_bad_targets_and_sources_are_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "tiny.safetensors", tmp_path / "other"
    exported(tiny_checkpoint, "--to", file)
    other.mkdir()
    (other / "thesis.tex").write_text("kept")
    (tmp_path / "text.safetensors").write_text("not tensors")
    refused(gentron("export", "nothing", "--to", tmp_path / "x"), "unknown model 'nothing'")
    refused(gentron("export", "g2", "--to", tmp_path / "x"), "no weights for 'g2'")
    refused(gentron("export", tiny_checkpoint, "--to", other), "other files in it")
    refused(gentron("export", tiny_checkpoint, "--to", tiny_checkpoint), "the checkpoint itself")
    refused(gentron("export", tiny_checkpoint, "--to", tiny_checkpoint / "a.safetensors"), "inside")
    refused(gentron("export", file, "--to", tmp_path / "b.safetensors"), "a single file already")
    refused(gentron("export", file, "--to", "/dev/null/x"), "Not a directory")
    refused(gentron("export", tmp_path / "text.safetensors", "--to", tmp_path / "x"), "no safetensors file")
    weights = tmp_path / "weights.safetensors"
    shutil.copyfile(tiny_checkpoint / WEIGHTS_FILE, weights)
    refused(gentron("export", weights, "--to", tmp_path / "x"), "no GenTron checkpoint")
    file.write_bytes(file.read_bytes()[:-1])
    refused(gentron("export", file, "--to", tmp_path / "x"), "cut short")
    with disk_of(1000):
        refused(gentron("export", tiny_checkpoint, "--to", tmp_path / "full.safetensors"), "File too large")
    assert (other / "thesis.tex").read_text() == "kept"
    assert not (tmp_path / "x").exists() and not (tmp_path / "full.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "model.safetensors", "", "a\\..\\b"]
)
def test_a_file_cannot_leave_its_folder(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    file = pack(tiny_checkpoint, tmp_path / "tiny.safetensors")
    header = read_header(file)
    data = file.read_bytes()[header.data_start :]
    entries = dict(header.entries)
    entries[f"file:{name}"] = entries.pop("file:config.json")
    text = json.dumps({"__metadata__": header.metadata, **entries}).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(UserError, match="it holds a file named"):
        unpack(file, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.safetensors"]


# ---- the model card ----------------------------------------------------------------------------------------


def test_every_checkpoint_has_a_card(tiny_checkpoint: Path) -> None:
    card = (tiny_checkpoint / CARD_FILE).read_text("utf-8")
    assert card == model_card(read_config(tiny_checkpoint))
    for part in ("library_name: gentron", "| made_by | tests/tiny.py |", "dpmpp_2m, 4 steps", "Apache-2.0"):
        assert part in card


def test_the_licence_of_dit_is_handed_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = read_config(tiny_checkpoint)
    first = provenance("dit:/somewhere/DiT-XL-2-256x256.pt")
    assert first["initial_weights"] == "DiT-XL-2-256x256.pt"
    second = tmp_path / "stage1"
    shutil.copytree(tiny_checkpoint, second)
    data = json.loads((second / CONFIG_FILE).read_text())
    (second / CONFIG_FILE).write_text(json.dumps(data | {"training": first}))
    assert provenance(second) == {"initial_weights": "stage1", "licences": first["licences"]}
    for told in (first, provenance(second)):
        config.training.clear()
        config.training.update(told)
        card = model_card(config)
        assert "license: cc-by-nc-4.0" in card and f"- CC-BY-NC-4.0: {LICENCE_NOTE}" in card
    assert provenance(tiny_checkpoint) == {"initial_weights": tiny_checkpoint.name}
    assert provenance(None) == {}


def test_a_card_shows_recipe_steps_and_metrics(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [
        {"kind": "validation", "images_seen": 64, "loss": 0.5},
        {"kind": "validation", "images_seen": 100, "loss": 0.25},
        {"kind": "train", "images_seen": 110, "loss": 9.0},
    ]
    lines = [json.dumps(row) for row in rows] + ['{"kind": "valid']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    config = read_config(tiny_checkpoint)
    config.training.clear()
    config.training.update({"images_seen": 100, "recipe": {"global_batch_size": 32, "learning_rate": 1e-4}})
    config.training.update(last_validation(tmp_path))
    card = model_card(config)
    assert "| steps | 4 |" in card and "| recipe.learning_rate | 0.0001 |" in card
    assert "| loss | 0.25 |" in card and "9" not in card.split("## Metrics")[1].split("##")[0]
    assert last_validation(tmp_path / "nowhere") == {}


def test_training_data_of_any_name_stay_in_their_cell(tiny_checkpoint: Path) -> None:
    config = read_config(tiny_checkpoint)
    config.training.update({"data": "a | b\n# Title", "licences": "none", "metrics": 3, "recipe": []})
    assert "| data | a \\| b # Title |" in model_card(config)


def test_a_card_by_hand_is_kept(tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    (source / CARD_FILE).write_text("# Mine\n")
    exported(source, "--to", tmp_path / "out")
    assert (tmp_path / "out" / CARD_FILE).read_text() == "# Mine\n"


def test_training_starts_from_a_dit_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What `train t2i --initial dit:FILE` builds its model with."""
    from gentron.train import t2i
    from tests.gentron.test_dit import CONFIG, dit_weights

    file = tmp_path / "dit.pt"
    torch.save(dit_weights(), file)
    model = t2i.starting_from(Path(f"dit:{file}"))(CONFIG)
    assert model.config == CONFIG
    assert LICENCE_NOTE in caplog.text
    with pytest.raises(UserError, match="there is no file"):
        t2i.starting_from(Path("dit:/nowhere/dit.pt"))


# ---- a hub -------------------------------------------------------------------------------------------------


class Hub:
    """What is used of huggingface_hub.HfApi."""

    calls: list[tuple[str, Any]] = []

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
        if repo.startswith("closed/"):
            raise OSError("401 Client Error: you are not allowed\nsecond line")
        self.calls.append(("create", (repo, private, exist_ok)))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        self.calls.append(("upload", (repo_id, contents(folder_path))))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def test_push_uploads_the_whole_checkpoint(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "calls", [])
    result = gentron("push", tiny_checkpoint, "--repo", "me/tiny")
    assert result.exit_code == 0 and result.stdout == "https://hub/me/tiny/commit/1\n", result.output
    (_, created), (_, (repo, files)) = Hub.calls
    assert created == ("me/tiny", True, True) and repo == "me/tiny"
    assert files == contents(tiny_checkpoint)
    assert gentron("push", tiny_checkpoint, "--repo", "me/tiny", "--public").exit_code == 0
    assert Hub.calls[2][1][1] is False
    refused(gentron("push", tiny_checkpoint, "--repo", "closed/tiny"), "401 Client Error", "hf auth login")
    refused(gentron("push", tiny_checkpoint, "--repo", "tiny"), "--repo must be OWNER/NAME, got 'tiny'")
    refused(gentron("push", "nothing", "--repo", "me/tiny"), "unknown model")
