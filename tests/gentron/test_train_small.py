"""The small loops behind `gentron train autoencoder` and `gentron train text`, a few steps long."""

# B batch, C latent channels, H W picture size, L prompt tokens, E text width

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from gentron.autoencoder import Autoencoder
from gentron.cli import app
from gentron.errors import UserError
from gentron.shapes.vocabulary import words
from gentron.text import TextEncoders
from gentron.train import autoencoder as autoencoder_training
from gentron.train import steps
from gentron.train import text as text_training
from gentron.train.autoencoder import AutoencoderRecipe, CropSchedule, DecoderRecipe
from gentron.train.text import TextRecipe

AUTOENCODER = AutoencoderRecipe(
    block_out_channels=(8, 8, 16),
    schedule=CropSchedule(crop_steps=2, crop_batch_size=2, picture_steps=2, picture_batch_size=2),
    warmup_steps=1,
    statistics_pictures=50,
)
DECODER = DecoderRecipe(
    schedule=CropSchedule(crop_steps=2, crop_batch_size=2, picture_steps=1, picture_batch_size=2),
    warmup_steps=1,
)
TEXT = TextRecipe(
    width=32,
    num_layers=1,
    num_heads=2,
    mlp_width=32,
    t5_steps=4,
    t5_batch_size=4,
    clip_steps=3,
    clip_batch_size=4,
    warmup_steps=1,
)
PROMPTS = ["", "a red circle", "a large blue square to the left of a striped green star"]


class Killed(Exception):
    """Stands for a kill between two steps."""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LOG_EVERY", 1)
    monkeypatch.setattr(steps, "CHECKPOINT_EVERY", 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs "autoencoder" and "text"."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "CHECKPOINT_EVERY", 2)
        autoencoder_training.train(
            out / "autoencoder", recipe=AUTOENCODER, decoder_recipe=DECODER, resume=False
        )
        text_training.train(out / "text", recipe=TEXT, resume=False)
    return out


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The next run ends before its update number `step`."""
    update = steps.StepState.update

    def dying(state: steps.StepState, values: dict[str, Tensor], *, batch_size: int) -> None:
        if state.step == step:
            monkeypatch.setattr(steps.StepState, "update", update)
            raise Killed
        update(state, values, batch_size=batch_size)

    monkeypatch.setattr(steps.StepState, "update", dying)


def same_tensors(a: Any, b: Any) -> bool:
    """Equal bit for bit, through dicts and lists."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tensors(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_tensors, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def same_state(a: Path, b: Path) -> bool:
    return same_tensors(*(torch.load(folder / "state.pt", weights_only=True) for folder in (a, b)))


def same_files(a: Path, b: Path) -> bool:
    names = sorted(path.name for path in a.iterdir())
    return names == sorted(path.name for path in b.iterdir()) and all(
        (a / name).read_bytes() == (b / name).read_bytes() for name in names
    )


def logged(folder: Path) -> list[int]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "note" not in row]


