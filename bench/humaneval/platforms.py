"""The same study for annotation platforms: MTurk, Prolific with Qualtrics, Label Studio, Potato.

Each format is written from the platform's documentation. What a platform shows as HTML is escaped here; what
a spreadsheet could take for a formula is made text. A row is a trial, with the ids that the import needs.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import yaml

from bench.humaneval.study import Question, Study, Trial

FORMULA = ("=", "+", "-", "@", "\t", "\r")
MTURK_SCRIPT = "https://assets.crowd.amazon.com/crowd-html-elements.js"


def protect(value: object) -> str:
    """A CSV cell that no spreadsheet runs: a leading = + - @ tab or return is made text by a '."""
    text = str(value)
    return f"'{text}" if _is_formula(text) else text


def unprotect(cell: str) -> str:
    """The inverse of `protect`."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    """Or one that was made text already, so that `unprotect` takes off what `protect` put on."""
    return text.lstrip("'").startswith(FORMULA)


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([protect(value) for value in row] for row in rows)
    return text.getvalue().encode()


def as_html(text: str) -> str:
    """A prompt for a platform that puts cells into its page as they are."""
    escaped = html.escape(text, quote=True).replace("$", "&#36;").replace("{", "&#123;")
    if escaped.startswith(FORMULA):  # shown as it was, and no formula either
        escaped = f"&#{ord(escaped[0])};{escaped[1:]}"
    return escaped


def write_platforms(folder: Path, study: Study, study_sha256: str, *, media_url: str) -> None:
    """Write all of them. media_url: where the bundle is served from, "" for paths beside the page."""
    folder.mkdir(parents=True)
    base = f"{media_url}media/"
    files: dict[str, bytes] = {"prolific.csv": _prolific(study, media_url)}
    for question in study.questions:
        trials = [trial for trial in study.trials if trial.question == question.name]
        name = question.name
        files[f"mturk-{name}.csv"] = _mturk_rows(study, study_sha256, trials, base)
        files[f"mturk-{name}.html"] = _mturk_template(study, question).encode()
        files[f"label-studio-{name}.xml"] = _label_studio_config(study, question).encode()
        files[f"label-studio-{name}.json"] = _label_studio_tasks(study, study_sha256, trials, base)
        files[f"potato-{name}.yaml"] = _potato_config(study, question).encode()
        files[f"potato-{name}.jsonl"] = _potato_data(study, study_sha256, trials, base)
        for rater in study.raters:
            mine = [trial for trial in trials if trial.rater == rater]
            files[f"qualtrics-{name}-{rater}.csv"] = _qualtrics(study, study_sha256, mine, base)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _text(study: Study, trial: Trial) -> str:
    return "" if trial.text is None else study.texts[trial.text]


# ---- MTurk -----------------------------------------------------------------------------------------------


def _mturk_rows(study: Study, digest: str, trials: list[Trial], base: str) -> bytes:
    """A HIT a trial, to be published with one assignment each: sides are balanced over the rows."""
    return csv_bytes(
        ["study_id", "study_sha256", "trial", "question", "left_url", "right_url", "prompt_html"],
        [
            [
                study.study_id,
                digest,
                t.id,
                t.question,
                base + t.left,
                base + t.right,
                as_html(_text(study, t)),
            ]
            for t in trials
        ],
    )


def _mturk_template(study: Study, question: Question) -> str:
    noun = study.media.noun
    tag = {
        "image": '<img src="${%s_url}" alt="{label}">',
        "video": '<video src="${%s_url}" aria-label="{label}" muted autoplay loop playsinline></video>',
    }[study.media.kind]
    sides = "".join(
        f"<figure>{(tag % side).replace('{label}', f'{noun.capitalize()} {number}')}"
        f"<figcaption>{noun.capitalize()} {number}</figcaption></figure>"
        for number, side in ((1, "left"), (2, "right"))
    )
    choices = "".join(
        f'<label><input type="radio" name="choice" value="{html.escape(choice.code)}" required>'
        f" {html.escape(choice.label)}</label>"
        for choice in question.choices
    )
    prompt = "<blockquote>${prompt_html}</blockquote>" if question.shows_prompt else ""
    return f"""<!-- MTurk, "Crowd HTML": upload mturk-{question.name}.csv, assignments per HIT: 1 -->
