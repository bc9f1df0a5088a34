"""T2I-CompBench's BLIP-VQA score: `blip_vqa` (colour, shape, texture; the attributes of complex prompts).

Every noun phrase of the prompt becomes a question ("a green bench?"); BLIP's probability of "yes" against
"no" is rounded to four decimals, and the score is the product of the phrases' values. The network is
transformers' BlipForQuestionAnswering, called part by part with the published checkpoint's sizes, and equals
the original code to 1e-6 (tests/golden/blip_vqa). What it takes for equal numbers, [Q] marking a quirk of the
official evaluator:
- the checkpoint of 480 x 480 pixels; the hub's conversion has shrunk its position table to 384 for good
- 12 text heads and a LayerNorm eps of 1e-6 in the image encoder (the classes' defaults are 8 and 1e-5)
- [CLS] of the question replaced by [ENC]; the decoder starts from [DEC] and sees the question's states
- PIL bicubic to a square; fp32
- no padding: the decoder of transformers attends to padded positions, so only questions of equal length share
  a batch
- [Q] a prompt without noun phrases scores 1; phrases beyond np_num are ignored; the product is float32
The image is encoded once for all its questions, its keys and values of the text encoder's layers too.
"""

# Q questions of one length, L tokens of a question, N image tokens (901), D hidden size

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.prompts import Prompt
from bench.scorers import Context, Scored, ScorerRecord
from bench.weights import Located, locate
from gentron.config import from_dict, to_dict
from gentron.errors import UserError

if TYPE_CHECKING:
    from transformers import BlipForQuestionAnswering

NAME = "blip_vqa"
VERSION = 1  # a change of any score is a new version

# docs/t2i-compbench.md 2.1: pre_question, tokens
DELETED = re.compile(r'[.!"()*#:;~]')
MAX_WORDS = 50
MAX_TOKENS = 35
# bert-base-uncased, then the two that BLIP adds
CLS, SEP = 101, 102
NO, YES = 2053, 2748
DEC, ENC = 30522, 30523
VOCAB_SIZE = 30524

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

IMAGE_SIZES = {"blip-vqa": 480, "blip-vqa-hf384": 384}
VOCAB_ID = "bert-vocab"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The protocol's part of the scorer.

    np_num: questions asked of a prompt at most; 8 in the published tables.
    dropped_chunks: noun phrases that are not asked, equal to the letter.
    weights: "blip-vqa-hf384", the hub's conversion, gives other numbers than the official checkpoint.
    """

    np_num: int
    dropped_chunks: tuple[str, ...]
    image_size: int = 480
    weights: Literal["blip-vqa", "blip-vqa-hf384"] = "blip-vqa"

    def __post_init__(self) -> None:
        if self.np_num < 1:
            raise ValueError(f"np_num must be >= 1, got {self.np_num}")
        if self.image_size != IMAGE_SIZES[self.weights]:
            expected = IMAGE_SIZES[self.weights]
            raise ValueError(
                f"image_size must be {expected} for weights {self.weights}, got {self.image_size}"
            )


class NounPhrases(Protocol):
    """What this scorer needs of bench.scorers.phrases.PhraseSource."""

    @property
    def record(self) -> dict[str, Any]: ...

    def parse(self, text: str) -> Any:
        """Something with `chunks`: the noun phrases of the text in order."""
        ...


# ---- questions and the score: no network -----------------------------------------------------------------


def phrases_asked(chunks: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """The noun phrases that become questions: those not dropped, in order, np_num of them at most."""
    kept = (chunk for chunk in chunks if chunk not in settings.dropped_chunks)
    return tuple(kept)[: settings.np_num]


def clean_question(question: str) -> str:
    """What BLIP does to a question before its tokens: lower case, no marks but ? , - ', at most 50 words."""
    text = DELETED.sub("", question.lower()).rstrip(" ")
    return " ".join(text.split(" ")[:MAX_WORDS])


def rounded(probability: float) -> float:
    """The official evaluator passes probabilities on as text of four decimals."""
    return float(f"{probability:.4f}")


def combine(probabilities: Sequence[float]) -> float:
    """The score of an image: the product of its rounded values in float32 from left to right, rounded again.

    1 where there is none: a question not asked counts as 1.
    """
    product = np.float32(1)
    for probability in probabilities:
        product *= np.float32(rounded(probability))
    return rounded(float(product))


# ---- checkpoint ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Sizes that a checkpoint must have; those of image encoder, text encoder and decoder are the same."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    max_positions: int


