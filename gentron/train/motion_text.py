"""Teach the mini text encoders the words of motion, and nothing else.

The vocabulary grows at its end and only the embeddings of words that no caption of a picture holds are
trained: every such caption keeps its encoding to the bit, so the denoiser that reads it keeps what it knows.
(Continuing the whole encoder, even with distillation, cost mini .14 of its color score.)

A fresh one-layer decoder reads the encoder's tokens and must spell the clip in one fixed wording, whatever
the caption's order: who moves, where, how fast. Both encoders are taught so; the decoder is left behind.
"""

# B batch, L prompt tokens, S tokens of the canonical wording, V words, E text width

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentron.atomic import atomic_folder
from gentron.checkpoint import CONFIG_FILE, read_config, resolve_part
from gentron.data.keyed import Stream, keyed_rng
from gentron.errors import UserError
from gentron.shapes.motion import FAST, SLOW, Motion, MotionMixture, Movement, sample_clip
from gentron.shapes.motion_captions import BACK, SPEED_WORDS, ClipDescription, describe_clip, phrase_clip
from gentron.shapes.vocabulary import build_tokenizer, motion_words, words, words_of_clips_alone
from gentron.text import TextEncoders, quiet_loading
from gentron.train.loop import start_run
from gentron.train.steps import StepState, training_steps
from gentron.train.text import MAX_LENGTH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# speeds, returns and pairs of movers are more common than in training clips, so that each word is learned
MIXTURE = MotionMixture(
    alone=0.16, beside=0.22, crowd=0.06, two_movers=0.16, still=0.10, slow=0.10, fast=0.10, bounce=0.10
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionTextRecipe:
    """Steps were set by the minutes they take on one CPU core."""

    steps: int = 700
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    num_heads: int = 4
    """Of the decoder that reads the tokens; its width is the encoder's."""
    seed: int = 0


# ---- the canonical wording -------------------------------------------------------------------------------


def _spell(movement: Movement) -> str:
    """ "left", "up slowly", "right back"."""
    adverb = [SPEED_WORDS[movement.speed]] if movement.speed in (SLOW, FAST) else []
    back = [BACK.split()[-1]] if movement.turn is not None else []
    return " ".join([movement.motion, *adverb, *back])


def canonical_motion(description: ClipDescription) -> str:
    """Colour, shape and motion of each object ("any" where one is not named): who moves comes first, by
    direction; those that stand still follow by name."""
    pairs = zip(description.objects, description.moves, strict=True)
    rows = [
        (tuple(Motion).index(m.motion), f"{o.color or 'any'} {o.shape or 'any'} {_spell(m)}")
        for o, m in pairs
    ]
    return " ; ".join(text for _, text in sorted(rows))


class Pair(NamedTuple):
    """A caption and its clip in the canonical wording."""

    caption: str
    canonical: str


def draw_pair(seed: int, index: int) -> Pair:
    """Pair `index`, a function of (seed, index) alone."""
    rng = keyed_rng(seed, index, Stream.MOTION_TEXT)
    description = describe_clip(sample_clip(rng, mixture=MIXTURE), rng)
    return Pair(phrase_clip(description, rng), canonical_motion(description))


# ---- encoder and reader ----------------------------------------------------------------------------------


def grow(encoder: Any, recipe: MotionTextRecipe) -> Tensor:
    """Give the encoder the embeddings of the new words; returns (V,) bool, True where rows may be trained.

    Raises UserError unless it has the vocabulary of the built-in world.
    """
    old: nn.Embedding = encoder.get_input_embeddings()
    if old.num_embeddings != len(words()):
        raise UserError(
            f"the encoder must know the {len(words())} words of the shapes world, its embedding has"
            f" {old.num_embeddings}: give a folder that `gentron train text` wrote"
        )
    vocabulary = motion_words()
    grown = nn.Embedding(len(vocabulary), old.embedding_dim)
    trainable = torch.tensor([word in words_of_clips_alone() for word in vocabulary])
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        fresh = torch.randn(grown.weight.shape, generator=generator) * old.weight.std()
        known = F.pad(old.weight, (0, 0, 0, len(vocabulary) - old.num_embeddings))
        grown.weight.copy_(torch.where(trainable[:, None], fresh, known))
    encoder.requires_grad_(False)
    encoder.set_input_embeddings(grown)
    encoder.config.vocab_size = len(vocabulary)
    grown.weight.register_hook(lambda gradient: gradient * trainable[:, None])
    return trainable


class Reader(nn.Module):
    """A one-layer decoder over an encoder's tokens."""

    def __init__(self, width: int, *, num_words: int, num_heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_words, width)
        self.positions = nn.Parameter(torch.randn(MAX_LENGTH, width) * 0.3)
        self.layer = nn.TransformerDecoderLayer(
            width, num_heads, 3 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_words)
        nn.init.normal_(self.embed.weight, std=0.3)

    def forward(self, ids: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """ids: (B, S), the words so far.   tokens: (B, L, E).   mask: (B, L) bool.   Logits: (B, S, V)."""
        length = ids.shape[1]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.embed(ids) + self.positions[:length]
        x = self.layer(x, tokens, tgt_mask=future, memory_key_padding_mask=~mask)
        return self.head(self.norm(x))


class Taught(nn.Module):
    """An encoder whose new rows are trained, its tokenizer and its reader."""

    def __init__(self, encoder: Any, *, begin: bool, recipe: MotionTextRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)  # for the reader's initial weights only
        self.trainable = grow(encoder, recipe)
        self.begin, self.encoder = begin, encoder
        self.tokenizer = self.fresh_tokenizer()
        self.reader = Reader(
            encoder.config.hidden_size, num_words=len(motion_words()), num_heads=recipe.num_heads
        )

    def fresh_tokenizer(self) -> PreTrainedTokenizerFast:
        return build_tokenizer(begin=self.begin, max_length=MAX_LENGTH, vocabulary=motion_words())

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, E) and mask (B, L) bool."""
        source = self.tokenizer(list(captions), padding=True, return_tensors="pt")
        mask = source["attention_mask"]
        tokens = self.encoder(input_ids=source["input_ids"], attention_mask=mask).last_hidden_state
        return tokens, mask.bool()

    def spell(self, wordings: Sequence[str]) -> Tensor:
        """Ids of <s>, the words, </s>, padded: (B, S)."""
        ids = {word: i for i, word in enumerate(motion_words())}
        rows = [[ids["<s>"], *(ids[word] for word in text.split()), ids["</s>"]] for text in wordings]
        longest = max(map(len, rows))
        return torch.tensor([row + [ids["<pad>"]] * (longest - len(row)) for row in rows])

    def loss(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Cross-entropy of the canonical wording given the caption; `exact` with the right words so far."""
        tokens, mask = self.encode([pair.caption for pair in pairs])
        ids = self.spell([pair.canonical for pair in pairs])
        logits, labels = self.reader(ids[:, :-1], tokens, mask), ids[:, 1:]
        labels = labels.masked_fill(labels == motion_words().index("<pad>"), -100)
        hit = (logits.argmax(-1) == labels) | (labels == -100)
        return {
            "loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
            "exact": hit.all(1).float().mean(),
        }

    @torch.no_grad()
    def read(self, captions: Sequence[str], *, max_words: int = 24) -> list[str]:
        """What the reader spells by itself, word by word."""
        vocabulary = motion_words()
        tokens, mask = self.encode(captions)
        ids = torch.full((len(captions), 1), vocabulary.index("<s>"))
        for _ in range(max_words):
            following = self.reader(ids, tokens, mask)[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, following], dim=1)
        spelled = ([vocabulary[i] for i in row] for row in ids[:, 1:].tolist())
        return [" ".join(row[: row.index("</s>")] if "</s>" in row else row) for row in spelled]


