"""CLIP: equal to OpenAI's code on shared random weights; the views of the cosine; bad files."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.scorers import clip
from bench.scorers.clip import (
    ARCHITECTURES,
    B_32,
    L_14_336,
    VIEWS,
    ClipModel,
    ClipScorer,
    Settings,
    build_network,
    cosine,
    load_clip,
    preprocess,
    random_state,
    random_weights,
    small,
    tokenize,
)
from bench.weights import Located
from gentron.errors import UserError
from tests.bench.scorers.detections import DIGEST, GivenWords, prompt
from tests.bench.scorers.test_spatial import LISTS, needs_lists
from tests.golden.clip import cases
from tests.parity import Compare

OPENAI = "openai/CLIP, its own model.py in float32 (stored)"
GOLDEN = Path(__file__).parents[2] / "golden" / "clip"
SMALL = small(ARCHITECTURES[B_32])


def official(name: str) -> np.ndarray:
    """What OpenAI's code gave on the cases; see make.py."""
    with np.load(GOLDEN / "official.npz") as values:
        return values[name]


def model_of(sizes: clip.Architecture) -> ClipModel:
    network = build_network(sizes)
    network.load_state_dict({key: v.float() for key, v in random_state(sizes, seed=cases.SEED).items()})
    return ClipModel(network, sizes)


@pytest.fixture(scope="module")
def model() -> ClipModel:
    return model_of(SMALL)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "ViT-B-32.pt"
    random_weights(B_32, path, seed=cases.SEED)
    return path


def random_file(path: Path, id: str = B_32) -> Located:
    return Located(id, path, "ab" * 32, True)


def cosines(model: ClipModel) -> np.ndarray:
    return np.array([[model.cosine(image, text) for text in cases.TEXTS] for image in cases.images()])


# ---- against OpenAI's code -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "id"), [("small", B_32), ("small_336", L_14_336)])
def test_pictures_are_prepared_as_by_openai(name: str, id: str, parity: Compare):
    size = ARCHITECTURES[id].image_size
    ours = np.stack([cases.sampled(preprocess(image, size)) for image in cases.images()])
    parity("CLIP", f"preparing pictures for {id}", ours, official(f"{name}_pixels"), against=OPENAI)


def test_tokens_are_openais(parity: Compare):
    parity("CLIP", "tokens", [tokenize(text).ids for text in cases.TEXTS], official("tokens"), against=OPENAI)
    assert [tokenize(text).truncated for text in cases.TEXTS] == [False] * 5 + [True]


@needs_lists
def test_tokens_of_all_official_prompts_are_openais():
    for name, digest in json.loads((GOLDEN / "tokens.json").read_text()).items():
        texts = (LISTS / name).read_text("utf-8").splitlines()
        ids = np.array([tokenize(text).ids for text in texts], "<i4")
        assert hashlib.sha256(ids.tobytes()).hexdigest() == digest, name


@pytest.mark.parametrize(("name", "id"), [("small", B_32), ("small_336", L_14_336)])
def test_embeddings_and_cosines_equal_openais(name: str, id: str, parity: Compare):
    ours = model_of(small(ARCHITECTURES[id]))
    seen = np.stack([ours.image_embedding(image) for image in cases.images()])
    read = np.stack([ours.text_embedding(text) for text in cases.TEXTS])
    of = f"small {id}"
    parity("CLIP", f"image embeddings, {of}", seen, official(f"{name}_images"), against=OPENAI, atol=1e-5)
    parity("CLIP", f"text embeddings, {of}", read, official(f"{name}_texts"), against=OPENAI, atol=1e-5)
    parity("CLIP", f"cosine, {of}", cosines(ours), official(f"{name}_cosines"), against=OPENAI, atol=1e-6)


@pytest.mark.slow
def test_cosines_of_the_full_network_equal_openais(parity: Compare):
    ours = cosines(model_of(ARCHITECTURES[B_32]))
    parity("CLIP", "cosine, ViT-B/32 at full size", ours, official("full_cosines"), against=OPENAI, atol=1e-5)


