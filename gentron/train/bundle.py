"""Make a trained checkpoint a bundled model: python -m gentron.train.bundle runs/mini/model mini."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from gentron.atomic import atomic_folder
from gentron.bundled import BUNDLED_MODELS, SharedPart, folder_hash, is_shared, weights_folder
from gentron.checkpoint import CONFIG_FILE, WEIGHTS_FILE, read_config
from gentron.console import make_app, run_app
from gentron.errors import UserError

README = "README.md"

app = make_app("Make a trained checkpoint a bundled model.")


@app.command()
def bundle(
    folder: Annotated[Path, typer.Argument(help="A checkpoint, also the bundled model's own folder.")],
    model: Annotated[str, typer.Argument(help="The bundled model that it becomes.")],
    replace_parts: Annotated[
        bool, typer.Option("--replace-parts", help="Let its parts take the place of other shared ones.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="Instead of the package's folder of weights.")] = None,
) -> None:
    """Copy a checkpoint to gentron/weights/MODEL, its autoencoder and text encoders to weights/shared."""
    weights = weights or weights_folder()
    if model not in BUNDLED_MODELS:
        raise UserError(f"unknown bundled model '{model}'; known: {', '.join(BUNDLED_MODELS)}")
    read_config(folder)  # it must be a checkpoint of today
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    names = {"autoencoder": config["autoencoder"], **{e: config["text"][e] for e in ("clip", "t5")}}
    own = {part: folder / name for part, name in names.items() if name is not None and not is_shared(name)}
    if not replace_parts:
        _check_shared(own, weights)
    for part, source in own.items():
        name = str(share(source, part, weights=weights))
        (config if part == "autoencoder" else config["text"])[part] = name
    install(folder, weights / model, config)
    typer.echo(f"{weights / model}: {model}, shared parts {', '.join(own) or 'as they were'}")
    for other in sorted(weights.glob(f"*/{CONFIG_FILE}")):
        for name in _stale_parts(other, weights):
            typer.echo(f"note: {other.parent} was trained with another {name}: bundle it anew", err=True)


def _check_shared(parts: dict[str, Path], weights: Path) -> None:
    """UserError, before anything is written, if a shared part would change."""
    for part, source in parts.items():
        target = weights / "shared" / part
        if target.is_dir() and folder_hash(target) != folder_hash(source):
            raise UserError(
                f"'{source}' differs from '{target}', which other models may share: use --replace-parts to"
                " replace it, then bundle those models anew"
            )


def share(source: Path, part: str, *, weights: Path) -> SharedPart:
    """Copy a part's folder to weights/shared, unless it lies there; what config.json calls it."""
    target, digest = weights / "shared" / part, folder_hash(source)
    if not target.is_dir() or folder_hash(target) != digest:
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
    return SharedPart(part, digest)


def install(folder: Path, target: Path, config: dict[str, Any]) -> None:
    """Write target: the weights of folder, this config.json, and the README that stands in either."""
    readme = next((path for path in (target / README, folder / README) if path.is_file()), None)
    with atomic_folder(target) as temporary:
        shutil.copyfile(folder / WEIGHTS_FILE, temporary / WEIGHTS_FILE)
        if readme is not None:
            shutil.copyfile(readme, temporary / README)
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _stale_parts(config_file: Path, weights: Path) -> list[str]:
    """The shared parts that a bundled model names by another hash than they have."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    named = [config["autoencoder"], config["text"]["clip"], config["text"]["t5"]]
    parts = ("autoencoder", "clip", "t5")
    return [
        part
        for part, name in zip(parts, named, strict=True)
        if name is not None
        and is_shared(name)
        and name != str(SharedPart(part, folder_hash(weights / "shared" / part)))
    ]


if __name__ == "__main__":
    run_app(app)