<script src="{MTURK_SCRIPT}"></script>
<style>
  .pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 16px; max-width: 1200px; }}
  .pair figure {{ margin: 0; text-align: center; }}
  .pair img, .pair video {{ width: 100%; }}
  .choices {{ display: flex; flex-wrap: wrap; gap: 24px; margin: 16px 0; font-size: 18px; }}
  blockquote {{ font-size: 18px; background: #f2f2f2; padding: 12px 16px; margin: 12px 0; }}
  blockquote {{ white-space: pre-wrap; }}
</style>
<crowd-form>
  <h2>{html.escape(question.ask)}</h2>
  <p>{html.escape(question.help)}</p>
  {prompt}
  <div class="pair">{sides}</div>
  <div class="choices">{choices}</div>
</crowd-form>
"""


# ---- Prolific and Qualtrics ------------------------------------------------------------------------------


def _prolific(study: Study, media_url: str) -> bytes:
    """A link a rater: the page itself, served from anywhere."""
    return csv_bytes(
        ["rater", "url"], [[name, f"{media_url}index.html?rater={name}"] for name in study.raters]
    )


def _qualtrics(study: Study, digest: str, trials: list[Trial], base: str) -> bytes:
    """Loop & Merge fields of one rater, in that rater's order; Field 5 is the prompt as HTML."""
    return csv_bytes(
        ["study_id", "study_sha256", "trial", "left_url", "right_url", "prompt_html"],
        [
            [study.study_id, digest, t.id, base + t.left, base + t.right, as_html(_text(study, t))]
            for t in trials
        ],
    )


# ---- Label Studio ----------------------------------------------------------------------------------------


def _label_studio_config(study: Study, question: Question) -> str:
    tag = "Image" if study.media.kind == "image" else "Video"
    prompt = '  <Text name="prompt" value="$prompt"/>\n' if question.shows_prompt else ""
    choices = "\n".join(
        f'    <Choice value={quoteattr(choice.label)} alias={quoteattr(choice.code)} hotkey="{number}"/>'
        for number, choice in enumerate(question.choices, 1)
    )
    return f"""<View>
  <Header value={quoteattr(question.ask)}/>
  <Header size="5" value={quoteattr(question.help)}/>
{prompt}  <View style="display: grid; grid-template-columns: 1fr 1fr; column-gap: 16px">
    <{tag} name="left" value="$left"/>
    <{tag} name="right" value="$right"/>
  </View>
  <Choices name="choice" toName="left" choice="single-radio" required="true" showInline="true">
{choices}
  </Choices>
</View>
"""


def _label_studio_tasks(study: Study, digest: str, trials: list[Trial], base: str) -> bytes:
    """Tasks; `rater` says for whom a task was balanced, for assigning it."""
    tasks = []
    for t in trials:
        data: dict[str, Any] = {
            "study_id": study.study_id,
            "study_sha256": digest,
            "trial": t.id,
            "question": t.question,
            "rater": t.rater,
            "left": base + t.left,
            "right": base + t.right,
        }
        if t.text is not None:
            data["prompt"] = _text(study, t)
        tasks.append({"data": data})
    return (json.dumps(tasks, indent=1, ensure_ascii=False) + "\n").encode()


# ---- Potato ----------------------------------------------------------------------------------------------


def _potato_config(study: Study, question: Question) -> str:
    kind, noun = study.media.kind, study.media.noun.capitalize()
    options = {"controls": True, "loop": True, "muted": True} if kind == "video" else {"zoomable": True}
    fields: list[dict[str, Any]] = [
        {"key": side, "type": kind, "label": f"{noun} {number}", "display_options": options}
        for number, side in ((1, "left"), (2, "right"))
    ]
    if question.shows_prompt:
        fields.insert(0, {"key": "prompt", "type": "text", "label": "Description"})
    config = {
        "annotation_task_name": question.ask,
        "task_dir": ".",
        "output_annotation_dir": f"annotation_output_{question.name}",
        "output_annotation_format": "jsonl",
        "data_files": [f"potato-{question.name}.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "title"},
        "user_config": {"allow_all_users": True, "users": []},
        "instance_display": {"layout": {"direction": "horizontal", "gap": "16px"}, "fields": fields},
        "annotation_schemes": [
            {
                "annotation_type": "radio",
                "name": "choice",
                "description": f"{question.ask} {question.help}",
                "labels": [choice.label for choice in question.choices],
                "sequential_key_binding": True,
                "label_requirement": {"required": True},
            }
        ],
    }
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)


def _potato_data(study: Study, digest: str, trials: list[Trial], base: str) -> bytes:
    lines = []
    for t in trials:
        row = {
            "id": t.id,
            "title": study.question(t.question).ask,
            "left": base + t.left,
            "right": base + t.right,
            "rater": t.rater,
            "study_id": study.study_id,
            "study_sha256": digest,
        }
        if t.text is not None:
            row["prompt"] = _text(study, t)
        lines.append(json.dumps(row, ensure_ascii=False))
    return ("\n".join(lines) + "\n").encode()
