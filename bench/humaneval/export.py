"""Two systems and a list of prompts -> a blinded study: the page for raters, its key kept elsewhere."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.humaneval.design import Placed, place_all, rater_names
from bench.humaneval.media import (
    NOISE,
    RESIZE,
    TILES,
    common_size,
    corrupted_png,
    describe_bad,
    picture_facts,
    plain_png,
)
from bench.humaneval.platforms import write_platforms
from bench.humaneval.prompts import Drawn
from bench.humaneval.render import index_html
from bench.humaneval.study import (
    GOLD,
    KEY_FILE,
    KEY_KIND,
    SCHEMA_VERSION,
    STUDY_FILE,
    STUDY_KIND,
    Key,
    KeyFile,
    KeyPrompt,
    KeySystem,
    KeyTrial,
    Media,
    Rules,
    Study,
    Trial,
    beside,
    digest,
    dump,
    read_wording,
    worded_questions,
    worded_title,
)
from bench.humaneval.video import BadVideo, VideoFacts, VideoFolder, is_video_folder, read_video, same_facts
from bench.results.record import provenance, system_record
from bench.stages import Stage
from bench.systems import Collection, Request, System, SystemInfo, SystemOptions, parse_system
from bench.systems.generate import collect, generate, images_folder
from bench.systems.images import BadImage
from bench.systems.requests import requests
from gentron.atomic import atomic_file, atomic_folder, check_writable
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.hashing import sha256

SYSTEMS = ("a", "b")
FIXED_TIME = 1_600_000_000  # of every file of a bundle: times of writing could tell the systems apart
ANALYSIS = (
    "Per question: shares of win, draw and lose of system A over all votes on pairs, and the net preference"
    " win - lose, with 95 % intervals that hold for new prompts and new raters (variance clustered by prompt"
    " plus variance clustered by rater, Wilson's form, Satterthwaite's degrees of freedom); beside them the"
    " bootstrap over prompts alone. Exact sign test on the majority of each prompt. Krippendorff's alpha."
    " Share of left among decided votes. Flipped repeats and gold items are never votes. All is reported"
    " before and after the rules of this file."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSettings:
    questions: list[str]
    raters: int
    seed: int
    """Of the images; the draw of prompts has the same."""
    gold: int
    flipped: float
    min_seconds: float | None
    image_size: int | None
    media_url: str
    """Where the bundle will be served from, for the platforms; "" where it is opened from a disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    study: Study
    folder: Path
    key: Path
    notes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An image or video of a system, on the disk."""

    system: str
    prompt_id: str
    seed: int
    path: Path


def export(
    specs: dict[str, tuple[str, SystemOptions]],
    drawn: Drawn,
    settings: ExportSettings,
    *,
    out: Path,
    key_path: Path | None,
    work: Path,
    stage: Stage,
    secret: str | None = None,
) -> Exported:
    """Make or find the pictures of both systems and write the study and its key.

    specs: "a" and "b" -> (name of the system, options).   secret: hex; drawn anew unless a test gives one.
    Raises UserError where a study or key stands already: an answer is worth nothing without its key.
    """
    key_path = beside(out, "key") / KEY_FILE if key_path is None else key_path
    _check_places(out, key_path, work)
    # cheap checks before an hour of generation
    wording, wording_hash = read_wording()
    worded_questions(wording, settings.questions, "picture")
    rules = _rules(wording, settings)
    secret = secrets.token_hex(32) if secret is None else secret
    _place(drawn, settings, "picture", secret, wording)

    systems = {name: _open(*specs[name]) for name in SYSTEMS}
    kinds = {isinstance(system, VideoFolder) for system in systems.values()}
    if len(kinds) > 1:
        raise UserError("one system makes pictures and the other videos: a pair must be of one kind")
    is_video = kinds == {True}
    if is_video and (settings.gold or settings.image_size):
        raise UserError(
            "--gold and --image-size need pictures: videos are shown as they are, not encoded anew"
        )
    infos = {name: _key_system(specs[name][0], system) for name, system in systems.items()}
    if replace(infos["a"], spec="") == replace(infos["b"], spec=""):
        raise UserError(f"A and B are the same system with the same settings: {infos['a'].name}")

    wanted = requests(drawn.prompts, images_per_prompt=1, seed=settings.seed)
    found = [item for name in SYSTEMS for item in _find(name, systems[name], wanted, drawn, work, stage)]
    media, contents = (_check_videos if is_video else _check_pictures)(found, settings)
    notes = _twins(found, contents)
    placed = _place(drawn, settings, media.noun, secret, wording)
    study_id = digest(secret, "study").hex()[:12]

    with atomic_folder(out) as folder:
        files = _write_media(folder / "media", found, placed, media, secret, stage)
        trials, key_trials = _trials(placed, files, drawn, secret)
        key = Key(
            schema_version=SCHEMA_VERSION,
            kind=KEY_KIND,
            study_id=study_id,
            secret=secret,
            systems=infos,
            seed=settings.seed,
            source=drawn.source,
            prompts=[KeyPrompt(id=p.id, category=p.category, text=p.text) for p in drawn.prompts],
            files=files,
            trials=key_trials,
            settings=_pinned(settings, media, notes),
            provenance=vars_of(provenance(device=_device(systems))),
        )
        key_bytes = dump(key)
        questions = worded_questions(wording, settings.questions, media.noun)
        study = Study(
            schema_version=SCHEMA_VERSION,
            kind=STUDY_KIND,
            study_id=study_id,
            title=worded_title(wording, media.noun),
            wording_version=wording["version"],
            wording_sha256=wording_hash,
            media=media,
            questions=questions,
            raters=rater_names(settings.raters),
            texts=[p.text for p in drawn.prompts] if any(q.shows_prompt for q in questions) else [],
            trials=trials,
            rules=rules,
            analysis=ANALYSIS,
            key_sha256=sha256(key_bytes),
        )
        study_bytes = dump(study)
        (folder / STUDY_FILE).write_bytes(study_bytes)
        (folder / "index.html").write_bytes(index_html(study, sha256(study_bytes)).encode())
        write_platforms(folder / "platforms", study, sha256(study_bytes), media_url=settings.media_url)
        _same_times(folder)
        _write_private(key_path, key_bytes)
    return Exported(study=study, folder=out, key=key_path, notes=notes)


# ---- before the work -------------------------------------------------------------------------------------


def _check_places(out: Path, key_path: Path, work: Path) -> None:
    folder, key = out.resolve(), key_path.resolve()
    if key.is_relative_to(folder):
        raise UserError(f"the key would lie inside the bundle: give a place outside of '{out}' as --key")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is not empty: a study is never written over; choose another --out")
    if key_path.exists():
        raise UserError(
            f"a key stands at '{key_path}': it may be the only one of its study; move it away first"
        )
    if work.resolve().is_relative_to(folder):
        raise UserError(f"--work lies inside the bundle: choose a place outside of '{out}'")
    for place in (out, key_path, work):
        check_writable(place)


def _rules(wording: dict[str, Any], settings: ExportSettings) -> Rules:
    declared = dict(wording["rules"])
    if settings.min_seconds is not None:
        declared["min_seconds"] = settings.min_seconds
    return from_dict(Rules, declared)


def _place(
    drawn: Drawn, settings: ExportSettings, noun: str, secret: str, wording: dict[str, Any]
) -> list[Placed]:
    return place_all(
        worded_questions(wording, settings.questions, noun),
        [prompt.id for prompt in drawn.prompts],
        rater_names(settings.raters),
        gold=settings.gold,
        flipped=settings.flipped,
        secret=secret,
    )


def parse_options(words: list[str], *, device: str) -> SystemOptions:
    """KEY=VALUE settings of one system, strictly by the names of SystemOptions."""
    import yaml

    given: dict[str, Any] = {"device": device}
    names = [name for name in SystemOptions.__dataclass_fields__ if name != "device"]
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in names:
            raise ValueError(f"a setting must be KEY=VALUE with KEY among {', '.join(names)}, got '{word}'")
        given[name] = Path(value) if name == "checkpoint" else yaml.safe_load(value)
    checkpoint = given.pop("checkpoint", None)
    complete = {name: given.get(name, getattr(SystemOptions(), name)) for name in (*names, "device")}
    return replace(from_dict(SystemOptions, {**complete, "checkpoint": None}), checkpoint=checkpoint)


def _open(spec: str, options: SystemOptions) -> System | Collection:
    kind, _, rest = spec.partition(":")
    if kind == "folder" and rest and is_video_folder(Path(rest)):
        return VideoFolder(Path(rest), options)
    return parse_system(spec, options)


def _key_system(spec: str, system: System | Collection) -> KeySystem:
    return KeySystem(spec=spec, **vars_of(system_record(system.info)))


def _device(systems: dict[str, System | Collection]) -> str:
    return ", ".join(sorted({system.info.device for system in systems.values()} - {"none"})) or "none"


def vars_of(record: Any) -> dict[str, Any]:
    """A record of another module as a mapping, so that fields it gains do not make old keys unreadable."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


