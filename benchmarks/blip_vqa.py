"""BLIP-VQA: images per CPU-second, ours against the official loop, on the same full-size random weights.

    python benchmarks/blip_vqa.py
    python benchmarks/blip_vqa.py --original T2I-COMPBENCH --original-python PYTHON

The official loop asks eight questions of every image, empty ones too, and encodes the image for each.
With --original it is T2I-CompBench's own code, run by an interpreter with the versions that
tests/golden/blip_vqa/make.py names, in one batch of all images for each question. Without, it is the same
loop over transformers' modules, image by image, and is named so. Each side is a process of its own with one
thread; they take turns on the same pictures and questions, and what counts is the CPU time of the process,
reading and resizing the picture included. Their answers are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

OURS, ORIGINAL, MODULES = "ours", "official code", "official loop, transformers modules"
SEED = 7
NUM_QUESTIONS = 8
IMAGE_SIZE = 480

# noun phrases a prompt: two is the commonest count of the attribute prompts, eight the most that is asked
PROMPTS = {
    2: ("a green bench", "a blue bowl"),
    8: (
        "a red book",
        "the round glass table",
        "a wooden chair",
        "the black cat",
        "an oval rug",
        "a yellow banana and the pink vase",
        "it",
        "the fluffy white dog",
    ),
}

Answer = Callable[[list[str], tuple[str, ...]], list[list[float]]]


# ---- the two sides ---------------------------------------------------------------------------------------


def our_answers(checkpoint: Path, vocab: Path) -> Answer:
    """Every image encoded once, its questions in batches of one length."""
    network = _our_network(checkpoint, vocab)

    def answer(images: list[str], questions: tuple[str, ...]) -> list[list[float]]:
        return [network.yes_probabilities(_read(image), questions) for image in images]

    return answer


def module_answers(checkpoint: Path, vocab: Path) -> Answer:
    """The official loop over transformers' modules: an image is encoded for each of eight questions."""
    network = _our_network(checkpoint, vocab)

    def answer(images: list[str], questions: tuple[str, ...]) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in images]
        for i in range(NUM_QUESTIONS):
            for place, image in enumerate(images):
                question = questions[i] if i < len(questions) else ""
                found[place] += network.yes_probabilities(_read(image), [question])
        return [values[: len(questions)] for values in found]

    return answer


def original_answers(repository: Path, checkpoint: Path, vocab: Path, scratch: Path) -> Answer:
    """T2I-CompBench's own code: its reading of images, its model, a batch of all images for each question."""
    import torch

    from bench.scorers.blip_vqa import BASE
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    from tests.golden.blip_vqa.make import load_original

    model, create_dataset = load_original(repository, vocab, BASE, checkpoint, scratch)
    unrounded: list[torch.Tensor] = []
    vqa_prob = model.vqa_prob
    model.vqa_prob = lambda *given: unrounded.append(vqa_prob(*given)) or unrounded[-1]

    @torch.no_grad()
    def answer(images: list[str], questions: tuple[str, ...]) -> list[list[float]]:
        unrounded.clear()
        for i in range(NUM_QUESTIONS):
            question = questions[i] if i < len(questions) else ""
            rows = [
                {"image": image, "question": question, "question_id": k, "dataset": "color"}
                for k, image in enumerate(images)
            ]
            (scratch / "vqa_test.json").write_text(json.dumps(rows))
            folders = {"ann_root": str(scratch), "vqa_root": "", "vg_root": "", "image_size": IMAGE_SIZE}
            dataset, _ = create_dataset("vqa", folders)
            batch = [dataset[k] for k in range(len(dataset))]
            pixels = torch.stack([values for values, _, _ in batch])
            model(pixels, [text for _, text, _ in batch], train=False, inference="vqa_prob")
        by_question = [values.tolist() for values in unrounded[: len(questions)]]
        return [list(values) for values in zip(*by_question, strict=True)]

    return answer


def _our_network(checkpoint: Path, vocab: Path) -> Any:
    from bench.scorers.blip_vqa import BlipVqa, QuestionTokenizer, build_network, load_state, read_vocab

    state, architecture = load_state(checkpoint, weights="blip-vqa", image_size=IMAGE_SIZE, random=False)
    network = build_network(state, architecture, IMAGE_SIZE)
    return BlipVqa(network, QuestionTokenizer(read_vocab(vocab)), IMAGE_SIZE)


def _read(image: str) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(image) as file:
        return np.asarray(file.convert("RGB"))