def test_the_activation_is_quick_gelu_and_another_one_would_show(model: ClipModel):
    from open_clip.transformer import QuickGELU

    activations = [m.gelu for name, m in model.network.named_modules() if name.endswith(".mlp")]
    assert len(activations) == SMALL.vision_layers + SMALL.text_layers
    assert all(type(one) is QuickGELU for one in activations)
    other = model_of(SMALL)
    for name, module in other.network.named_modules():
        if name.endswith(".mlp"):
            module.gelu = torch.nn.GELU()
    assert np.abs(cosines(other) - official("small_cosines")).max() > 1e-4


def test_an_embedding_does_not_depend_on_what_came_before(model: ClipModel):
    image = cases.images()[1]
    alone = model_of(SMALL).image_embedding(image)
    np.testing.assert_array_equal(model.image_embedding(image), alone)


# ---- views -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cos", "value"),
    [
        ("clip_cosine", -0.2, -0.2),
        ("clipscore_w2.5", 0.3, 0.75),
        ("clipscore_w2.5", -0.2, 0.0),
        ("clip_x100", 0.3, 30.0),
        ("clip_x100", -0.2, -20.0),
    ],
)
def test_a_view_of_one_image(name: str, cos: float, value: float):
    assert VIEWS[name].of_image(cos) == pytest.approx(value)


def test_only_the_mean_of_x100_is_clamped():
    assert VIEWS["clip_x100"].of_set([30.0, -10.0]) == 10
    assert VIEWS["clip_x100"].of_set([-30.0, 10.0]) == 0
    assert VIEWS["clip_cosine"].of_set([-0.3, 0.1]) == pytest.approx(-0.1)


def test_clip_x100_is_torchmetrics_clip_score(model: ClipModel):
    """torchmetrics 1.9 fails with transformers 5 on its own models, so it is given ours."""
    multimodal = pytest.importorskip("torchmetrics.functional.multimodal")
    images, texts = cases.images(), list(cases.TEXTS[:5])

    class Network(torch.nn.Module):
        config = None

        def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
            return model.network.encode_image(pixels)

        def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return model.network.encode_text(ids)

    def processor(text: Any = None, images: Any = None, **_: Any) -> dict[str, torch.Tensor]:
        if text is not None:
            ids = torch.tensor([tokenize(one).ids for one in text])
            return {"input_ids": ids, "attention_mask": ids != 0}
        pixels = [preprocess(one.permute(1, 2, 0).numpy(), 224) for one in images]
        return {"pixel_values": torch.from_numpy(np.stack(pixels))}

    view = VIEWS["clip_x100"]
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    for sign in (1, -1):  # negative cosines: the clamp
        weight = model.network.text_projection
        weight.data.mul_(sign)
        model.text_embedding.cache_clear()
        try:
            theirs = float(multimodal.clip_score(tensors, texts, lambda: (Network(), processor)))
            ours = view.of_set(
                [view.of_image(model.cosine(i, t)) for i, t in zip(images, texts, strict=True)]
            )
        finally:
            weight.data.mul_(sign)
            model.text_embedding.cache_clear()
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert (ours == 0) == (theirs == 0)


# ---- the cosine ------------------------------------------------------------------------------------------


def test_the_cosine_is_not_clamped_and_does_not_see_lengths():
    a = np.array([3, 4], np.float32)
    assert cosine(a, 7 * a) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)


@pytest.mark.parametrize("bad", [np.zeros(2, np.float32), np.array([np.nan, 1], np.float32)])
def test_an_embedding_that_says_nothing_is_an_error(bad: np.ndarray):
    with pytest.raises(ValueError, match="finite and not 0"):
        cosine(bad, np.ones(2, np.float32))


# ---- the scorer ------------------------------------------------------------------------------------------


def scorer(model: ClipModel, file: Path, words: GivenWords | None = None) -> ClipScorer:
    return ClipScorer(model, Settings(complex=words is not None, precision="fp32"), random_file(file), words)


def test_the_score_is_the_cosine_with_the_prompt_as_it_is(model: ClipModel, file: Path):
    image, text = cases.images()[0], "A dog."
    one = scorer(model, file).score(image, DIGEST, prompt(text), 0)
    assert one.score == model.cosine(image, text)
    assert one.reason == f"cosine {one.score:.4f} with 'A dog.'"
    assert one.parts == {"truncated": 0.0}


def test_adjectives_are_left_out_and_the_full_stop_stands_apart(model: ClipModel, file: Path):
    words = GivenWords({"red": "ADJ", ".": "PUNCT"})
    one = scorer(model, file, words).score(cases.images()[0], DIGEST, prompt("the red door ."), 0)
    assert one.evidence["text"] == "the door ."