# ---- the command -----------------------------------------------------------------------------------------


def _batch(recipe: MotionTextRecipe, step: int) -> list[Pair]:
    first = step * recipe.batch_size
    return [draw_pair(recipe.seed, index) for index in range(first, first + recipe.batch_size)]


def load_encoders(folder: Path) -> Iterator[tuple[str, Any]]:
    """The encoders in folder/t5 and folder/clip, else those that the checkpoint in folder names, by name."""
    clip, t5 = folder / "clip", folder / "t5"
    if not clip.is_dir() and (folder / CONFIG_FILE).is_file():
        text = read_config(folder).text
        clip, t5 = (
            resolve_part(folder, name or encoder) for encoder, name in (("clip", text.clip), ("t5", text.t5))
        )
    found = TextEncoders.from_pretrained(clip, t5)
    for name, tower in (("t5", found.t5), ("clip", found.clip)):
        assert tower is not None
        yield name, tower.model


def teach(encoder: Any, out: Path, *, begin: bool, recipe: MotionTextRecipe, resume: bool) -> Taught:
    """Train the new rows of one encoder and the reader; `out` is the run's own folder."""
    taught = Taught(encoder, begin=begin, recipe=recipe)
    learned = [parameter for parameter in taught.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    state = StepState(out, taught, optimizer, config=asdict(recipe), resume=resume)
    for step in training_steps(
        state,
        total_steps=recipe.steps,
        warmup_steps=recipe.warmup_steps,
        learning_rate=recipe.learning_rate,
        title=f"{out.name.removesuffix('_run')} motion words",
    ):
        state.update(taught.loss(_batch(recipe, step)), batch_size=recipe.batch_size)
    return taught


def export(taught: Taught, out: Path) -> None:
    """Encoder and grown tokenizer in transformers' format."""
    with atomic_folder(out) as folder, quiet_loading():
        taught.encoder.save_pretrained(folder)
        taught.fresh_tokenizer().save_pretrained(folder)


def train(
    out: Path, *, initial: Path, recipe: MotionTextRecipe | None = None, resume: bool = True
) -> dict[str, Taught]:
    """Teach both encoders of the folder `initial`; writes out/t5 and out/clip. Returns them with their
    readers, by name."""
    recipe = recipe or MotionTextRecipe()
    start_run(out, {**asdict(recipe), "initial": str(initial)}, resume=resume)
    taught = {}
    for name, encoder in load_encoders(initial):
        taught[name] = teach(encoder, out / f"{name}_run", begin=name == "clip", recipe=recipe, resume=resume)
        export(taught[name], out / name)
    return taught