def work(side: str, folder: Path, repository: Path | None) -> None:
    """A side as a process: a line of JSON in, a line of answers and times out, until stdin ends."""
    import torch

    torch.set_num_threads(1)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    checkpoint, vocab = folder / "random.pth", folder / "vocab.txt"
    if side == ORIGINAL:
        assert repository is not None
        scratch = folder / "original"
        scratch.mkdir()
        answer = original_answers(repository, checkpoint, vocab, scratch)
    else:
        answer = (our_answers if side == OURS else module_answers)(checkpoint, vocab)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        answers = answer(task["images"], tuple(task["questions"]))
        times = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        print(json.dumps({"answers": answers, **times}), file=replies, flush=True)


# ---- measuring -------------------------------------------------------------------------------------------


class Side:
    """A process that answers."""

    def __init__(self, name: str, python: str, folder: Path, repository: Path | None) -> None:
        self.name = name
        command = [python, __file__, "--side", name, "--folder", str(folder)]
        if repository is not None:
            command += ["--original", str(repository)]
        single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **single},
        )
        self._reply()

    def ask(self, images: list[str], questions: list[str]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"images": images, "questions": questions}) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of '{self.name}' failed: {self._process.wait()}; see its message above")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def prepare(folder: Path, num_images: int) -> list[str]:
    """Weights, vocabulary and pictures of 512 x 512, as text-to-image systems make them."""
    import numpy as np
    import torch
    from PIL import Image

    from bench.scorers.blip_vqa import BASE, VOCAB_ID, random_state, random_weights

    torch.save({"model": random_state(BASE, IMAGE_SIZE, seed=SEED)}, folder / "random.pth")
    random_weights(VOCAB_ID, folder / "vocab.txt", seed=0)
    rng = np.random.RandomState(SEED)
    images = []
    for i in range(num_images):
        coarse = rng.randint(0, 256, (16, 16, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((512, 512), Image.Resampling.BILINEAR)
        picture.save(folder / f"{i}.png")
        images.append(str(folder / f"{i}.png"))
    return images


def measure(sides: list[Side], images: list[str], phrases: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """CPU seconds an image of each side: the median of rounds in which they take turns."""
    questions = [f"{phrase}?" for phrase in phrases]
    replies: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for i in range(rounds):
        for side in sides if i % 2 == 0 else sides[::-1]:
            replies[side.name].append(side.ask(images, questions))
    cpu = {
        name: statistics.median(reply["cpu_s"] for reply in found) / len(images)
        for name, found in replies.items()
    }
    first, second = (found[0]["answers"] for found in replies.values())
    apart = max(abs(a - b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    ours, theirs = (cpu[side.name] for side in sides)
    return {
        "phrases": len(phrases),
        "cpu_s_per_image": cpu,
        "images_per_cpu_s": {name: 1 / seconds for name, seconds in cpu.items()},
        "cpu_s_of_rounds": {name: [reply["cpu_s"] for reply in found] for name, found in replies.items()},
        "speedup": theirs / ours,
        "largest_difference": apart,
    }


def print_table(found: list[dict[str, Any]], official: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="BLIP-VQA, full-size random weights, one thread", title_justify="left")
    for name in (
        "phrases",
        f"{OURS}: images/CPU s",
        f"{official}: images/CPU s",
        "speedup",
        "answers differ by",
    ):
        table.add_column(name, justify="right")
    for row in found:
        rates = row["images_per_cpu_s"]
        table.add_row(
            str(row["phrases"]),
            f"{rates[OURS]:.4f}",
            f"{rates[official]:.4f}",
            f"{row['speedup']:.2f}x",
            f"{row['largest_difference']:.1e}",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, help="a checkout of Karine-Huang/T2I-CompBench")
    parser.add_argument("--original-python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        work(arguments.side, arguments.folder, arguments.original)
        return
    if arguments.images < 1 or arguments.rounds < 1:
        parser.error("--images and --rounds must be >= 1")
    official = ORIGINAL if arguments.original else MODULES
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = prepare(folder, arguments.images)
        sides = [
            Side(OURS, sys.executable, folder, None),
            Side(official, arguments.original_python, folder, arguments.original),
        ]
        found = [measure(sides, images, phrases, arguments.rounds) for phrases in PROMPTS.values()]
        for side in sides:
            side.close()
    print_table(found, official)
    import torch

    result = {
        "machine": platform.machine(),
        "torch": torch.__version__,
        "images": arguments.images,
        "rounds": arguments.rounds,
        "official": official,
        "results": found,
    }
    print(json.dumps(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
