"""OpenAI CLIP, the cosine of a picture and a text, and T2I-CompBench's `clip_cosine` score.

One primitive, the cosine in float32 without a clamp, and views of it under their own names:
  clip_cosine: as it is (T2I-CompBench's non_spatial, CLIPScore_eval/CLIP_similarity.py; text-to-image papers)
  clipscore_w2.5: 2.5 * max(cos, 0) with the prefix "A photo depicts " (Hessel et al. 2021)
  clip_x100: max(100 * mean cos, 0), torchmetrics' CLIPScore

The networks are OpenAI's through open_clip, always with quick-GELU: open_clip's plain `ViT-B-32` loads the
same keys and is wrong by 1e-2. The files that bench.weights accepts are OpenAI's, by their published hashes.
"""

# B batch, D embedding size, L tokens (77), S side of the network's image

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.scorers import Context, Scored, ScorerRecord
from gentron.config import from_dict, to_dict
from gentron.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.prompts import Prompt
    from bench.scorers.phrases import PhraseSource
    from bench.weights import Located

VERSION = 1
B_32, L_14_336 = "clip-vit-b-32", "clip-vit-l-14-336"

MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
START, END = 49406, 49407
CONTEXT_LENGTH = 77
VOCABULARY = 49408
HEAD_WIDTH = 64  # of every attention head of OpenAI's models
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # entries of OpenAI's archives


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Sizes of a CLIP with two transformers; heads follow from the widths."""

    embedding_size: int
    image_size: int
    patch_size: int
    vision_layers: int
    vision_width: int
    text_layers: int
    text_width: int


ARCHITECTURES = {
    B_32: Architecture(
        embedding_size=512,
        image_size=224,
        patch_size=32,
        vision_layers=12,
        vision_width=768,
        text_layers=12,
        text_width=512,
    ),
    L_14_336: Architecture(
        embedding_size=768,
        image_size=336,
        patch_size=14,
        vision_layers=24,
        vision_width=1024,
        text_layers=12,
        text_width=768,
    ),
}
OPEN_CLIP_NAMES = {B_32: "ViT-B-32-quickgelu", L_14_336: "ViT-L-14-336-quickgelu"}


# ---- picture and text as the network takes them ----------------------------------------------------------


def preprocess(image: np.ndarray, size: int) -> np.ndarray:
    """OpenAI's: shorter side to `size` by PIL's bicubic filter, centre crop, CLIP's mean and deviation.

    image: (H, W, 3) uint8.   Returns (3, S, S) float32.
    """
    from PIL import Image

    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    scaled = int(size * long / short)
    wide, high = (size, scaled) if width <= height else (scaled, size)
    picture = Image.fromarray(image)
    if (wide, high) != (width, height):
        picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
    top, left = round((high - size) / 2), round((wide - size) / 2)  # half to even, as torchvision rounds
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), np.float32) / 255
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1))


@lru_cache(maxsize=1)
def _vocabulary() -> Any:
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@dataclass(frozen=True, slots=True)
class Tokens:
    """ids: 77, zeros behind the end.   count: tokens of the text with start and end, before cutting."""

    ids: tuple[int, ...]
    count: int

    @property
    def truncated(self) -> bool:
        return self.count > CONTEXT_LENGTH


def tokenize(text: str) -> Tokens:
    """OpenAI's byte pairs between start and end; a text that is too long loses its tail and keeps the end."""
    ids = [START, *_vocabulary().encode(text), END]
    count = len(ids)
    if count > CONTEXT_LENGTH:
        ids = [*ids[: CONTEXT_LENGTH - 1], END]
    return Tokens((*ids, *[0] * (CONTEXT_LENGTH - len(ids))), count)


# ---- the network -----------------------------------------------------------------------------------------


def build_network(sizes: Architecture) -> torch.nn.Module:
    """open_clip's CLIP with quick-GELU, initialised at random."""
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(
        image_size=sizes.image_size,
        layers=sizes.vision_layers,
        width=sizes.vision_width,
        head_width=HEAD_WIDTH,
        patch_size=sizes.patch_size,
    )
    text = CLIPTextCfg(
        context_length=CONTEXT_LENGTH,
        vocab_size=VOCABULARY,
        width=sizes.text_width,
        heads=sizes.text_width // HEAD_WIDTH,
        layers=sizes.text_layers,
    )
    return CLIP(sizes.embedding_size, vision, text, quick_gelu=True).eval()