# ---- resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3])
def test_an_autoencoder_run_goes_on_bit_for_bit(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def train() -> Path:
        return autoencoder_training.train(tmp_path / "run", recipe=AUTOENCODER, decoder_recipe=DECODER)

    killed_at(monkeypatch, step)
    with pytest.raises(Killed):
        train()
    killed_at(monkeypatch, 2 if step == 3 else -1)  # the first run did 3 of 4 steps; now also in stage 2
    if step == 3:
        with pytest.raises(Killed):
            train()
    train()
    whole = trained / "autoencoder"
    assert same_state(tmp_path / "run", whole)
    assert same_state(tmp_path / "run" / "decoder_run", whole / "decoder_run")
    assert same_files(tmp_path / "run" / "autoencoder", whole / "autoencoder")
    assert logged(tmp_path / "run") == [1, 2, 3, 4]


def test_a_text_run_goes_on_bit_for_bit(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(monkeypatch, 3)  # of the T5; the CLIP has 3 steps, 0 to 2
    with pytest.raises(Killed):
        text_training.train(tmp_path / "run", recipe=TEXT)
    killed_at(monkeypatch, 1)
    with pytest.raises(Killed):
        text_training.train(tmp_path / "run", recipe=TEXT)
    text_training.train(tmp_path / "run", recipe=TEXT)
    for name in ("t5_run", "clip_run"):
        assert same_state(tmp_path / "run" / name, trained / "text" / name)
    for name in ("t5", "clip"):
        assert same_files(tmp_path / "run" / name, trained / "text" / name)


def test_a_finished_run_is_exported_again_unchanged(trained: Path) -> None:
    before = (trained / "text" / "t5" / "model.safetensors").read_bytes()
    text_training.train(trained / "text", recipe=TEXT, resume=True)
    assert (trained / "text" / "t5" / "model.safetensors").read_bytes() == before


# ---- refused -----------------------------------------------------------------------------------------------


def run_autoencoder(out: Path, **options: Any) -> None:
    autoencoder_training.train(
        out, **{"recipe": AUTOENCODER, "decoder_recipe": DECODER, "resume": True} | options
    )


def run_text(out: Path, **options: Any) -> None:
    text_training.train(out, **{"recipe": TEXT, "resume": True} | options)


def one_line(call: Callable[[], None], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_other_settings_are_refused(trained: Path) -> None:
    one_line(
        lambda: run_autoencoder(trained / "autoencoder", recipe=replace(AUTOENCODER, seed=7)),
        "another configuration .seed: 0 there, 7 now.: choose another --out",
    )
    one_line(
        lambda: run_autoencoder(trained / "autoencoder", decoder_recipe=replace(DECODER, seed=7)),
        "seed: 1 there, 7 now",
    )
    one_line(lambda: run_text(trained / "text", recipe=replace(TEXT, t5_steps=9)), "t5_steps: 4 there, 9 now")


@pytest.mark.parametrize("command", ["autoencoder", "text"])
def test_a_run_or_other_files_are_not_overwritten(trained: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out, options, expected in (
        (trained / command, [], "holds a run already: add --resume auto, or choose another --out"),
        (tmp_path, [], "is not a run: choose another --out"),
        (tmp_path, ["--resume", "auto"], "is not a run: choose another --out"),
        (tmp_path / "notes.txt", [], "is not a run: choose another --out"),
    ):
        result = CliRunner().invoke(app, ["train", command, "--out", str(out), *options])
        assert result.exit_code == 2 and expected in result.stderr, result.output
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_state_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    killed_at(monkeypatch, 3)
    with pytest.raises(Killed):
        run_autoencoder(tmp_path / "run")
    path = tmp_path / "run" / "state.pt"
    path.write_bytes(path.read_bytes()[:-2000] if damage is None else damage)
    one_line(lambda: run_autoencoder(tmp_path / "run"), "state.pt is damaged: .*delete it to begin anew")
    path.write_bytes(path.read_bytes()[:100])
    path.unlink()
    run_autoencoder(tmp_path / "run")
    assert logged(tmp_path / "run") == [1, 2, 3, 4]


def test_a_full_disk_keeps_the_last_state(tmp_path: Path) -> None:
    module = nn.Linear(100, 100)
    optimizer = torch.optim.AdamW(module.parameters())
    state = steps.StepState(tmp_path / "run", module, optimizer, config={"a": (1, 2)}, resume=False)
    state.save()
    before = state.path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))  # no file grows beyond that
    try:
        with pytest.raises(OSError) as caught:
            state.save()
        assert caught.value.filename == str(state.path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert state.path.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "state.pt"]


def test_a_gradient_that_is_not_finite_is_no_step(tmp_path: Path) -> None:
    module = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(module.parameters())
    state = steps.StepState(tmp_path / "run", module, optimizer, config={}, resume=False)
    before = module.weight.detach().clone()
    state.update({"loss": module(torch.tensor([[float("inf")]])).sum()}, batch_size=1)
    assert torch.equal(module.weight, before) and state.step == 1


# ---- what comes out ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders(trained: Path) -> Iterator[TextEncoders]:
    text = trained / "text"
    yield TextEncoders.from_pretrained(text / "clip", text / "t5", clip_max_length=24, t5_max_length=24)


def test_the_text_encoders_load_with_transformers(trained: Path) -> None:
    from transformers import CLIPTextModel, T5EncoderModel

    for name, model_class, run in (("clip", CLIPTextModel, "clip_run"), ("t5", T5EncoderModel, "t5_run")):
        loaded: Any = model_class.from_pretrained(trained / "text" / name, output_loading_info=True)
        model, report = loaded
        assert not any(report.values()), report
        saved = torch.load(trained / "text" / run / "state.pt", weights_only=True)["module"]
        stored = model.state_dict()
        prefix = "text_model." if name == "clip" else ""
        matched = [key for key in stored if prefix + key.removeprefix(prefix) in saved]
        assert len(matched) == len(stored)
        assert all(torch.equal(stored[key], saved[prefix + key.removeprefix(prefix)]) for key in matched)


def test_the_special_tokens_are_those_of_the_vocabulary(trained: Path, encoders: TextEncoders) -> None:
    ids = {name: words().index(word) for name, word in (("pad", "<pad>"), ("eos", "</s>"), ("bos", "<s>"))}
    assert ids["eos"] != 2  # transformers takes an eos id of 2 for CLIP's legacy configuration
    for name in ("clip", "t5"):
        config = json.loads((trained / "text" / name / "config.json").read_text())
        assert (config["eos_token_id"], config["pad_token_id"]) == (ids["eos"], ids["pad"])
    assert encoders.t5 is not None and encoders.clip is not None
    for tower, begin in ((encoders.t5, []), (encoders.clip, [ids["bos"]])):
        tokens, mask = tower.tokenize(["", "a red circle"])
        assert tokens[0, : len(begin) + 1].tolist() == [*begin, ids["eos"]]
        assert mask.sum(dim=1).tolist() == [len(begin) + 1, len(begin) + 4]
        assert tokens[1, len(begin) + 3] == ids["eos"]
        assert (tokens[~mask] == ids["pad"]).all()


def test_clips_pooled_vector_is_taken_at_the_end_token(encoders: TextEncoders) -> None:
    embeds = encoders.encode(PROMPTS)
    assert embeds.clip_prompt_embeds is not None and embeds.clip_prompt_mask is not None
    assert embeds.pooled_prompt_embeds is not None
    end = embeds.clip_prompt_mask.sum(dim=1) - 1
    at_end = embeds.clip_prompt_embeds[torch.arange(len(PROMPTS)), end]
    assert torch.equal(embeds.pooled_prompt_embeds, at_end)
    assert not torch.equal(embeds.pooled_prompt_embeds, embeds.clip_prompt_embeds[:, 0])


def test_the_autoencoder_loads_with_its_scale(trained: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = trained / "autoencoder" / "autoencoder"
    vae: Any = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False)
    statistics = json.loads((trained / "autoencoder" / "statistics.json").read_text())
    assert list(vae.config.latents_mean) == statistics["latents_mean"]
    loaded = Autoencoder.from_pretrained(folder)
    assert (loaded.downscale, loaded.latent_channels) == (4, 4)
    schedule = replace(AUTOENCODER.schedule, picture_batch_size=32)
    images = autoencoder_training.batch(replace(AUTOENCODER, schedule=schedule), 2)
    latents = loaded.encode(images)
    assert latents.shape == (32, 4, 16, 16) and loaded.decode(latents[:1]).shape == (1, 3, 64, 64)
    assert latents.mean((0, 2, 3)).abs().max() < 0.3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.3


def test_the_decoders_stage_leaves_the_encoder_alone(tmp_path: Path) -> None:
    vae = autoencoder_training.build(AUTOENCODER)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    autoencoder_training.train_decoder(vae, DECODER, tmp_path / "run", 3.0, resume=False)
    changed = {
        name.split(".")[0] for name, tensor in vae.state_dict().items() if (tensor != before[name]).any()
    }
    assert changed == {"decoder", "post_quant_conv"}
    images = autoencoder_training.batch(DECODER, 0)
    fresh = autoencoder_training.build(AUTOENCODER)
    posteriors: list[Any] = [model.encode(images) for model in (vae, fresh)]  # type: ignore[union-attr]
    assert torch.equal(posteriors[0].latent_dist.mean, posteriors[1].latent_dist.mean)


def test_batches_depend_on_seed_and_step_alone() -> None:
    for recipe in (AUTOENCODER, DECODER):
        first = autoencoder_training.batch(recipe, 1)
        assert first.shape == (2, 3, 32, 32)
        assert torch.equal(first, autoencoder_training.batch(recipe, 1))
        assert not torch.equal(first, autoencoder_training.batch(recipe, 0))
    assert autoencoder_training.batch(AUTOENCODER, AUTOENCODER.schedule.crop_steps).shape == (2, 3, 64, 64)


def test_nothing_heavy_is_imported_before_torchvision_is_prepared() -> None:
    import subprocess
    import sys

    code = (
        "import sys, gentron.train.autoencoder, gentron.train.text, bench.systems.diffusers;"
        "print([name for name in ('torchvision', 'transformers.modeling_utils') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
