"""Store what the original BLIP-VQA of T2I-CompBench says of a few pictures and questions.

    python make.py T2I-COMPBENCH VOCAB          # small.json: small random weights, 14 questions
    python make.py T2I-COMPBENCH VOCAB --full   # full.json: the full-size network, 5 min of one core, 4 GB

T2I-COMPBENCH: a checkout of Karine-Huang/T2I-CompBench. VOCAB: vocab.txt of bert-base-uncased; `small` needs
none of its words and takes `-`. Run with the versions that the original pins where they matter: transformers
4.30.2, tokenizers 0.13.3, timm 0.4.12; torch may be new. The weights and pictures are drawn here from a seed
by bench.scorers.blip_vqa.random_state, as the tests draw them again; only answers are stored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
import types
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from bench.scorers.blip_vqa import BASE, SMALL, VOCAB_ID, random_state, random_weights  # noqa: E402
from gentron.torchvision_ops import prepare_torchvision  # noqa: E402

SEED = 5
IMAGE_SIZE = 480

QUESTIONS = (
    "a green bench?",
    "a blue bowl?",
    "The Fluffy Dog?",
    "the left?",
    "it?",
    "a wooden, rectangular table - with the cat's book?",
    "a clock that reads 11:44. (yes!)?",
    "an oval coffee table and an oval rug and the red vase of a very very very old silver metallic chair?",
    "a café naïve Ünïcode 日本 bench\u00a0bag?",
    " two  spaces?",
    "leather leather leather leather leather leather leather leather?",
    "!!!",
    "",
    " ".join(["red"] * 60) + "?",
)
FULL_QUESTIONS = QUESTIONS[:3] + QUESTIONS[5:8]


def pictures() -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 of several forms: soft blobs, noise, a grey ramp, one pixel, one colour."""
    rng = np.random.RandomState(SEED)

    def blobs(height: int, width: int) -> np.ndarray:
        coarse = rng.randint(0, 256, (5, 7, 3)).astype(np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))

    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[:, None], 60, 1)
    return {
        "blobs_512x512": blobs(512, 512),
        "blobs_97x333": blobs(97, 333),
        "blobs_480x480": blobs(480, 480),
        "noise_640x360": rng.randint(0, 256, (640, 360, 3)).astype(np.uint8),
        "grey_90x60": np.repeat(ramp[:, :, None], 3, 2),
        "pixel_1x1": np.array([[[200, 30, 90]]], np.uint8),
        "red_32x32": np.full((32, 32, 3), (255, 0, 0), np.uint8),
    }


def state_digest(state: dict[str, torch.Tensor]) -> str:
    """To tell weights drawn otherwise from a network that answers otherwise."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _stub(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


@contextmanager
def original(repository: Path, vocab: Path, architecture: Any, med_config: Path) -> Any:
    """The original modules: (BLIP_VQA, create_dataset), their vision tower and vocabulary taken from here."""
    # training only: memory saving, and augmentation (needs OpenCV)
    _stub("fairscale")
    _stub("fairscale.nn")
    _stub("fairscale.nn.checkpoint")
    _stub("fairscale.nn.checkpoint.checkpoint_activations", checkpoint_wrapper=lambda module: module)
    _stub("transform")
    _stub("transform.randaugment", RandomAugment=lambda *arguments, **options: None)
    sys.path.insert(0, str(repository / "BLIPvqa_eval"))
    import data as original_data  # pyright: ignore[reportMissingImports]
    from models import blip, blip_vqa, vit  # pyright: ignore[reportMissingImports]
    from transformers import BertTokenizer

    # the hub's name of the vocabulary; what is done with the tokenizer stays the original's
    local = BertTokenizer(str(vocab), do_lower_case=True)
    blip.BertTokenizer = types.SimpleNamespace(from_pretrained=lambda name: local)
    if architecture != BASE:

        def create_vit(kind: str, image_size: int, *rest: Any, **options: Any) -> tuple[Any, int]:
            tower = vit.VisionTransformer(
                img_size=image_size,
                patch_size=architecture.patch_size,
                embed_dim=architecture.hidden_size,
                depth=architecture.num_layers,
                num_heads=architecture.num_heads,
                mlp_ratio=architecture.intermediate_size / architecture.hidden_size,
            )
            return tower, architecture.hidden_size

        blip_vqa.create_vit = create_vit
    config = json.loads((repository / "BLIPvqa_eval/configs/med_config.json").read_text())
    sizes = {
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.intermediate_size,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
        "encoder_width": architecture.hidden_size,
        "max_position_embeddings": architecture.max_positions,
    }
    med_config.write_text(json.dumps(config | sizes))
    yield blip_vqa, original_data.create_dataset


def load_original(repository: Path, vocab: Path, architecture: Any, checkpoint: Path, scratch: Path) -> Any:
    """(model, create_dataset) of the original, the checkpoint loaded by the original's loader."""
    with original(repository, vocab, architecture, scratch / "med_config.json") as (module, create_dataset):
        model = module.blip_vqa(
            pretrained=str(checkpoint),
            image_size=IMAGE_SIZE,
            vit="base",
            med_config=str(scratch / "med_config.json"),
        )
    return model.eval(), create_dataset