BASE = Architecture(
    hidden_size=768, intermediate_size=3072, num_layers=12, num_heads=12, patch_size=16, max_positions=512
)
# 480 and 384 pixels hold whole patches of 96, so that rehearsals keep the real picture sizes
SMALL = Architecture(
    hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2, patch_size=96, max_positions=48
)


def original_shapes(architecture: Architecture, image_size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint's tensors, buffers left out."""
    width, inner, patch = architecture.hidden_size, architecture.intermediate_size, architecture.patch_size

    def linear(name: str, n_out: int, n_in: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    shapes: dict[str, tuple[int, ...]] = {
        "visual_encoder.cls_token": (1, 1, width),
        "visual_encoder.pos_embed": (1, (image_size // patch) ** 2 + 1, width),
        "visual_encoder.patch_embed.proj.weight": (width, 3, patch, patch),
        "visual_encoder.patch_embed.proj.bias": (width,),
    }
    for i in range(architecture.num_layers):
        block = f"visual_encoder.blocks.{i}"
        shapes |= norm(f"{block}.norm1")
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width)
        shapes |= linear(f"{block}.attn.proj", width, width)
        shapes |= norm(f"{block}.norm2")
        shapes |= linear(f"{block}.mlp.fc1", inner, width)
        shapes |= linear(f"{block}.mlp.fc2", width, inner)
    shapes |= norm("visual_encoder.norm")
    for text in ("text_encoder", "text_decoder.bert"):
        shapes[f"{text}.embeddings.word_embeddings.weight"] = (VOCAB_SIZE, width)
        shapes[f"{text}.embeddings.position_embeddings.weight"] = (architecture.max_positions, width)
        shapes |= norm(f"{text}.embeddings.LayerNorm")
        for i in range(architecture.num_layers):
            layer = f"{text}.encoder.layer.{i}"
            for attention in ("attention", "crossattention"):
                for part in ("query", "key", "value"):
                    shapes |= linear(f"{layer}.{attention}.self.{part}", width, width)
                shapes |= linear(f"{layer}.{attention}.output.dense", width, width)
                shapes |= norm(f"{layer}.{attention}.output.LayerNorm")
            shapes |= linear(f"{layer}.intermediate.dense", inner, width)
            shapes |= linear(f"{layer}.output.dense", width, inner)
            shapes |= norm(f"{layer}.output.LayerNorm")
    head = "text_decoder.cls.predictions"
    shapes[f"{head}.bias"] = (VOCAB_SIZE,)
    shapes |= linear(f"{head}.transform.dense", width, width)
    shapes |= norm(f"{head}.transform.LayerNorm")
    shapes |= linear(f"{head}.decoder", VOCAB_SIZE, width)
    return shapes


# the decoder's output layer shares these tensors; a safetensors file holds them once
TIED = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}

_RENAMED = (
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.norm.", "vision_model.post_layernorm."),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.proj.", ".self_attn.projection."),
    (".attn.", ".self_attn."),
)


def hub_name(name: str) -> str:
    """A tensor's name in transformers from its name in the published checkpoint; text names are the same."""
    if name.startswith("visual_encoder."):
        for old, new in _RENAMED:
            name = name.replace(old, new)
    return name


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The state dict of a .pth (under `model`) or a safetensors file, and the architecture it may carry."""
    with path.open("rb") as file:
        is_torch = file.read(2) in (b"PK", b"\x80\x02")  # a zip, or the pickle of torch before 1.6
    try:
        if is_torch:
            data = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(data, dict):
                data = {"model": data}
            state, architecture = data.get("model", data), data.get("architecture")
        else:
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}
                carried = (file.metadata() or {}).get("architecture")
            architecture = json.loads(carried) if carried is not None else None
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # zip, pickle and safetensors have each their own for a broken file
        raise UserError(
            f"cannot read '{path}' as weights of BLIP ({_first_line(error)}); is the download whole?"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"'{path}' holds no state dict of BLIP: expected tensors by name, under 'model'")
    return {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}, architecture


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def load_state(
    path: Path, *, weights: str, image_size: int, random: bool
) -> tuple[dict[str, Tensor], Architecture]:
    """Tensors by their transformers names, and the sizes they are of.

    random: the file is marked as random weights, and only then may it bring sizes of its own.
    UserError if tensors are missing, unexpected, of another shape or not float32.
    """
    state, carried = _read_tensors(path)
    if carried is not None and not random:
        raise UserError(
            f"'{path}' holds random weights for rehearsals, not the published ones of '{weights}'"
        )
    architecture = BASE if carried is None else from_dict(Architecture, carried, path="architecture")
    expected = original_shapes(architecture, image_size)
    is_hub = weights == "blip-vqa-hf384"
    if is_hub:
        expected = {hub_name(name): shape for name, shape in expected.items()}
        for tied, source in TIED.items():
            if tied not in state and source in state:
                state[tied] = state[source]
    elif any(name.startswith("vision_model.") for name in state):
        raise UserError(
            f"'{path}' holds the hub's conversion, which gives other numbers than the published checkpoint:"
            " add it as 'blip-vqa-hf384', or get model_base_vqa_capfilt_large.pth"
        )
    _check_shapes(path, state, expected)
    for tied, source in TIED.items():
        if not torch.equal(state[tied], state[source]):
            raise UserError(f"'{path}': {tied} differs from {source}, which BLIP shares: not its weights")
    return {hub_name(name): tensor for name, tensor in state.items()}, architecture


def _check_shapes(path: Path, state: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    wrong = [
        f"{name} is {tuple(state[name].shape)} {str(state[name].dtype).removeprefix('torch.')},"
        f" expected {shape} float32"
        for name, shape in expected.items()
        if name in state and (tuple(state[name].shape) != shape or state[name].dtype != torch.float32)
    ]
    found = (
        ("missing", [name for name in expected if name not in state]),
        ("unexpected", [name for name in state if name not in expected]),
        ("of another form", wrong),
    )
    faults = [
        f"{len(names)} {what} ({names[0]}{', ...' if names[1:] else ''})" for what, names in found if names
    ]
    if faults:
        raise UserError(f"'{path}' is not BLIP VQA: of {len(expected)} tensors {', '.join(faults)}")


def build_network(state: dict[str, Tensor], architecture: Architecture, image_size: int) -> Any:
    """transformers' BlipForQuestionAnswering with these tensors, in evaluation mode.

    Built without memory and given the tensors themselves: 1.4 GB once, and no random initialisation.
    """
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    from transformers import BlipConfig, BlipForQuestionAnswering

    sizes: dict[str, Any] = {
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.intermediate_size,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
    }
    text = {
        **sizes,
        "vocab_size": VOCAB_SIZE,
        "encoder_hidden_size": architecture.hidden_size,
        "max_position_embeddings": architecture.max_positions,
        "layer_norm_eps": 1e-12,
    }
    vision = {
        **sizes,
        "image_size": image_size,
        "patch_size": architecture.patch_size,
        "layer_norm_eps": 1e-6,
    }
    with torch.device("meta"):
        network = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision))
    network.load_state_dict(state, strict=True, assign=True)
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            assert name == "position_ids", f"unknown buffer {name}"
            setattr(module, name, torch.arange(buffer.shape[-1]).expand(1, -1))
    return network.eval().requires_grad_(False)


# ---- tokens ----------------------------------------------------------------------------------------------


def read_vocab(path: Path) -> dict[str, int]:
    """Word pieces -> ids of bert-base-uncased; UserError if it is another vocabulary."""
    try:
        pieces = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not a vocabulary: expected UTF-8 text ({error})") from error
    if pieces[-1] == "":
        pieces.pop()
    vocab = {piece: id for id, piece in enumerate(pieces)}
    expected = {"[PAD]": 0, "[UNK]": 100, "[CLS]": CLS, "[SEP]": SEP, "no": NO, "yes": YES}
    if len(vocab) != DEC or any(vocab.get(piece) != id for piece, id in expected.items()):
        raise UserError(
            f"'{path}' is not the vocabulary of bert-base-uncased: expected {DEC} pieces with 'yes' at {YES},"
            f" got {len(vocab)} with 'yes' at {vocab.get('yes')}"
        )
    return vocab


class QuestionTokenizer:
    """Cleaned questions -> token ids as the original makes them, [ENC] in the place of [CLS]."""

    def __init__(self, vocab: dict[str, int]) -> None:
        from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

        self._pieces = BertWordPieceTokenizer(vocab=vocab, lowercase=True)

    def __call__(self, question: str) -> list[int]:
        """At most 35 ids, the last of them [SEP]."""
        pieces = self._pieces.encode(question, add_special_tokens=False).ids
        return [ENC, *pieces[: MAX_TOKENS - 2], SEP]


# ---- network ---------------------------------------------------------------------------------------------


def pixels(image: np.ndarray, image_size: int) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, image_size, image_size) float32: PIL bicubic, no crop, normalised."""
    square = Image.fromarray(image).resize((image_size, image_size), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous().float() / 255
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((values - mean) / std)[None]


class _OncePerImage(torch.nn.Module):
    """A layer that is asked again with the tensor it was just given answers from memory."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self._layer = layer
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, states: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not states:
            self._last = (states, self._layer(states))
        return self._last[1]


class BlipVqa:
    """BLIP's image and text parts, called as the original calls them."""

    def __init__(
        self,
        network: BlipForQuestionAnswering,
        tokenizer: Callable[[str], list[int]],
        image_size: int,
        device: str = "cpu",
    ) -> None:
        self._network = network
        self._network.to(torch.device(device))  # pyright: ignore[reportArgumentType]
        self._tokenizer = tokenizer
        self._image_size = image_size
        self._device = torch.device(device)
        text_encoder: Any = network.text_encoder
        for layer in text_encoder.encoder.layer:
            # keys and values of 901 image tokens cost more than all else about a question
            attention = layer.crossattention.self
            attention.key, attention.value = _OncePerImage(attention.key), _OncePerImage(attention.value)

    def yes_probabilities(self, image: np.ndarray, questions: Sequence[str]) -> list[float]:
        """p(yes) / (p(yes) + p(no)) of each question; image: (H, W, 3) uint8.

        Questions are cleaned here. The image is encoded once, not at all without questions.
        """
        if not questions:
            return []
        tokens = [self._tokenizer(clean_question(question)) for question in questions]
        found = [0.0] * len(questions)
        with torch.inference_mode(), _exact_convolutions():
            image_states = self.encode_image(image)
            for length in sorted({len(ids) for ids in tokens}):
                places = [i for i, ids in enumerate(tokens) if len(ids) == length]
                ids = torch.tensor([tokens[i] for i in places], device=self._device)
                for i, probability in zip(places, self._ask(image_states, ids).tolist(), strict=True):
                    found[i] = probability
        if not np.isfinite(found).all():
            raise UserError("BLIP gives no finite probability for this picture: its weights are broken")
        return found

    def encode_image(self, image: np.ndarray) -> Tensor:
        """(1, N, D): the tokens of the image after the last norm."""
        values = pixels(image, self._image_size).to(self._device, self._network.dtype)
        return self._network.vision_model(values)[0]

    def _ask(self, image_states: Tensor, ids: Tensor) -> Tensor:
        """(Q,) probabilities of unpadded questions. image_states: (1, N, D).   ids: (Q, L)."""
        # one image, many questions: its keys and values are broadcast over the batch
        states = self._network.text_encoder(input_ids=ids, encoder_hidden_states=image_states)[0]
        starts = torch.full((len(ids), 1), DEC, device=ids.device)
        decoded = self._network.text_decoder(input_ids=starts, encoder_hidden_states=states, use_cache=False)
        both = decoded.logits[:, 0].softmax(dim=1)[:, [YES, NO]]
        return both[:, 0] / (both[:, 0] + both[:, 1])


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """fp32 on a GPU too, where cuDNN's convolutions default to TF32; nothing on a CPU."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


# ---- scorer ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlipVqaScorer:
    """Scores an image against the noun phrases of its prompt."""

    record: ScorerRecord
    settings: Settings
    network: BlipVqa = field(repr=False)
    phrases: NounPhrases = field(repr=False)

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        asked = phrases_asked(self.phrases.parse(prompt.text).chunks, self.settings)
        questions = [f"{phrase}?" for phrase in asked]
        probabilities = [rounded(p) for p in self.network.yes_probabilities(image, questions)]
        answers = list(zip(questions, probabilities, strict=True))
        return Scored(
            score=combine(probabilities),
            reason=" · ".join(f"{question} {_short(p)}" for question, p in answers)
            or "no noun phrase in the prompt: 1 by the official rule",
            parts={"num_phrases": float(len(asked))},
            evidence={"questions": [{"question": q, "probability": p} for q, p in answers]},
        )


def _short(probability: float) -> str:
    return f"{probability:.2f}".removeprefix("0")


@lru_cache(maxsize=1)
def load_network(located: Located, vocab: Located, image_size: int, device: str) -> BlipVqa:
    """The network of these files. The last one is kept: 3-in-1 asks what color, shape and texture ask."""
    state, architecture = load_state(
        located.path, weights=located.id, image_size=image_size, random=located.random
    )
    network = build_network(state, architecture, image_size)
    return BlipVqa(network, QuestionTokenizer(read_vocab(vocab.path)), image_size, device)


def build(settings: dict[str, Any], context: Context) -> BlipVqaScorer:
    """The scorer of a protocol; MissingWeights before anything heavy is loaded."""
    from bench.scorers.phrases import phrase_source

    chosen = from_dict(Settings, settings, path=f"scorers.{NAME}")
    located = locate(chosen.weights, context.models)
    vocab = locate(VOCAB_ID, context.models)
    phrases = phrase_source(context.phrases, texts=[prompt.text for prompt in context.prompts])
    network = load_network(located, vocab, chosen.image_size, context.device)
    record = ScorerRecord(
        name=NAME,
        version=VERSION,
        weights={located.id: located.sha256, vocab.id: vocab.sha256},
        random_weights=located.random or vocab.random,
        settings={**to_dict(chosen), "precision": "float32", "phrases": phrases.record},
    )
    return BlipVqaScorer(record, chosen, network, phrases)


# ---- weights: checks and rehearsals ----------------------------------------------------------------------


def check_keys(id: str, path: Path) -> None:
    """UserError if the file is not what a loader of this module takes for `id`."""
    if id == VOCAB_ID:
        read_vocab(path)
    else:
        load_state(path, weights=id, image_size=IMAGE_SIZES[id], random=False)


def random_state(architecture: Architecture, image_size: int, *, seed: int) -> dict[str, Tensor]:
    """A checkpoint's tensors, under their published names, drawn so that answers differ much between
    questions and pictures: a network near its usual initialisation would say 0.5 to everything."""
    rng = np.random.RandomState(seed)  # its stream is frozen, golden outputs rest on it
    state: dict[str, Tensor] = {}
    for name, shape in original_shapes(architecture, image_size).items():
        if name in TIED:
            continue
        values = rng.standard_normal(shape).astype(np.float32)
        if "embeddings.weight" in name or name.endswith(("cls_token", "pos_embed")):
            values *= architecture.hidden_size**-0.5
        elif len(shape) > 1:
            values *= np.prod(shape[1:]) ** -0.5
            if name.startswith("text_encoder.") and name.endswith("attention.output.dense.weight"):
                values *= 0.4  # with more, twelve layers make all tokens of all questions alike
        elif name.endswith(".bias"):
            values *= 0.1
        else:  # of a norm
            values = 1 + 0.1 * values
        state[name] = torch.from_numpy(values.astype(np.float32))
    return {name: state[TIED.get(name, name)] for name in original_shapes(architecture, image_size)}


def random_weights(id: str, path: Path, *, seed: int) -> None:
    """Write a small file in the format of `id` ("blip-vqa", "blip-vqa-hf384" or "bert-vocab")."""
    if id == VOCAB_ID:
        path.write_text("".join(f"{piece}\n" for piece in small_vocab()), encoding="utf-8")
    elif id in IMAGE_SIZES:
        state = random_state(SMALL, IMAGE_SIZES[id], seed=seed)
        if id == "blip-vqa":
            with path.open("wb") as file:  # given a path, torch would write its name into the file
                torch.save({"model": state, "architecture": to_dict(SMALL)}, file)
        else:
            from safetensors.torch import save

            once = {hub_name(name): tensor for name, tensor in state.items() if name not in TIED}
            path.write_bytes(save(once, metadata={"architecture": json.dumps(to_dict(SMALL))}))
    else:
        raise ValueError(f"{NAME} has no weights '{id}'; known: {', '.join((*IMAGE_SIZES, VOCAB_ID))}")


def small_vocab() -> list[str]:
    """Word pieces for rehearsals: single characters and common words, the special ones at their real ids.

    Any text can be cut into them, and every id of the real vocabulary exists.
    """
    special = {0: "[PAD]", 100: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]", NO: "no", YES: "yes"}
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    pieces = [*letters, *(f"##{letter}" for letter in letters), *_COMMON]
    vocab = [f"[unused{id}]" for id in range(DEC)]
    for id, piece in special.items():
        vocab[id] = piece
    for id, piece in zip(range(1000, 2000), pieces, strict=False):
        vocab[id] = piece
    return vocab


_COMMON = (
    "the an and of to red green blue yellow black white brown pink purple orange gold silver round square"
    " oval rectangular triangular wooden metallic rubber plastic leather fabric glass fluffy bench bowl"
    " table chair car dog cat book apple banana cup vase clock bag"
).split()
