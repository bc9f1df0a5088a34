from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gentron import checkpoint
from gentron.atomic import atomic_file, atomic_folder
from gentron.checkpoint import (
    CheckpointConfig,
    find_checkpoint,
    load_model,
    load_t2i,
    read_config,
    resolve_part,
    save_checkpoint,
)
from gentron.config import from_dict, to_dict
from gentron.errors import UserError
from gentron.model import TemporalConfig
from gentron.presets import xl_2
from tests.tiny import TINY_MODEL, make_model


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit_config(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def no_leftovers(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_config_survives_the_round_trip(tiny_checkpoint: Path) -> None:
    config = read_config(tiny_checkpoint)
    assert config.model == TINY_MODEL
    assert from_dict(CheckpointConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert set(json.loads((tiny_checkpoint / "config.json").read_text())) == {
        "format_version", "model", "diffusion", "autoencoder", "text", "sampling", "training",
    }  # fmt: skip


def test_weights_survive_the_round_trip(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config, model = read_config(tiny_checkpoint), make_model()
    save_checkpoint(tmp_path / "full", config, model.state_dict())
    loaded = load_model(tmp_path / "full", config.model, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_weights_stored_in_fp16_load_in_the_wanted_dtype(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = read_config(tiny_checkpoint)
    save_checkpoint(tmp_path / "half", config, make_model().state_dict(), dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = load_model(tmp_path / "half", config.model, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_saving_replaces_a_folder_whole(copy: Path) -> None:
    config = read_config(copy)
    save_checkpoint(copy, config, make_model().state_dict(), parts={"clip": copy / "clip"})
    names = ["README.md", "clip", "config.json", "model.safetensors"]
    assert sorted(path.name for path in copy.iterdir()) == names
    assert no_leftovers(copy.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "format_version must be one of 1, 2, got 3"),
        ({"surprise": 1}, "unknown field surprise"),
        ({"text": {"clip": None, "t5": "t5", "clip_max_length": 16, "t5_max_length": 16}}, "text.clip"),
        ({"sampling": {"image_size": "big"}}, "sampling"),
    ],
)
def test_a_wrong_config_names_file_and_field(copy: Path, change: dict[str, Any], message: str) -> None:
    edit_config(copy, change)
    with pytest.raises(UserError, match=message) as caught:
        read_config(copy)
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_or_with_a_broken_config(copy: Path) -> None:
    (copy / "config.json").write_text('{"format_version": 1,')
    with pytest.raises(UserError, match="damaged"):
        read_config(copy)
    (copy / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="damaged"):
        read_config(copy)
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match="no GenTron checkpoint"):
        read_config(copy)


@pytest.mark.parametrize("keep", [0, 4, 2000, -1])
def test_truncated_weights_are_one_line(copy: Path, keep: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UserError, match="is damaged") as caught:
        load_model(copy, TINY_MODEL, dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_name_the_tensor(copy: Path) -> None:
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"extra": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match="unknown tensor extra"):
        load_model(copy, TINY_MODEL, dtype=torch.float32)
    save_file({name: t for name, t in tensors.items() if name != "patch_embed.bias"}, weights)
    with pytest.raises(UserError, match="lacks tensor patch_embed.bias"):
        load_model(copy, TINY_MODEL, dtype=torch.float32)
    with pytest.raises(UserError, match=r"must be \(.*\), got \("):
        save_file(tensors, weights)
        load_model(copy, replace(TINY_MODEL, mlp_ratio=2.0), dtype=torch.float32)
    weights.unlink()
    with pytest.raises(UserError, match="lacks model.safetensors"):
        load_model(copy, TINY_MODEL, dtype=torch.float32)


def test_parts_are_folders_inside_or_hub_ids(tiny_checkpoint: Path) -> None:
    assert resolve_part(tiny_checkpoint, "clip") == tiny_checkpoint / "clip"
    assert resolve_part(tiny_checkpoint, "google/flan-t5-xxl") == "google/flan-t5-xxl"
    for name in ("vae", "../elsewhere", "/etc", "./clip"):
        with pytest.raises(UserError, match="lacks its folder"):
            resolve_part(tiny_checkpoint, name)


def test_models_are_found_by_name_and_folder(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENTRON_MODELS", str(tmp_path))
    assert find_checkpoint(str(tiny_checkpoint)) == tiny_checkpoint
    assert find_checkpoint("mini", checkpoint=tiny_checkpoint) == tiny_checkpoint
    with pytest.raises(UserError, match="unknown model 'nope'; known: mini"):
        find_checkpoint("nope")
    with pytest.raises(UserError, match="no weights for 'xl2'.*--checkpoint.*--random-weights"):
        find_checkpoint("xl2")
    (tmp_path / "xl2").mkdir()
    config = replace(read_config(tiny_checkpoint), model=xl_2())
    (tmp_path / "xl2" / "config.json").write_text(json.dumps(to_dict(config)))
    assert find_checkpoint("xl2") == tmp_path / "xl2"
    with pytest.raises(UserError, match="is not 'g2': hidden_size must be 1664, got 1152; .* the folder"):
        find_checkpoint("g2", checkpoint=tmp_path / "xl2")
    with pytest.raises(UserError, match="is not 'xl2-t2v': temporal must be TemporalConfig.*, got None"):
        find_checkpoint("xl2-t2v", checkpoint=tmp_path / "xl2")
    with pytest.raises(UserError, match="is not 'mini-t2v': it holds an image model"):
        find_checkpoint("mini-t2v", checkpoint=tiny_checkpoint)


# ---- atomic writes -----------------------------------------------------------------------------------------


def fail(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"), atomic_file(path) as temporary:
        temporary.write_text("half")
        fail()
    assert path.read_text() == "old" and no_leftovers(tmp_path)


def test_a_failed_rename_or_flush_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"), atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("new")
    with pytest.raises(OSError, match="No space"), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "part").write_text("new")
    assert list(tmp_path.iterdir()) == []


def test_a_device_or_folder_is_never_replaced(tmp_path: Path) -> None:
    for path in (Path("/dev/null"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"), atomic_file(path):
            raise AssertionError("must not get here")


def test_a_full_disk_leaves_the_old_checkpoint(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    config = read_config(copy)
    for target in ("save_file", "shutil.copytree"):
        with monkeypatch.context() as patch:
            patch.setattr(f"{checkpoint.__name__}.{target}", fail)
            with pytest.raises(OSError, match="No space"):
                save_checkpoint(copy, config, make_model().state_dict(), parts={"clip": copy / "clip"})
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
        assert no_leftovers(copy.parent)


# Formats


def as_version_1(folder: Path) -> dict[str, Any]:
    """config.json of the folder as version 1 wrote it."""
    data = json.loads((folder / "config.json").read_text()) | {"format_version": 1}
    for name in ("num_frames", "fps", "motion_guidance_scale"):
        del data["sampling"][name]
    del data["model"]["temporal"]
    return data


def test_a_checkpoint_of_version_1_reads_as_the_same_image_model(copy: Path) -> None:
    today = read_config(copy)
    data = as_version_1(copy)
    (copy / "config.json").write_text(json.dumps(data))
    assert read_config(copy) == today and today.model.temporal is None


@pytest.mark.parametrize("version", [0, None, "1", 1.5, True, 99])
def test_an_unknown_version_is_an_error(copy: Path, version: Any) -> None:
    (copy / "config.json").write_text(json.dumps(as_version_1(copy) | {"format_version": version}))
    with pytest.raises(UserError, match="format_version must be one of 1, 2"):
        read_config(copy)


def test_a_name_that_version_1_did_not_have_is_unknown_in_it(copy: Path) -> None:
    data = as_version_1(copy)
    (copy / "config.json").write_text(json.dumps(data | {"model": data["model"] | {"temporal": None}}))
    with pytest.raises(UserError, match=r"unknown field model.temporal in format_version 1"):
        read_config(copy)
    (copy / "config.json").write_text(json.dumps(data | {"model": 3}))
    with pytest.raises(UserError, match="model must be a mapping"):
        read_config(copy)


def test_load_t2i_starts_a_video_model_from_its_image_form_alone(tiny_checkpoint: Path) -> None:
    config = replace(TINY_MODEL, temporal=TemporalConfig(num_frames=8, fps=4.0))
    model = load_t2i(tiny_checkpoint, config)
    expected = load_model(tiny_checkpoint, TINY_MODEL, dtype=torch.float32)
    assert all(torch.equal(model.get_parameter(name), p) for name, p in expected.named_parameters())
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(UserError, match="holds another model than the image form"):
        load_t2i(tiny_checkpoint, replace(config, depth=3))
