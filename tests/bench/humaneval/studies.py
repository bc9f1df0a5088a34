"""Small human studies for tests: two folders of pictures, exported through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner, Result

from bench.commands.humaneval import app
from bench.humaneval.study import Key, Study, read_key, read_study

NAMES = ("GloriousModelXL", "OtherSystemV2")
HOSTILE = """<script>window.pwned=1</script> & "double" 'single' </script><!-- ${x} {{JS}}"""


def humaneval(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(done: Result, *messages: str) -> None:
    """One clear line, exit code 2."""
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for message in messages:
        assert message in done.stderr


def write_prompts(path: Path, count: int) -> Path:
    lines = [f"a thing number {k} on a table" for k in range(1, count)]
    path.write_text("\n".join([*lines, HOSTILE]) + "\n")
    return path


def write_pictures(folder: Path, count: int, *, size: int = 16, tint: int = 0) -> Path:
    """<prompt id>_00.png with all the metadata that generators leave behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(1, count + 1):
        rng = np.random.default_rng([k, tint])
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        info = PngInfo()
        info.add_text("parameters", f"{folder.name}, Seed: 8877665544, a thing")
        exif = Image.Exif()
        exif[0x0131] = folder.name
        Image.fromarray(pixels).save(folder / f"line-{k:04d}_00.png", pnginfo=info, exif=exif, dpi=(72, 72))
    return folder


def export(place: Path, *more: object, count: int = 6, raters: int = 3) -> Result:
    """A study in place/study of two folders of `count` pictures."""
    prompts = write_prompts(place / "prompts.txt", count)
    a, b = (write_pictures(place / name, count, tint=k) for k, name in enumerate(NAMES))
    return humaneval(
        *("export", "--a", f"folder:{a}", "--b", f"folder:{b}", "--prompts", prompts, "--raters", raters),
        *("--out", place / "study", "--work", place / "work", *more),
    )


def opened(place: Path) -> tuple[Study, str, Key]:
    study, digest = read_study(place / "study")
    return study, digest, read_key(place / "study-key" / "key.json", study)


def page_answers(
    study: Study, digest: str, rater: str, choices: dict[str, str], **changes: Any
) -> dict[str, Any]:
    """A file as the page saves it: trial -> choice of one rater."""
    return {
        "schema_version": 1,
        "kind": "gentron-humaneval-answers",
        "study_id": study.study_id,
        "study_sha256": digest,
        "rater": rater,
        "token": "0011223344556677",
        "simulated": False,
        "complete": True,
        "saved_at": "2026-01-01T00:10:00.000Z",
        "answers": [
            {"trial": trial, "choice": choice, "ms": 3000, "at": "2026-01-01T00:00:00.000Z", "layout": "row"}
            for trial, choice in choices.items()
        ],
    } | changes


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def all_left(study: Study, rater: str) -> dict[str, str]:
    return {trial.id: "left" for trial in study.trials if trial.rater == rater}
