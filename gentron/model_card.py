"""The model card: README.md beside every checkpoint, written from its config.json alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gentron.errors import UserError

if TYPE_CHECKING:
    from gentron.checkpoint import CheckpointConfig

CARD_FILE = "README.md"
MARK = "library_name: gentron"
"""In the front matter of every card that is written here; a README.md without it is someone's own."""

PART_LICENCES = {
    "openai/clip-vit-large-patch14": "MIT",
    "google/flan-t5-xxl": "Apache-2.0",
    "google/flan-t5-xl": "Apache-2.0",
    "stabilityai/sd-vae-ft-mse": "MIT",
    "stabilityai/sd-vae-ft-ema": "MIT",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "CreativeML OpenRAIL-M",
}
"""Of hub ids that a config may name, as their hub pages state it."""

RECIPE_FIELDS = (
    "image_size",
    "global_batch_size",
    "learning_rate",
    "lr_schedule",
    "warmup_images",
    "weight_decay",
    "ema_decay",
    "ema_halflife_images",
    "caption_dropout",
    "precision",
    "loss_weighting",
    "timestep_sampling",
)


# ---- where weights come from -------------------------------------------------------------------------------


def provenance(initial: str | Path | None) -> dict[str, Any]:
    """For `CheckpointConfig.training` of what starts from `initial`: its name, and the licences it brings.

    initial: as `--initial` has it, "dit:PATH" or a checkpoint folder, whose own licences are handed on.
    """
    from gentron.checkpoint import read_config
    from gentron.dit import LICENCE, LICENCE_NOTE, PREFIX

    if initial is None:
        return {}
    name = str(initial)
    if name.startswith(PREFIX):
        licences = [{"licence": LICENCE, "note": LICENCE_NOTE}]
    else:
        licences = read_config(Path(name)).training.get("licences", [])
    told = {"initial_weights": Path(name.removeprefix(PREFIX)).name}
    return told | ({"licences": licences} if licences else {})


def last_validation(run: Path) -> dict[str, Any]:
    """{"metrics": the last validation row of a run's metrics.jsonl}, or nothing where there is none."""
    try:
        lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the line of a run that was killed
        if isinstance(row, dict) and row.get("kind") == "validation":
            return {"metrics": {name: value for name, value in row.items() if name != "kind"}}
    return {}


# ---- the card ----------------------------------------------------------------------------------------------


def model_card(config: CheckpointConfig) -> str:
    """Markdown with a hub's front matter: what it is, how it was trained, what it may be used for."""
    training = config.training
    licences = _licences(config)
    restricted = next((name for name, _ in licences if "NC" in name), None)
    front = [
        "---",
        MARK,
        f"license: {restricted.lower() if restricted else 'other'}",
        f"pipeline_tag: text-to-{'video' if config.model.temporal else 'image'}",
        "tags: [gentron, diffusion-transformer]",
        "---",
    ]
    sections = [
        "\n".join(front),
        f"# {_title(config)}",
        _model_section(config),
        _training_section(training),
        _metrics_section(training),
        "## Licence\n" + "\n".join(f"- {name}: {note}" for name, note in licences),
        _use_section(config),
    ]
    return "\n\n".join(sections) + "\n"


def _title(config: CheckpointConfig) -> str:
    from gentron.presets import preset_of

    model = config.model
    return f"GenTron {preset_of(model) or f'{model.depth} x {model.hidden_size}'}"


def _model_section(config: CheckpointConfig) -> str:
    from gentron.plan import count_parameters

    model, sampling = config.model, config.sampling
    rows = {
        "parameters": f"{count_parameters(model).total / 1e6:,.2f}M",
        "depth, width, heads, patch": f"{model.depth}, {model.hidden_size}, {model.num_heads}, {model.patch_size}",
        "text": f"{' and '.join(model.encoders)}, {model.conditioning.replace('_', '-')}",
        "predicts": config.diffusion.prediction_type,
        "picture": f"{sampling.image_size} px",
        "frames": f"{sampling.num_frames} at {sampling.fps:g} a second" if sampling.fps else None,
        "autoencoder": config.autoencoder,
        "CLIP": config.text.clip,
        "T5": config.text.t5,
        "drawn with": f"{sampling.sampler}, {sampling.num_inference_steps} steps, guidance"
        f" {sampling.guidance_scale:g}",
    }
    return "A diffusion transformer of arXiv 2312.04557.\n\n" + _table(rows)


def _training_section(training: Mapping[str, Any]) -> str:
    recipe = training.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    shown = {name: recipe.get(name) for name in RECIPE_FIELDS}
    rows = {
        name: value
        for name, value in training.items()
        if name not in ("recipe", "metrics", "licences") and isinstance(value, str | int | float)
    }
    seen = next((training[name] for name in ("images_seen", "samples_seen") if name in training), None)
    batch = recipe.get("global_batch_size")
    if isinstance(seen, int) and isinstance(batch, int) and batch > 0:
        rows["steps"] = -(-seen // batch)
    rows |= {f"recipe.{name}": value for name, value in shown.items()}
    if not any(value is not None for value in rows.values()):
        return "## Training\nNothing is recorded."
    return "## Training\n" + _table(rows)


def _metrics_section(training: Mapping[str, Any]) -> str:
    metrics = training.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        return "## Metrics\nNone are recorded here; `gentron-bench` measures the model."
    shown = {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in metrics.items()}
    return "## Metrics\nThe last validation of the training run.\n\n" + _table(shown)


def _licences(config: CheckpointConfig) -> list[tuple[str, str]]:
    """(licence, of what), what binds the weights themselves first."""
    found = []
    inherited = config.training.get("licences")
    for entry in inherited if isinstance(inherited, list) else []:
        if isinstance(entry, dict) and {"licence", "note"} <= set(entry):
            found.append((str(entry["licence"]), str(entry["note"])))
    for part in (config.autoencoder, config.text.clip, config.text.t5):
        if part in PART_LICENCES:
            found.append((PART_LICENCES[part], f"{part}, which is loaded beside the model"))
    data = config.training.get("data", "unknown")
    found.append(("training data", f"{data}; its own terms apply"))
    found.append(("Apache-2.0", "the code, gentron"))
    return found


def _use_section(config: CheckpointConfig) -> str:
    out = "clip.mp4" if config.sampling.num_frames > 1 else "out.png"
    return f'## Use\n```bash\ngentron sample --model FOLDER "a prompt" --out {out}\n```'


def _table(rows: Mapping[str, Any]) -> str:
    """Two columns; what is None is left out."""
    told = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *told])


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def write_card(folder: Path, config: CheckpointConfig) -> None:
    """folder/README.md, unless there is one that someone wrote by hand."""
    path = folder / CARD_FILE
    try:
        if path.exists() and MARK not in path.read_text("utf-8", errors="replace"):
            return
        path.write_text(model_card(config), "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