def read_state(path: Path) -> tuple[dict[str, Tensor], Architecture | None]:
    """Weights of OpenAI's TorchScript archive or of a state dict, and the architecture a small file carries.

    UserError for another kind of file. No Python in the file is executed.
    """
    import torch

    try:
        if _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the format of the published file
                data: Any = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds for what is no archive
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"'{path}' is no file of CLIP weights: {reason}") from error
    if not isinstance(data, dict):
        raise UserError(f"'{path}' must hold a state dict, got {type(data).__name__}")
    carried = data.get("architecture")
    state = dict(data.get("state_dict", data))
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if name not in NOT_WEIGHTS}
    return state, None if carried is None else from_dict(Architecture, carried, path="architecture")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _shapes(sizes: Architecture) -> dict[str, tuple[int, ...]]:
    import torch

    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_network(sizes).state_dict().items()}


def check_state(state: dict[str, Any], sizes: Architecture, path: Path) -> None:
    """UserError that names the first keys or shapes that are not those of the architecture."""
    expected = _shapes(sizes)
    missing, unknown = (
        sorted(expected.keys() - state.keys()),
        sorted(map(str, state.keys() - expected.keys())),
    )
    if missing or unknown:
        said = [
            f"{len(names)} {kind} (first: {names[0]})"
            for kind, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise UserError(f"'{path}' does not hold these CLIP weights: {', '.join(said)}")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            got = tuple(state[name].shape)
            raise UserError(f"'{path}' does not hold these CLIP weights: {name} must be {shape}, got {got}")


def check_keys(id: str, path: Path) -> None:
    """UserError unless the file holds the network that `id` names."""
    check_state(read_state(path)[0], ARCHITECTURES[id], path)


class ClipModel:
    """A CLIP network in float32 that embeds one picture or one text at a time.

    Embeddings are (D,) float32 and not normalised, as the network gives them.
    """

    def __init__(self, network: torch.nn.Module, sizes: Architecture, *, device: str = "cpu") -> None:
        self.network: Any = network.float().eval().requires_grad_(False).to(device)
        self.sizes, self.device = sizes, device
        self.text_embedding = lru_cache(maxsize=64)(self._text_embedding)  # the images of one prompt share it

    def image_embedding(self, image: np.ndarray) -> np.ndarray:
        """image: (H, W, 3) uint8 of any size."""
        import torch

        pixels = torch.from_numpy(preprocess(image, self.sizes.image_size))[None].to(self.device)
        # on a GPU cuDNN's convolutions would default to TF32
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            return self.network.encode_image(pixels)[0].cpu().numpy()

    def _text_embedding(self, text: str) -> np.ndarray:
        import torch

        ids = torch.tensor([tokenize(text).ids], device=self.device)
        with torch.inference_mode():
            return self.network.encode_text(ids)[0].cpu().numpy()

    def cosine(self, image: np.ndarray, text: str) -> float:
        """The primitive: cosine of picture and text in float32, without a clamp."""
        return cosine(self.image_embedding(image), self.text_embedding(text))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """(D,), (D,) -> the cosine of their angle; ValueError for embeddings that are not finite, or 0."""
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if not np.isfinite(lengths).all() or 0 in lengths:
        raise ValueError(f"embeddings must be finite and not 0, got lengths {lengths[0]} and {lengths[1]}")
    return float((a / lengths[0]) @ (b / lengths[1]))


def load_clip(located: Located, *, device: str = "cpu") -> ClipModel:
    """The network of a located file; UserError if its keys or shapes are not those of the architecture.

    Only a file that is marked random may bring an architecture of its own.
    """
    state, carried = read_state(located.path)
    if carried is not None and not located.random:
        raise UserError(
            f"'{located.path}' holds random weights for rehearsals, not the published ones of '{located.id}'"
        )
    sizes = ARCHITECTURES[located.id] if carried is None else carried
    check_state(state, sizes, located.path)
    network = build_network(sizes)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return ClipModel(network, sizes, device=device)


# ---- views of the cosine ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """A published way to state the cosine.

    prefix: put before every text.   of_image: cosine -> an image's value.   of_set: values -> the figure.
    """

    name: str
    prefix: str
    of_image: Callable[[float], float]
    of_set: Callable[[Sequence[float]], float]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


VIEWS = {
    view.name: view
    for view in (
        View("clip_cosine", "", lambda cos: cos, _mean),
        View("clipscore_w2.5", "A photo depicts ", lambda cos: 2.5 * max(cos, 0.0), _mean),
        View("clip_x100", "", lambda cos: 100 * cos, lambda values: max(_mean(values), 0.0)),
    )
}


# ---- T2I-CompBench's scorer ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The protocol's `scorers.clip_cosine`."""

    complex: bool
    """Leave out adjectives, as the 3-in-1 score does."""
    precision: Literal["fp32"]


def without_adjectives(text: str, phrases: PhraseSource) -> str:
    """Tokens that are no ADJ, joined by single blanks: a full stop stands apart, as in the official code."""
    return " ".join(token.text for token in phrases.parse(text).tokens if token.pos != "ADJ")


def network_settings(model: ClipModel, located: Located, *, precision: str = "fp32") -> dict[str, Any]:
    """What a record says of the network and of what it is shown."""
    return {
        "model": OPEN_CLIP_NAMES[located.id],
        "pretrained": "random" if located.random else "openai",
        "precision": precision,
        "resize": f"PIL bicubic, short side {model.sizes.image_size}, centre crop",
    }


class ClipScorer:
    """The cosine of an image and its prompt."""

    def __init__(
        self, model: ClipModel, settings: Settings, located: Located, phrases: PhraseSource | None
    ) -> None:
        if settings.complex and phrases is None:
            raise ValueError("clip_cosine with complex needs a source of parts of speech")
        self.model, self.settings = model, settings
        self.phrases = phrases if settings.complex else None
        self.record = ScorerRecord(
            name="clip_cosine",
            version=VERSION,
            weights={located.id: located.sha256},
            random_weights=located.random,
            settings={
                **network_settings(model, located, precision=settings.precision),
                "complex": settings.complex,
                "phrases": None if self.phrases is None else dict(self.phrases.record),
            },
        )

    def text(self, prompt: Prompt) -> str:
        """What the picture is compared with."""
        return prompt.text if self.phrases is None else without_adjectives(prompt.text, self.phrases)

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        text = self.text(prompt)
        tokens = tokenize(text)
        value = self.model.cosine(image, text)
        cut = (
            f"; only the first {CONTEXT_LENGTH} of {tokens.count} tokens are seen" if tokens.truncated else ""
        )
        return Scored(
            score=value,
            reason=f"cosine {value:.4f} with '{text}'{cut}",
            parts={"truncated": float(tokens.truncated)},
            evidence={"text": text, "cosine": value, "num_tokens": tokens.count},
        )


def build(settings: dict[str, Any], context: Context) -> ClipScorer:
    """The scorer for a protocol's settings; MissingWeights if the file is not there."""
    from bench.weights import locate

    read = from_dict(Settings, settings, path="scorers.clip_cosine")
    located = locate(B_32, context.models)
    phrases = None
    if read.complex:
        from bench.scorers.phrases import phrase_source

        phrases = phrase_source(context.phrases, texts=[prompt.text for prompt in context.prompts])
    return ClipScorer(load_clip(located, device=context.device), read, located, phrases)


# ---- rehearsal -------------------------------------------------------------------------------------------


def small(sizes: Architecture) -> Architecture:
    """Two layers of one head; pictures, patches and embeddings have their real sizes."""
    return replace(sizes, vision_layers=2, vision_width=HEAD_WIDTH, text_layers=2, text_width=HEAD_WIDTH)


def random_state(sizes: Architecture, *, seed: int) -> dict[str, Tensor]:
    """Weights under their published names, large enough that pictures and texts differ in their embeddings.

    In half precision as in OpenAI's files. The stream of RandomState never changes: stored outputs of the
    original code on these weights stay true.
    """
    import torch

    rng = np.random.RandomState(seed)
    state = {}
    for name, shape in sorted(_shapes(sizes).items()):
        values = rng.standard_normal(shape).astype(np.float32)
        if name == "logit_scale":
            values = np.log(np.float32(100))
        elif "embedding" in name:
            values *= 0.5
        elif len(shape) > 1:
            fan_in = (
                shape[0] if name in ("visual.proj", "text_projection") else np.prod(shape[1:])
            )  # projections are x @ w
            values /= np.float32(fan_in) ** 0.5
        elif name.endswith(".bias"):
            values *= 0.1
        else:  # of a norm
            values = 1 + 0.1 * values
        state[name] = torch.from_numpy(np.asarray(values, np.float16))
    return state


def random_weights(id: str, path: Path, *, seed: int) -> None:
    """A small CLIP with random weights; its architecture lies beside them in the file."""
    import torch

    if id not in ARCHITECTURES:
        raise ValueError(f"clip has no weights '{id}'; known: {', '.join(ARCHITECTURES)}")
    sizes = small(ARCHITECTURES[id])
    data = {"state_dict": random_state(sizes, seed=seed), "architecture": to_dict(sizes)}
    torch.save(data, path)
