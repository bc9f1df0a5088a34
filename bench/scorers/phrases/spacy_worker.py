"""What runs beside spaCy: texts in, tokens and noun chunks out. Needs nothing but Python 3.8 and spaCy.

The pinned spaCy needs numpy 1 and this project numpy 2, so it lives in an environment of its own; the command
`prompts parse` hands this file to that environment's Python. JSON on stdin: a list of texts. JSON on stdout:
versions and parses.
"""

import importlib
import json
import platform
import sys

MODEL = "en_core_web_sm"


def versions(nlp):
    return {
        "spacy": importlib.import_module("spacy").__version__,
        "model": MODEL,
        "model_version": nlp.meta["version"],
        "python": platform.python_version(),
    }


def parse(nlp, text):
    doc = nlp(text)
    return {
        "tokens": [[token.text, token.pos_] for token in doc],
        "chunks": [chunk.text for chunk in doc.noun_chunks],
    }


def main():
    texts = json.load(sys.stdin)
    try:
        nlp = importlib.import_module("spacy").load(MODEL)
    except Exception as error:  # whatever keeps it from starting is said by the program that called
        json.dump({"error": f"{type(error).__name__}: {error}"}, sys.stdout)
        return
    json.dump({"made_with": versions(nlp), "parses": [parse(nlp, text) for text in texts]}, sys.stdout)


if __name__ == "__main__":
    main()