# ---- pictures --------------------------------------------------------------------------------------------


def _find(
    name: str,
    system: System | Collection,
    wanted: list[Request],
    drawn: Drawn,
    work: Path,
    stage: Stage,
) -> list[Found]:
    with stage(f"images of {name.upper()}", len(wanted)) as advance:
        if isinstance(system, Collection):
            records = collect(system, wanted, drawn.available)
            advance(len(wanted))
            folder = work
        else:
            if system.info.media.kind == "video":
                raise UserError(
                    f"'{system.info.name}' makes clips: write them as video files and give folder:DIR"
                )
            folder = _work_folder(work, system.info, wanted)
            records = generate(system, wanted, folder, advance=advance)
    return [Found(system=name, prompt_id=r.prompt_id, seed=r.seed, path=folder / r.file) for r in records]


def _work_folder(work: Path, info: SystemInfo, wanted: list[Request]) -> Path:
    """Of this system with these settings and prompts: a killed export finds its images again."""
    asked = [[request.id, request.text, request.seed] for request in wanted]
    return images_folder(work / "humaneval", info, after=[asked])


def _check_pictures(found: list[Found], settings: ExportSettings) -> tuple[Media, dict[Path, str]]:
    sizes, contents, bad = set(), {}, []
    for item in found:
        try:
            size, contents[item.path] = picture_facts(item.path)
            sizes.add(size)
        except BadImage as error:
            bad.append((item.system.upper(), item.prompt_id, str(error)))
    if bad:
        raise UserError(describe_bad(bad))
    width, height = common_size(sizes, settings.image_size)
    media = Media(kind="image", format="png", width=width, height=height, codec=None, frames=None, fps=None)
    return media, contents


