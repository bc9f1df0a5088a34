"""The loop with a task it has never heard of, and run folders of older formats."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from gentron.config import from_dict, to_dict
from gentron.data import Stream, keyed_rng
from gentron.errors import UserError
from gentron.train import run_folder, state
from gentron.train.loop import train
from gentron.train.recipe import TrainRecipe
from gentron.train.task import Prepared, Task
from tests.tiny_recipe import tiny_recipe, tiny_video_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

QUIET = Console(quiet=True)


def words_task() -> Task[nn.Linear, Tensor]:
    """Learn the mean of keyed vectors; every third step is of another kind, sample 5 cannot be read."""

    def prepare(indices: range) -> Prepared[Tensor]:
        vectors = [keyed_rng(0, i, Stream.SCENE).standard_normal(4, np.float32) for i in indices]
        unreadable = tuple(f"word {i}: torn" for i in indices if i == 5)
        kind = "third" if indices.start // 8 % 3 == 2 else "other"
        return Prepared(torch.from_numpy(np.stack(vectors)), kind, unreadable)

    return Task(
        data="vectors",
        unit="words",
        build_model=lambda: nn.Linear(4, 4),
        prepare=prepare,
        loss=lambda model, batch: (model(batch) - batch).square().mean(1).sum() / 8,
        validate=lambda model: {"validation": {"loss": float(model.weight.detach().abs().mean())}},
    )


def run_words(out: Path, **options: Any) -> None:
    train(
        replace(tiny_recipe(), precision="fp32"),
        words_task(),
        out=out,
        seed=1,
        device=torch.device("cpu"),
        resume=True,
        console=QUIET,
        **options,
    )


def read_rows(out: Path) -> list[dict[str, Any]]:
    clock = ("seconds", "words_per_second")
    parsed = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in clock} for row in parsed]


def test_toy_task_runs_through_the_loop_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    run_words(tmp_path / "whole")
    run_words(tmp_path / "parts", stop_at=40)
    run_words(tmp_path / "parts")
    assert read_rows(tmp_path / "parts") != []
    last = [state.checkpoint_folder(tmp_path / name, 128) for name in ("whole", "parts")]
    for file in ("model", "ema", "optimizer"):
        whole, parts = (load_file(folder / f"{file}.safetensors") for folder in last)
        assert whole.keys() == parts.keys()
        assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    rows = read_rows(tmp_path / "whole")
    assert [r for r in rows if r["kind"] != "train"] == [
        r for r in read_rows(tmp_path / "parts") if r["kind"] != "train" and r["words_seen"] != 40
    ]
    assert {"words_seen", "loss_third", "loss_other"} <= rows[-2].keys() | rows[2].keys()


def test_what_could_not_be_read_is_counted_where_it_was_to_come(tmp_path: Path) -> None:
    run_words(tmp_path / "run", stop_at=16)
    told = [row for row in read_rows(tmp_path / "run") if row["kind"] == "unreadable"]
    assert told == [{"kind": "unreadable", "words_seen": 8, "reason": "word 5: torn"}]


def of_version_1(recipe: TrainRecipe) -> dict[str, Any]:
    """What the loop stored before run folders had a version."""
    stored = {"recipe": to_dict(recipe), "seed": 1, "data": "vectors", "initial_weights": None}
    for name in ("video", "scenes"):
        del stored["recipe"][name]
    del stored["recipe"]["model"]["temporal"]
    return stored


def test_run_of_the_first_format_goes_on(tmp_path: Path) -> None:
    run_words(tmp_path / "run", stop_at=32)
    recipe = replace(tiny_recipe(), precision="fp32")
    (tmp_path / "run/config.json").write_text(json.dumps(of_version_1(recipe)))
    progress = state.checkpoint_folder(tmp_path / "run", 32) / "progress.json"
    progress.write_text(progress.read_text().replace("samples_seen", "images_seen"))
    run_words(tmp_path / "run")
    assert read_rows(tmp_path / "run")[-1]["words_seen"] == 128
    assert json.loads((tmp_path / "run/config.json").read_text())["format_version"] == 2


def test_first_format_is_upgraded_to_what_it_meant() -> None:
    upgraded = run_folder.upgraded(of_version_1(tiny_recipe()))
    assert from_dict(TrainRecipe, upgraded["recipe"]) == tiny_recipe()
    today = {"format_version": 2, "recipe": to_dict(tiny_video_recipe())}
    assert run_folder.upgraded(copy.deepcopy(today)) == today


def test_autoencoders_flat_crop_schedule_is_upgraded() -> None:
    crops = {"crop_steps": 3, "crop_size": 32, "crop_batch_size": 2, "picture_steps": 1}
    crops["picture_batch_size"] = 4
    assert run_folder.upgraded({"seed": 1, **crops}) == {"format_version": 2, "seed": 1, "schedule": crops}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format_version": 3}', r"format_version must be 1..2, got 3"),
        ('{"format_version": "2"}', "format_version must be 1..2, got '2'"),
        ("[]", "expected a mapping, got list"),
        ('{"recipe"', "is damaged"),
    ],
)
def test_damaged_or_later_run_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        run_folder.start_run(tmp_path, {}, resume=True)
    assert "\n" not in str(error.value)


def test_training_starts_where_there_is_no_fcntl() -> None:
    """As on Windows; with it the modules of every training command."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import gentron.data.latents, gentron.train.t2i, gentron.train.t2v, gentron.train.cli\n"
        "from filelock import FileLock\n"
    )
    # filelock itself chooses by platform and does without; torch is left as it is
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