@torch.no_grad()
def answers(
    model: Any, create_dataset: Any, images: dict[str, np.ndarray], questions: tuple[str, ...], scratch: Path
) -> dict[str, Any]:
    """Per picture the probabilities and their text, all questions in one padded batch as in the original.

    Once more in double precision: single precision of two machines differs by about as much as is allowed.
    """
    unrounded: list[torch.Tensor] = []
    vqa_prob = model.vqa_prob
    model.vqa_prob = lambda *given: unrounded.append(vqa_prob(*given)) or unrounded[-1]
    found: dict[str, Any] = {"probability": {}, "double": {}, "text": {}, "token_ids": []}
    for name, image in images.items():
        Image.fromarray(image).save(scratch / f"{name}.png")
        rows = [
            {"image": str(scratch / f"{name}.png"), "question": q, "question_id": i, "dataset": "color"}
            for i, q in enumerate(questions)
        ]
        (scratch / "vqa_test.json").write_text(json.dumps(rows))
        folders = {"ann_root": str(scratch), "vqa_root": "", "vg_root": "", "image_size": IMAGE_SIZE}
        dataset, _ = create_dataset("vqa", folders)
        batch = [dataset[i] for i in range(len(dataset))]
        texts = [question for _, question, _ in batch]
        pixels = torch.stack([x for x, _, _ in batch])
        strings = model.float()(pixels, texts, train=False, inference="vqa_prob")
        found["probability"][name] = unrounded[-1].tolist()
        model.double()(pixels.double(), texts, train=False, inference="vqa_prob")
        found["double"][name] = unrounded[-1].tolist()
        found["text"][name] = strings
        found["token_ids"] = [
            [model.tokenizer.enc_token_id, *model.tokenizer(t, truncation=True, max_length=35).input_ids[1:]]
            for t in texts
        ]
        print(name, strings, flush=True)
    return found


def products() -> list[dict[str, Any]]:
    """The original's product of an image's answers (BLIP_vqa.py), its arithmetic in torch."""
    rng = np.random.RandomState(SEED)
    cases = []
    for count in (1, 2, 3, 8, 8, 8, 8, 8):
        values = 1 - rng.random_sample(count) ** 3
        strings = [f"{value:.4f}" for value in torch.tensor(values, dtype=torch.float32)]
        reward = torch.ones(1, 8)
        for i, text in enumerate(strings):
            reward[0][i] = float(text)
        final = reward[:, 0]
        for i in range(1, 8):
            final *= reward[:, i]
        cases.append({"values": values.tolist(), "answer": f"{final[0].item():.4f}"})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("vocab", type=Path)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    prepare_torchvision()
    import timm
    import transformers

    torch.set_num_threads(1)
    architecture = BASE if arguments.full else SMALL
    images, questions = pictures(), QUESTIONS
    if arguments.full:
        images = {name: images[name] for name in ("blobs_512x512", "noise_640x360", "pixel_1x1")}
        questions = FULL_QUESTIONS
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        vocab = arguments.vocab
        if not arguments.full:
            vocab = scratch / "vocab.txt"
            random_weights(VOCAB_ID, vocab, seed=0)
        state = random_state(architecture, IMAGE_SIZE, seed=SEED)
        torch.save({"model": state}, scratch / "random.pth")
        model, create_dataset = load_original(
            arguments.repository, vocab, architecture, scratch / "random.pth", scratch
        )
        found = answers(model, create_dataset, images, questions, scratch)
    result = {
        "command": f"python make.py T2I-COMPBENCH {'VOCAB --full' if arguments.full else '-'}",
        "versions": {
            "T2I-CompBench": "1b7094991a57f3c22abdd4f6e8ba6c1a15517073",
            "transformers": transformers.__version__,
            "timm": timm.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "architecture": asdict(architecture),
        "seed": SEED,
        "state_sha256": state_digest(state),
        "questions": questions,
        **found,
        **({} if arguments.full else {"products": products()}),
    }
    name = "full.json" if arguments.full else "small.json"
    (HERE / name).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