def _check_videos(found: list[Found], settings: ExportSettings) -> tuple[Media, dict[Path, str]]:
    facts: dict[str, VideoFacts] = {}
    contents, bad = {}, []
    for item in found:
        try:
            data, facts[f"{item.system.upper()} {item.prompt_id}"] = read_video(item.path)
            contents[item.path] = sha256(data)
        except BadVideo as error:
            bad.append((item.system.upper(), item.prompt_id, str(error)))
    if bad:
        raise UserError(describe_bad(bad).replace("pictures", "videos"))
    same = same_facts(facts)
    media = Media(
        kind="video",
        format="mp4" if same.format == "mp4" else "webm",
        width=same.width,
        height=same.height,
        codec=same.codec,
        frames=same.frames,
        fps=same.fps,
    )
    return media, contents


def _twins(found: list[Found], contents: dict[Path, str]) -> list[str]:
    """What to say of prompts for which both systems gave the same picture; UserError if all are."""
    by_prompt: dict[str, set[str]] = {}
    for item in found:
        by_prompt.setdefault(item.prompt_id, set()).add(contents[item.path])
    twins = [prompt_id for prompt_id, digests in by_prompt.items() if len(digests) == 1]
    if len(twins) == len(by_prompt):
        raise UserError("A and B gave the same for every prompt: there is nothing to compare")
    return [f"{len(twins)} pairs show the same twice: {', '.join(twins[:5])}"] if twins else []


