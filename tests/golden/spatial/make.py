"""Run the official T2I-CompBench functions on the cases and store the numbers they give (official.npz); note
which words of the official prompts the detector's labels and the list of objects know (names.json).

    python tests/golden/spatial/make.py T2I-CompBench_FOLDER UniDet_FOLDER

The folders are checkouts of Karine-Huang/T2I-CompBench (1b7094991a57f3c22abdd4f6e8ba6c1a15517073) and
xingyizhou/UniDet (94cd0e8612e558c1dff64d2928bc969856c9a802). The scripts of the first are executed from there
with stand-ins for the detector, the data set and the parser; nothing of them is kept.
Needs, beside this package, spacy (no model), word2number and tqdm.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.golden.spatial import cases  # noqa: E402

CLASSES: list[str] = list(cases.LABELS)


def _module(name: str, **values: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(values)
    sys.modules[name] = module


class Boxes:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Instances:
    def __init__(self, found: cases.Found) -> None:
        self.found = found

    def get_fields(self) -> dict[str, Any]:
        return {
            "pred_boxes": Boxes(torch.tensor(self.found.boxes, dtype=torch.float32).reshape(-1, 4)),
            "pred_classes": torch.tensor([CLASSES.index(label) for label in self.found.labels]),
            "scores": torch.tensor(self.found.scores, dtype=torch.float32),
        }


class Loader:
    """What a DataLoader over one picture after the other gives."""

    def __init__(self, dataset: list[Any], **_: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Any:
        return iter([[item] for item in self.dataset])

    def __len__(self) -> int:
        return len(self.dataset)


class Accelerator:
    def __init__(self, **_: Any) -> None: ...

    def prepare(self, *parts: Any) -> Any:
        return parts


def stand_ins(made: Sequence[cases.Case], parse: Callable[[str], Any]) -> None:
    """The modules that the official scripts import, answering with the cases."""
    depths = [torch.from_numpy(np.array(d)).float() / 255.0 for d in cases.depths()]
    items = [
        {
            "image": torch.zeros(3, 1, 1),
            "image_path": f"folder/{case.text}_{i:06d}.png",
            "depth": depths[i % len(depths)],
            "case": case,
        }
        for i, case in enumerate(made)
    ]

    def model(batch: list[Any]) -> list[Any]:
        return [{"instances": Instances(item["case"].found)} for item in batch]

    for name in ("experts", "experts.obj_detection", "experts.depth"):
        _module(name)
    for name in ("experts.model_bank", "experts.model_bank_3d"):
        _module(name, load_expert_model=lambda **_: (model, None))
    for name in (
        "obj_detection.generate_dataset",
        "obj_detection.generate_dataset_3d",
        "depth.generate_dataset",
    ):
        _module(f"experts.{name}", Dataset=lambda *_: items, collate_fn=None)
    _module("accelerate", Accelerator=Accelerator)
    _module("ruamel_yaml", load=lambda *_, **__: {}, Loader=None)
    _module("matplotlib")
    _module("matplotlib.pyplot")
    sys.modules["spacy"].load = lambda _: parse  # type: ignore[attr-defined]
    torch.utils.data.DataLoader = Loader  # type: ignore[assignment,misc]
    torch.load = lambda *_, **__: {"labels": CLASSES}  # type: ignore[assignment]


def run(script: Path, arguments: list[str], name: str = "__main__") -> dict[str, Any]:
    sys.argv = [script.name, *arguments]
    return runpy.run_path(str(script), run_name=name)


def answers(path: Path) -> np.ndarray:
    rows = json.loads(path.read_text())
    assert [row["question_id"] for row in rows] == list(range(len(rows)))
    return np.array([row["answer"] for row in rows], np.float64)


def main(repository: Path) -> None:
    import spacy  # pyright: ignore[reportMissingImports]
    from spacy.tokens import Doc  # pyright: ignore[reportMissingImports]

    vocab = spacy.blank("en").vocab
    scripts = repository / "UniDet_eval"
    results: dict[str, np.ndarray] = {}

    def parser(made: Sequence[cases.Case]) -> Callable[[str], Any]:
        """The words as given, by the order of the pictures: one text may have several readings."""
        following = iter(made)

        def parse(text: str) -> Any:
            case = next(following)
            assert case.text == text
            return Doc(vocab, words=[w.text for w in case.words], pos=[w.pos for w in case.words])

        return parse

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        here = Path(folder) / "UniDet_eval" / "configs"
        here.mkdir(parents=True)
        (here / "experts.yaml").write_text("{}")
        objects = Path(folder) / "examples" / "dataset" / "new_objects.txt"
        objects.parent.mkdir(parents=True)
        objects.write_text("\n".join(f"{one} - {many}" for one, many in cases.OBJECTS))
        (out / "labels" / "depth").mkdir(parents=True)
        os.chdir(here.parent)

        simple = cases.template(2, cases.RELATIONS_2D)
        stand_ins(simple, parser(simple))
        functions = run(scripts / "2D_spatial_eval.py", [], name="functions")
        corners = ("x_min", "y_min", "x_max", "y_max")
        results["position"] = np.array(
            [
                functions["determine_position"](
                    relation, *(dict(zip(corners, b, strict=True)) for b in boxes)
                )
                for relation, *boxes in cases.pairs_of_boxes()
            ],
            np.float64,
        )
        run(scripts / "2D_spatial_eval.py", ["--outpath", str(out)])
        results["simple"] = answers(out / "labels" / "annotation_obj_detection_2d" / "vqa_result.json")
        mixed = cases.mixed()
        stand_ins(mixed, parser(mixed))
        run(scripts / "2D_spatial_eval.py", ["--outpath", str(out), "--complex", "True"])
        results["complex"] = answers(out / "labels" / "annotation_obj_detection_2d" / "vqa_result.json")

        counted = cases.counted()
        stand_ins(counted, spacy.blank("en"))
        functions = run(scripts / "numeracy_eval.py", [], name="functions")
        results["same_box"] = np.array(
            [functions["calculate_iou"](a, b) for _, a, b in cases.pairs_of_boxes()], np.float64
        )
        run(scripts / "numeracy_eval.py", ["--outpath", str(out)])
        results["numeracy"] = answers(out / "annotation_num" / "vqa_result.json")

        deep = cases.template(7, cases.RELATIONS_3D)
        stand_ins(deep, parser(deep))
        run(scripts / "3D_spatial_eval.py", ["--outpath", str(out)])
        results["spatial_3d"] = answers(out / "labels" / "annotation_obj_detection_3d" / "vqa_result.json")

        results["three_in_one"] = three_in_one(
            repository / "3_in_1_eval" / "3_in_1.py", Path(folder) / "whole"
        )
    np.savez_compressed(Path(__file__).with_name("official.npz"), **results)  # type: ignore[arg-type]
    for name, values in results.items():
        print(f"{name}: {len(values)} values, {np.count_nonzero(values)} not 0, mean {values.mean():.6f}")


def names(prompts: Path, unidet: Path) -> None:
    """exact, substring: words of the two spatial lists that are, or are in, a label.   counted: words that
    follow a number in the numeracy list and that new_objects.txt knows."""
    from bench.scorers.numeracy import NUMBERS, ObjectNames
    from bench.scorers.phrases.tokens import tokenize
    from bench.scorers.unidet import read_labels
    from bench.weights import Located

    labels = read_labels(
        Located("unidet-labels", unidet / "datasets" / "label_spaces" / "learned_mAP+M.json", "", False)
    )
    spatial = [line for name in ("spatial_val", "3d_spatial_val") for line in _lines(prompts / f"{name}.txt")]
    words = {word for line in spatial for word in (line.split()[1], line.split()[-1])}
    objects = ObjectNames.read(prompts / "new_objects.txt")
    numbered = {
        word
        for cut in map(tokenize, _lines(prompts / "numeracy_val.txt"))
        for number, word in zip(cut, cut[1:], strict=False)
        if number in NUMBERS
    }
    known = {
        "exact": sorted(words & set(labels)),
        "substring": sorted(word for word in words if any(word in label for label in labels)),
        "counted": sorted(numbered & {*objects.singulars, *objects.plurals}),
    }
    Path(__file__).with_name("names.json").write_text(json.dumps(known, indent=1) + "\n")
    print({name: len(some) for name, some in known.items()})


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def three_in_one(script: Path, out: Path) -> np.ndarray:
    lists, scores = cases.three_in_one()
    files = {
        "annotation_blip": [f"{x:.4f}" for x in scores["attribute"]],
        "labels/annotation_obj_detection_2d": scores["spatial"].tolist(),
        "annotation_clip": scores["action"].tolist(),
    }
    for name, values in files.items():
        (out / name).mkdir(parents=True)
        (out / name / "vqa_result.json").write_text(json.dumps([{"answer": value} for value in values]))
    for name, prompts in lists.items():
        (out / f"{name}.txt").write_text("\n".join(prompts))
    run(script, ["--outpath", str(out), "--data_path", str(out)])
    return answers(out / "annotation_3_in_1" / "vqa_result.json")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    compbench, unidet = (Path(argument).resolve() for argument in sys.argv[1:])
    names(compbench / "examples" / "dataset", unidet)
    main(compbench)