def test_a_text_that_is_too_long_is_said(model: ClipModel, file: Path):
    one = scorer(model, file).score(cases.images()[0], DIGEST, prompt("dog " * 76), 0)
    assert one.parts == {"truncated": 1.0}
    assert one.reason.endswith("only the first 77 of 78 tokens are seen")


def test_the_record_says_what_was_run(model: ClipModel, file: Path):
    record = scorer(model, file).record
    assert record.random_weights
    assert record.weights == {B_32: "ab" * 32}
    assert record.settings["model"] == "ViT-B-32-quickgelu"
    assert record.settings["pretrained"] == "random"
    assert record.settings["phrases"] is None


# ---- files -----------------------------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone(file: Path, tmp_path: Path):
    random_weights(B_32, tmp_path / "again.pt", seed=cases.SEED)
    random_weights(B_32, tmp_path / "other.pt", seed=2)
    state, again, other = (
        clip.read_state(path)[0]["visual.proj"]
        for path in (file, tmp_path / "again.pt", tmp_path / "other.pt")
    )
    assert torch.equal(state, again)
    assert not torch.equal(state, other)


def test_a_random_file_brings_its_own_size(file: Path):
    loaded = load_clip(random_file(file))
    assert loaded.sizes == SMALL
    np.testing.assert_allclose(cosines(loaded), official("small_cosines"), atol=1e-6, rtol=0)


def test_a_small_file_is_not_taken_for_the_published_one(file: Path):
    with pytest.raises(UserError, match="random weights for rehearsals"):
        load_clip(Located(B_32, file, "ab" * 32, False))
    with pytest.raises(UserError, match="does not hold these CLIP weights"):
        clip.check_keys(B_32, file)


def test_openais_archive_is_read(tmp_path: Path):
    """TorchScript with sizes among the weights, in half precision, as published."""
    sizes = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    weights = random_state(SMALL, seed=cases.SEED)
    path = tmp_path / "archive.pt"
    _save_archive(weights | {name: torch.tensor(value) for name, value in sizes.items()}, path)
    state, carried = clip.read_state(path)
    assert carried is None
    clip.check_state(state, SMALL, path)
    network = build_network(SMALL)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    np.testing.assert_allclose(
        cosines(ClipModel(network, SMALL)), official("small_cosines"), atol=1e-6, rtol=0
    )


def _save_archive(values: dict[str, torch.Tensor], path: Path) -> None:
    """TorchScript modules with these values and no code of their own."""

    class Node(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Node()
    for name, value in values.items():
        *parents, leaf = name.split(".")
        node = root
        for parent in parents:
            if parent not in node._modules:
                node.add_module(parent, Node())
            node = node.get_submodule(parent)
        node.register_buffer(leaf, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(root).save(str(path))


def test_a_state_dict_of_open_clip_is_read(tmp_path: Path):
    state = {f"module.{name}": value for name, value in random_state(SMALL, seed=1).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "trained.pt")
    clip.check_state(clip.read_state(tmp_path / "trained.pt")[0], SMALL, tmp_path)


def _drop(state: dict[str, torch.Tensor]) -> None:
    del state["visual.proj"]


def _add(state: dict[str, torch.Tensor]) -> None:
    state["visual.head"] = torch.zeros(1)


def _bend(state: dict[str, torch.Tensor]) -> None:
    state["visual.proj"] = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, r"1 missing \(first: visual.proj\)"),
        (_add, r"1 unknown \(first: visual.head\)"),
        (_bend, r"visual.proj must be \(64, 512\), got \(2, 2\)"),
    ],
)
def test_a_file_with_other_keys_is_refused(tmp_path: Path, change: Any, message: str):
    state = random_state(SMALL, seed=1)
    change(state)
    with pytest.raises(UserError, match=message):
        clip.check_state(state, SMALL, tmp_path / "file.pt")


@pytest.mark.parametrize("data", [b"", b"not weights", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, data: bytes):
    (tmp_path / "bad.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"^'.*bad\.pt' is no file of CLIP weights: .+$"):
        load_clip(random_file(tmp_path / "bad.pt"))


def test_an_unknown_id_of_weights_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no weights 'other'"):
        random_weights("other", tmp_path / "a", seed=1)
