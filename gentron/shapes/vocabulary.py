"""The words of the world's captions, and a tokenizer over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gentron.shapes.captions import NOUNS, RELATION_PHRASES, SHAPE_ADJECTIVES
from gentron.shapes.scene import COLORS, SHAPES, SIZES, TEXTURES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "</s>", "<s>", "<unk>")  # transformers reads an eos id of 2 as "take the largest id"
FRAME_WORDS = (
    "a an the and with that is are there picture photo image of on in to grey background , .".split()
)
CANONICAL = ("any", "beside", "over", "touching", "inside", "overlapping", ";")


def words() -> list[str]:
    """Every word a caption can hold, special tokens first, in a fixed order."""
    phrases = " ".join(p for options in RELATION_PHRASES.values() for p in options).split()
    adjectives = [word for options in SHAPE_ADJECTIVES.values() for word in options]
    names = [*COLORS, *SHAPES, *TEXTURES, *SIZES, *NOUNS]
    return list(dict.fromkeys([*SPECIAL, *FRAME_WORDS, *phrases, *adjectives, *names, *CANONICAL]))


def build_tokenizer(*, begin: bool, max_length: int) -> PreTrainedTokenizerFast:
    """A lower-casing word tokenizer; `begin` adds <s> in front (CLIP), </s> always closes."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(words())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\w-]+|[^\w\s]"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if begin else "$A </s>",
        special_tokens=[(word, vocabulary[word]) for word in ("<s>", "</s>")],
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
