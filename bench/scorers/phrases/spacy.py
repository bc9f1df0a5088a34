"""spaCy as a source, and as what freezes a table: in this process, or in another environment's Python."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bench.scorers.phrases import Parse, Token, spacy_worker
from gentron.errors import UserError

# what the official evaluator's requirements.txt pins
PINNED = {"spacy": "3.5.3", "model": "en_core_web_sm", "model_version": "3.5.0"}
MODEL_URL = (
    "https://github.com/explosion/spacy-models/releases/download/"
    "en_core_web_sm-3.5.0/en_core_web_sm-3.5.0-py3-none-any.whl"
)
MODEL_SHA256 = "0964370218b7e1672a30ac50d72cdc6b16f7c867496f1d60925691188f4d2510"
EXTRA = "pip install 'gentron[phrases]'"  # spaCy 3.8 beside this package
WAY_ON = (
    "make an environment for it: python3 -m venv spacy-env;"
    f" spacy-env/bin/pip install spacy==3.5.3 'numpy<2' {MODEL_URL};"
    " gentron-bench prompts parse --python spacy-env/bin/python"
)


def is_pinned(made_with: dict[str, Any]) -> bool:
    return all(made_with.get(name) == value for name, value in PINNED.items())


def check_pinned(made_with: dict[str, Any], *, any_version: bool = False) -> None:
    """UserError for another spaCy or model than the official one, unless any is asked for."""
    if not any_version and not is_pinned(made_with):
        expected, got = (
            f"spaCy {m['spacy']} with {m['model']} {m['model_version']}" for m in (PINNED, made_with)
        )
        raise UserError(
            f"noun phrases need {expected}, got {got}; {WAY_ON};"
            " or --any-version, which the table and every result then name"
        )


class SpacySource:
    """nlp: a spaCy pipeline with tagger and parser."""

    name = "spacy"

    def __init__(self, nlp: Any, made_with: dict[str, Any]) -> None:
        self.nlp = nlp
        self.record: dict[str, Any] = {"source": self.name, **made_with, "pinned": is_pinned(made_with)}

    def parse(self, text: str) -> Parse:
        return _to_parse(spacy_worker.parse(self.nlp, text))


def _to_parse(fields: dict[str, Any]) -> Parse:
    """From the worker's {"tokens": [[text, pos], ...], "chunks": [...]}."""
    return Parse(
        tokens=tuple(Token(text, pos) for text, pos in fields["tokens"]), chunks=tuple(fields["chunks"])
    )


@cache
def _pipeline() -> tuple[Any, dict[str, Any]]:
    try:
        return spacy_worker.load()
    except (ImportError, OSError, ValueError) as error:
        # ValueError: binaries made for numpy 1
        raise UserError(f"spaCy's English model does not run here ({error}); {EXTRA}, or {WAY_ON}") from error


def live() -> SpacySource:
    """spaCy of this environment, whatever its version: the record names it."""
    return SpacySource(*_pipeline())


def is_available() -> bool:
    """Whether some spaCy with its English model runs in this process."""
    try:
        _pipeline()
    except UserError:
        return False
    return True


class Parsed(NamedTuple):
    made_with: dict[str, Any]
    parses: list[Parse]


def parse_with(python: Path, texts: list[str], *, model: str | None = None) -> Parsed:
    """Parse with the spaCy of another environment; UserError if it does not run there.

    model: its package; the first of `spacy_worker.MODELS` that is installed if None.
    """
    worker = Path(spacy_worker.__file__).read_text()
    try:
        # as -c and from the root folder, so that no file of ours stands in the way of `import spacy`
        run = subprocess.run(
            [python.expanduser().absolute(), "-c", worker],
            input=json.dumps({"model": model, "texts": texts}),
            capture_output=True,
            text=True,
            cwd="/",
        )
    except OSError as error:
        raise UserError(f"{python}: cannot be run as Python ({error.strerror}); {WAY_ON}") from error
    try:
        answer = json.loads(run.stdout)
    except ValueError:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise UserError(f"{python}: parsing failed ({last})") from None
    if "error" in answer:
        raise UserError(f"spaCy's English model does not run in {python} ({answer['error']}); {WAY_ON}")
    return Parsed(answer["made_with"], [_to_parse(fields) for fields in answer["parses"]])
