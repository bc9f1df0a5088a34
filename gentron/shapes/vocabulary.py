"""The words of the world's captions, and a tokenizer over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gentron.shapes.captions import NOUNS, RELATION_PHRASES, SHAPE_ADJECTIVES
from gentron.shapes.motion import Motion
from gentron.shapes.motion_captions import (
    BACK,
    BESIDE_PHRASES,
    DIRECTION_PHRASES,
    MOVE_PHRASES,
    SPEED_WORDS,
    STILL_PHRASES,
    VIDEO_FRAME,
)
from gentron.shapes.scene import COLORS, SHAPES, SIZES, TEXTURES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "</s>", "<s>", "<unk>")  # transformers reads an eos id of 2 as "take the largest id"
FRAME_WORDS = (
    "a an the and with that is are there picture photo image of on in to grey background , .".split()
)
CANONICAL = ("any", "beside", "over", "touching", "inside", "overlapping", ";")


def _picture_words() -> list[str]:
    """What captions of pictures are made of, special tokens first."""
    phrases = " ".join(p for options in RELATION_PHRASES.values() for p in options).split()
    adjectives = [word for options in SHAPE_ADJECTIVES.values() for word in options]
    names = [*COLORS, *SHAPES, *TEXTURES, *SIZES, *NOUNS]
    return list(dict.fromkeys([*SPECIAL, *FRAME_WORDS, *phrases, *adjectives, *names]))


def _clip_words() -> list[str]:
    """What captions of clips say of motion."""
    directions = [phrase for options in DIRECTION_PHRASES.values() for phrase in options]
    speeds = SPEED_WORDS.values()
    phrases = [*MOVE_PHRASES, *directions, *STILL_PHRASES, *BESIDE_PHRASES, *speeds, BACK, VIDEO_FRAME]
    return list(dict.fromkeys([*" ".join(phrases).split(), *Motion]))


def words() -> list[str]:
    """Every word a caption of a picture can hold, special tokens first, in a fixed order."""
    return list(dict.fromkeys([*_picture_words(), *CANONICAL]))


def motion_words() -> list[str]:
    """The words of pictures and clips: those of `words()` in their places, then what only clips need."""
    return list(dict.fromkeys([*words(), *_clip_words()]))


def words_of_clips_alone() -> list[str]:
    """Words of captions of clips that no caption of a picture holds: their embeddings can change without a
    change of what an encoder makes of pictures' captions."""
    return [word for word in _clip_words() if word not in _picture_words()]


def build_tokenizer(
    *, begin: bool, max_length: int, vocabulary: Sequence[str] | None = None
) -> PreTrainedTokenizerFast:
    """A lower-casing word tokenizer; `begin` adds <s> in front (CLIP), </s> always closes.

    vocabulary: `words()` unless given.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(vocabulary or words())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\w-]+|[^\w\s]"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if begin else "$A </s>",
        special_tokens=[(word, ids[word]) for word in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
        padding_side="right",
    )
