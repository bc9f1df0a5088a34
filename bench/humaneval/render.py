"""The page as one file: styles, script and study in it, and a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from pathlib import Path

from bench.humaneval.study import Study
from gentron.config import to_dict


def _part(name: str) -> str:
    return (Path(str(files("bench"))) / "humaneval" / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def json_in_html(value: object) -> str:
    """JSON that no HTML parser can leave: `<`, `>`, `&` and the line ends of JavaScript are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def index_html(study: Study, study_sha256: str) -> str:
    """The page of a study. It holds what a rater needs: neither the rules nor the hash of the key."""
    known = to_dict(study)
    shown = ("study_id", "title", "media", "questions", "raters", "texts", "trials")
    data = {name: known[name] for name in shown} | {"sha256": study_sha256}
    style, script = _part("page.css"), _part("page.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "img-src 'self' file:",  # 'self' is not what a page opened from a disk is
            "media-src 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    page = _part("page.html")
    parts = {
        "CSP": policy,
        "TITLE": html.escape(study.title),
        "CSS": style,
        "DATA": json_in_html(data),
        "JS": script,
    }
    out, rest = "", page
    while "{{" in rest:  # one pass: what a part holds is never looked at again
        before, _, tail = rest.partition("{{")
        name, _, rest = tail.partition("}}")
        out += before + parts[name]
    return out + rest
