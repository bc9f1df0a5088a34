"""Downloading the file of a network: resumed where it broke off, taken only if it is the right one."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from bench.weights import Located, MissingWeights, accept, locate, models_folder, read_index, remember
from bench.weights.files import WeightFile, weight_file
from gentron.errors import UserError

CHUNK = 1 << 20
TIMEOUT_S = 60

Report = Callable[[int, int | None], None]  # bytes there, bytes in all if the server says


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
    record, target = read_index(folder).get(id), folder / weight.file
    try:
        sha256 = accept(weight, part, part, record, replace=replace)
    except UserError:
        _forget(part)  # whole and wrong: going on with it would never end
        raise
    os.replace(part, target)
    _forget(part)
    remember(folder, id, target, sha256, random=False, first=record)
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
