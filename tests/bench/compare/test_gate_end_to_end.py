"""The gate on the bundled model, from weights to exit code, as a training repository's CI would run it."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.prompts.protocol import load_protocol, protocols_folder
from bench.results.baselines import read_baselines
from bench.systems.images import encode_png
from gentron.bundled import bundled_part
from gentron.shapes.scene import TEXTURES
from gentron.shapes.vocabulary import motion_words

pytestmark = pytest.mark.slow

LIMIT, STEPS = 16, 8
MINI = Path(str(files("gentron"))) / "weights" / "mini"


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def measure(model: object, out: Path, *arguments: object) -> Result:
    """Draw and score the attribute-binding prompts; nothing is kept from another run."""
    return bench(
        *("compbench", "--model", model, "--protocol", "compbench-shapes_v1", "--suite", "attribute-binding"),
        *("--limit", LIMIT, "--num-inference-steps", STEPS, "--device", "cpu", "--out", out),
        *("--work", out.with_name(f"{out.name}-work"), *arguments),
    )


def forget(weights: Path, vocabulary: tuple[str, ...]) -> None:
    """Give words the same, meaningless embedding in the copy of a text encoder."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    rows = [motion_words().index(word) for word in vocabulary]
    tables = [name for name, tensor in tensors.items() if tensor.shape[:1] == (len(motion_words()),)]
    assert tables, f"no embedding table in {weights}"
    for name in tables:
        tensors[name][rows] = tensors[name][rows].mean(dim=0)
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with an accepted baseline of the bundled model."""
    folder = tmp_path_factory.mktemp("gate")
    done = measure("mini", folder / "first")
    assert done.exit_code == 0, done.output
    listed = ["--baselines", folder / "results" / "baselines.yaml"]
    done = bench("accept", folder / "first", "--reason", "the first run", "--force-dirty", *listed)
    assert done.exit_code == 0, done.output
    entry = read_baselines(folder / "results" / "baselines.yaml")["compbench-shapes_v1"]["mini"]
    assert (folder / "results" / entry.path / "scores.csv").is_file()
    return folder


def gate(place: Path, candidate: Path, *arguments: object) -> Result:
    where = ("--baselines", place / "results" / "baselines.yaml", "--system", "mini")
    return bench("gate", "--candidate", candidate, *where, *arguments)


def test_an_unchanged_model_is_green(place: Path) -> None:
    assert measure("mini", place / "again").exit_code == 0
    done = gate(place, place / "again")
    assert done.exit_code == 0, done.output
    assert "pass: 3 of 3 metrics within tolerance" in done.stdout
    assert done.stdout.count("every picture is the same file") == 3


def test_damaged_weights_are_red_and_the_right_category_is_named(place: Path) -> None:
    """A copy of the model whose text encoders take every texture for the same word."""
    damaged = place / "mini"
    shutil.copytree(MINI, damaged)
    config = json.loads((damaged / "config.json").read_text("utf-8"))
    for encoder in ("clip", "t5"):
        shutil.copytree(bundled_part(encoder), damaged / encoder)
        config["text"][encoder] = encoder  # its own in place of the shared one
    (damaged / "config.json").write_text(json.dumps(config), "utf-8")
    for encoder in ("clip", "t5"):
        forget(damaged / encoder / "model.safetensors", TEXTURES)
    assert measure(damaged, place / "damaged").exit_code == 0
    done = gate(place, place / "damaged", "--tolerance", "0.1", "--annotations")
    assert done.exit_code == 1, done.output
    last = [line for line in done.stdout.splitlines() if not line.startswith("::")][-1]
    assert last.startswith("regression: texture -0.") and "color" not in last and "shape" not in last
    assert "::error title=texture%3A regression::" in done.stdout
    # what no prompt asks of the damaged words is drawn as before, to the last bit
    assert done.stdout.count("every picture is the same file") == 2


def test_another_protocol_is_not_comparable(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "protocols"
    shutil.copytree(protocols_folder(), folder)
    text = (folder / "compbench-shapes_v1.yaml").read_text()
    (folder / "compbench-shapes_v9.yaml").write_text(
        text.replace("name: compbench-shapes_v1", "name: compbench-shapes_v9")
    )
    monkeypatch.setattr("bench.prompts.protocol.protocols_folder", lambda: folder)
    assert load_protocol("compbench-shapes_v9").name == "compbench-shapes_v9"
    done = bench(
        *(
            "compbench",
            "--model",
            "mini",
            "--protocol",
            "compbench-shapes_v9",
            "--suite",
            "attribute-binding",
        ),
        *("--limit", 1, "--num-inference-steps", 1, "--device", "cpu"),
        *("--out", place / "v9", "--work", place / "v9-work"),
    )
    assert done.exit_code == 0, done.output
    done = gate(place, place / "v9", "--baseline", place / "first")
    assert done.exit_code == 4, done.output
    assert "results differ in protocol (compbench-shapes_v1 / compbench-shapes_v9)" in done.stdout
    assert gate(place, place / "v9").exit_code == 4  # and that protocol has no baseline


def test_a_run_that_made_nothing_is_not_green(place: Path) -> None:
    """A broken system leaves files that are no pictures: no result, and the gate has nothing to judge. Blank
    pictures are pictures: the gate is red."""
    pictures = place / "blank"
    pictures.mkdir()
    for prompt in load_protocol("compbench-shapes_v1").select("attribute-binding", limit=LIMIT):
        (pictures / f"{prompt.id}_00.png").write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8)))

    def measured(out: str) -> Result:
        return bench(
            *("compbench", "--model", f"folder:{pictures}", "--protocol", "compbench-shapes_v1"),
            *("--suite", "attribute-binding", "--limit", LIMIT),
            *("--out", place / out, "--work", place / f"{out}-work"),
        )

    assert measured("black").exit_code == 0
    done = gate(place, place / "black")
    assert done.exit_code == 1 and "regression" in done.stdout, done.output
    for picture in pictures.iterdir():
        picture.write_bytes(b"no picture")
    done = measured("nothing")
    assert done.exit_code == 2 and "cannot be scored" in done.stderr
    done = gate(place, place / "nothing")
    assert done.exit_code == 5, done.output
    assert "nothing measured: no result" in done.stdout


def test_fewer_steps_leave_the_question_open(place: Path) -> None:
    """A small change of many pictures: 16 prompts cannot tell, and say so."""
    steps = ("--num-inference-steps", STEPS + 1)
    assert measure("mini", place / "more", *steps).exit_code == 0
    done = gate(place, place / "more", "--tolerance", "0.05")
    assert done.exit_code == 3, done.output
    assert "system settings.num_inference_steps differs: 8 / 9" in done.stdout
