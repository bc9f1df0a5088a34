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
import importlib
import json
import platform
import sys
import tempfile
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from bench.scorers.blip_vqa import (  # noqa: E402
    BASE,
    SMALL,
    VOCAB_ID,
    Architecture,
    random_state,
    random_weights,
)
from gentron.torchvision_ops import prepare_torchvision  # noqa: E402
from tests.golden.blip_vqa.cases import (  # noqa: E402
    FULL_PICTURES,
    FULL_QUESTIONS,
    IMAGE_SIZE,
    QUESTIONS,
    SEED,
    pictures,
    state_digest,
)


def _stub(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


def load_original(
    repository: Path, vocab: Path, architecture: Architecture, checkpoint: Path, scratch: Path
) -> tuple[Any, Any]:
    """The original's model, with the checkpoint that the original's loader reads, and its create_dataset.

    Its vision tower is made smaller where the architecture is, and its vocabulary is a file here.
    """
    # for training only: memory saving, and augmentation (needs OpenCV)
    _stub("fairscale")
    _stub("fairscale.nn")
    _stub("fairscale.nn.checkpoint")
    _stub("fairscale.nn.checkpoint.checkpoint_activations", checkpoint_wrapper=lambda module: module)
    _stub("transform")
    _stub("transform.randaugment", RandomAugment=lambda *arguments, **options: None)
    sys.path.insert(0, str(repository / "BLIPvqa_eval"))
    original_data = importlib.import_module("data")  # the checkout's, whatever else is called so here
    from models import blip, blip_vqa, vit  # pyright: ignore[reportMissingImports]
    from transformers import BertTokenizer

    # in place of the hub's; what is done with the tokenizer stays the original's
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
    med_config = scratch / "med_config.json"
    med_config.write_text(json.dumps(config | sizes))
    model = blip_vqa.blip_vqa(
        pretrained=str(checkpoint), image_size=IMAGE_SIZE, vit="base", med_config=str(med_config)
    )
    return model.eval(), original_data.create_dataset


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
    """The original's product of an image's answers (BLIP_vqa.py), its arithmetic in torch.

    Most are chosen so that double precision would be rounded to another answer.
    """
    rng = np.random.RandomState(SEED)
    cases = []
    while len(cases) < 12:
        values = np.round(rng.random_sample(rng.randint(1, 9)), rng.randint(2, 6))
        strings = [f"{value:.4f}" for value in torch.tensor(values, dtype=torch.float32)]
        reward = torch.ones(1, 8)
        for i, text in enumerate(strings):
            reward[0][i] = float(text)
        final = reward[:, 0]
        for i in range(1, 8):
            final *= reward[:, i]
        answer = f"{final[0].item():.4f}"
        exact = f"{np.prod([float(text) for text in strings]):.4f}"
        if answer != exact or len(cases) < 4:
            cases.append({"values": values.tolist(), "answer": answer, "in_double": exact})
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
        images = {name: images[name] for name in FULL_PICTURES}
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
        theirs = {
            name: list(tensor.shape)
            for name, tensor in model.state_dict().items()
            if not name.endswith("position_ids")
        }
        assert theirs == {
            name: list(tensor.shape) for name, tensor in state.items()
        }  # its loader would not say
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
        "num_tensors": len(theirs),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "questions": questions,
        **found,
        **({} if arguments.full else {"products": products()}),
    }
    name = "full.json" if arguments.full else "small.json"
    (HERE / name).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