def _write_media(
    folder: Path, found: list[Found], placed: list[Placed], media: Media, secret: str, stage: Stage
) -> dict[str, KeyFile]:
    """Write every file under an opaque name; returns what each is."""
    folder.mkdir(parents=True)
    golden = {(p.item.system, p.item.prompt_id) for p in placed if p.item.kind == GOLD}
    files: dict[str, KeyFile] = {}

    def write(item: Found, data: bytes, source: str, *, corrupted: bool) -> None:
        name = (
            f"{digest(secret, 'file', item.system, item.prompt_id, int(corrupted)).hex()[:16]}.{media.format}"
        )
        (folder / name).write_bytes(data)
        files[name] = KeyFile(
            system="a" if item.system == "a" else "b",
            prompt_id=item.prompt_id,
            corrupted=corrupted,
            seed=item.seed,
            source_sha256=source,
            sha256=sha256(data),
        )

    with stage("bundle", len(found)) as advance:
        for item in found:
            if media.kind == "video":
                data, _ = read_video(item.path)
                source = sha256(item.path.read_bytes())
                write(item, data, source, corrupted=False)
            else:
                data, source = plain_png(item.path, (media.width, media.height))
                write(item, data, source, corrupted=False)
                if (item.system, item.prompt_id) in golden:
                    noise = digest(secret, "corrupt", item.system, item.prompt_id)
                    write(item, corrupted_png(data, noise), source, corrupted=True)
            advance(1)
    return dict(sorted(files.items()))


def _trials(
    placed: list[Placed], files: dict[str, KeyFile], drawn: Drawn, secret: str
) -> tuple[list[Trial], dict[str, KeyTrial]]:
    names: dict[tuple[str | None, str, bool], str] = {
        (f.system, f.prompt_id, f.corrupted): name for name, f in files.items()
    }
    texts = {prompt.id: place for place, prompt in enumerate(drawn.prompts)}
    shown = {name for name, question in read_wording()[0]["questions"].items() if question["shows_prompt"]}
    trials, key_trials = [], {}
    for p in placed:
        item = p.item
        if item.kind == GOLD:
            pair = {
                "intact": names[item.system, item.prompt_id, False],
                "corrupted": names[item.system, item.prompt_id, True],
            }
        else:
            pair = {side: names[side, item.prompt_id, False] for side in SYSTEMS}
        right = next(side for side in item.sides if side != p.left)
        trial_id = digest(secret, "trial", p.rater, p.question, item.kind, item.prompt_id).hex()[:16]
        trials.append(
            Trial(
                id=trial_id,
                rater=p.rater,
                question=p.question,
                left=pair[p.left],
                right=pair[right],
                text=texts[item.prompt_id] if p.question in shown else None,
            )
        )
        key_trials[trial_id] = from_dict(
            KeyTrial, {"kind": item.kind, "prompt_id": item.prompt_id, "left": p.left}
        )
    return trials, key_trials


def _pinned(settings: ExportSettings, media: Media, notes: list[str]) -> dict[str, Any]:
    pinned: dict[str, Any] = {
        "gold": settings.gold,
        "flipped": settings.flipped,
        "image_size": settings.image_size,
        "media_url": settings.media_url,
        "notes": notes,
    }
    if media.kind == "image":
        pinned["resize"] = f"{RESIZE} to {media.width}x{media.height}"
        pinned["corruption"] = f"{TILES}x{TILES} tiles mixed, noise sd {NOISE:g} of 255"
    else:
        pinned["checked"] = "container, codec, width, height, frames per second, number of frames"
        pinned["not_checked"] = "bit rate, colour space, what the decoded frames show"
    return pinned


# ---- files -----------------------------------------------------------------------------------------------


def _same_times(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (FIXED_TIME, FIXED_TIME))


def _write_private(path: Path, data: bytes) -> None:
    """A whole file that only its owner can read."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700)
    with atomic_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def check_media_url(url: str) -> str:
    """A base address with a slash at its end, or "" for files beside the page."""
    if not url:
        return ""
    if not re.fullmatch(r"(https?://|/)[^\s\"'<>]*", url):
        raise ValueError(f"--media-url must be an address such as https://host/study/, got '{url[:80]}'")
    return url if url.endswith("/") else url + "/"
