"""Makes tokens.json: hashes of spaCy's tokens of the official lists. Its tokeniser needs no model.

python3 -m venv spacy-env; spacy-env/bin/pip install spacy==3.5.3 'numpy<2'
spacy-env/bin/python tests/golden/phrases/make.py FOLDER_OF_THE_LISTS
"""

import hashlib
import importlib
import json
import sys
from pathlib import Path

CATEGORIES = ("color", "shape", "texture", "spatial", "non_spatial", "complex", "3d_spatial", "numeracy")


def main():
    spacy = importlib.import_module("spacy")
    cut, folder = spacy.blank("en"), Path(sys.argv[1])
    hashes = {}
    for category in CATEGORIES:
        texts = (folder / f"{category}_val.txt").read_text().splitlines()
        tokens = [[token.text for token in cut(text)] for text in texts]
        hashes[category] = hashlib.sha256(json.dumps(tokens, ensure_ascii=False).encode()).hexdigest()
    golden = {"made_with": f"spacy {spacy.__version__}, spacy.blank('en')", "sha256": hashes}
    (Path(__file__).parent / "tokens.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
