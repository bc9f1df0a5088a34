from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.prompts import Prompt
from bench.scorers import Context, ScorerRecord, blip_vqa, build_scorer
from bench.scorers.blip_vqa import (
    CLS,
    IMAGE_SIZES,
    MEAN,
    SEP,
    SMALL,
    TIED,
    VOCAB_ID,
    Architecture,
    BlipVqa,
    BlipVqaScorer,
    QuestionTokenizer,
    Settings,
    build_network,
    clean_question,
    combine,
    hub_name,
    load_state,
    original_shapes,
    phrases_asked,
    pixels,
    random_state,
    random_weights,
    read_vocab,
    rounded,
    small_vocab,
)
from bench.weights import INDEX, MissingWeights, make_random
from gentron.errors import UserError
from tests.golden.blip_vqa.cases import pictures, state_digest
from tests.parity import Compare

ORIGINAL = "salesforce/BLIP (stored)"
GOLDEN = Path(__file__).parents[2] / "golden" / "blip_vqa"
DROPPED = ("top", "the side", "the left", "the right")
SETTINGS = Settings(np_num=8, dropped_chunks=DROPPED)
WEIGHTS = ("blip-vqa", "blip-vqa-hf384", "bert-vocab")


def golden(kind: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{kind}.json").read_text(encoding="utf-8"))


SMALL_GOLDEN = golden("small")


def golden_network(stored: dict[str, Any]) -> BlipVqa:
    """Our network with the weights that the original answered with; tokens are the original's."""
    architecture = Architecture(**stored["architecture"])
    state = random_state(architecture, 480, seed=stored["seed"])
    assert state_digest(state) == stored["state_sha256"], "not the weights of the golden answers"
    network = build_network({hub_name(name): tensor for name, tensor in state.items()}, architecture, 480)
    tokens = dict(zip(map(clean_question, stored["questions"]), stored["token_ids"], strict=True))
    return BlipVqa(network, lambda question: tokens[question], 480)


@pytest.fixture(scope="module")
def network() -> BlipVqa:
    return golden_network(SMALL_GOLDEN)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with random weights for a rehearsal."""
    for id in WEIGHTS:
        make_random(id, tmp_path / "models", seed=1)
    return tmp_path / "models"


class Chunks:
    """A source of noun phrases that knows what a test wants."""

    record: dict[str, Any] = {"source": "a test"}

    def __init__(self, *chunks: str) -> None:
        self.chunks = chunks

    def parse(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(chunks=self.chunks)


def settings(**changes: Any) -> dict[str, Any]:
    given = {"np_num": 8, "dropped_chunks": list(DROPPED), "image_size": 480, "weights": "blip-vqa"}
    return given | changes


def context(models: Path) -> Context:
    return Context(models=models, phrases="rules")


def prompt(text: str) -> Prompt:
    return Prompt("color-0000", "color", text)


def some_picture(seed: int = 0, height: int = 40, width: int = 30) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


# ---- questions -------------------------------------------------------------------------------------------


def test_dropped_chunks_are_equal_to_the_letter_and_the_rest_stays_in_order() -> None:
    chunks = ("top", "a dog", "The left", "the left", "it", "the side", "the left side")
    assert phrases_asked(chunks, SETTINGS) == ("a dog", "The left", "it", "the left side")
    assert phrases_asked(chunks, replace(SETTINGS, dropped_chunks=(), np_num=2)) == ("top", "a dog")


def test_ninth_phrase_is_ignored_and_dropped_ones_do_not_count() -> None:
    chunks = [f"thing {i}" for i in range(9)]
    assert phrases_asked(["top", *chunks], SETTINGS) == tuple(chunks[:8])


@pytest.mark.parametrize(
    ("question", "cleaned"),
    [
        ("A Green Bench?", "a green bench?"),
        ('a "clock" that reads 11:44. (yes!) *~;#?', "a clock that reads 1144 yes ?"),
        ("snow-covered, the cat's?", "snow-covered, the cat's?"),
        ("  two  spaces?  ", "  two  spaces?"),
        (" ".join(["w"] * 60), " ".join(["w"] * 50)),
        ("ÉCLAIR?", "éclair?"),
    ],
)
def test_question_is_cleaned_as_the_original_does(question: str, cleaned: str) -> None:
    assert clean_question(question) == cleaned


def test_tokens_are_the_originals() -> None:
    tokenizer = QuestionTokenizer({piece: id for id, piece in enumerate(small_vocab())})
    for question, ids in zip(SMALL_GOLDEN["questions"], SMALL_GOLDEN["token_ids"], strict=True):
        assert tokenizer(clean_question(question)) == ids
    assert max(map(len, SMALL_GOLDEN["token_ids"])) == 35


# ---- the score -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SMALL_GOLDEN["products"], ids=lambda case: case["answer"])
def test_product_is_the_originals_in_single_precision(case: dict[str, Any]) -> None:
    values = [float(np.float32(value)) for value in case["values"]]
    assert f"{combine(values):.4f}" == case["answer"]


def test_golden_products_tell_single_from_double_precision() -> None:
    assert sum(case["answer"] != case["in_double"] for case in SMALL_GOLDEN["products"]) >= 8


def test_phrase_values_are_rounded_before_they_are_multiplied() -> None:
    assert rounded(float(np.float32(0.12345))) == 0.1235  # the float32 lies above the half
    assert rounded(0.98765) == 0.9877
    assert combine([0.12345, 0.98765]) == rounded(0.1235 * 0.9877) == 0.1220
    assert combine([0.00004, 1.0]) == 0
    assert combine([]) == 1


# ---- the network against the original --------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_GOLDEN["probability"])
def test_yes_probability_equals_the_originals(network: BlipVqa, name: str, parity: Compare) -> None:
    ours = network.yes_probabilities(pictures()[name], SMALL_GOLDEN["questions"])
    what = f"yes-probability, small network, {name}"
    parity("BLIP-VQA", what, ours, SMALL_GOLDEN["probability"][name], against=ORIGINAL, atol=1e-6)


def test_yes_probability_equals_the_originals_to_the_last_digits_in_double_precision(
    parity: Compare,
) -> None:
    network = golden_network(SMALL_GOLDEN)
    network._network.double()
    for name, theirs in SMALL_GOLDEN["double"].items():
        ours = network.yes_probabilities(pictures()[name], SMALL_GOLDEN["questions"])
        what = f"the same in float64, {name}"
        parity("BLIP-VQA", what, ours, theirs, against=ORIGINAL, atol=1e-12)


@pytest.mark.slow
def test_full_size_yes_probability_equals_the_originals(parity: Compare) -> None:
    stored = golden("full")
    network = golden_network(stored)
    for name, theirs in stored["probability"].items():
        ours = network.yes_probabilities(pictures()[name], stored["questions"])
        what = f"yes-probability at full size, {name}"
        parity("BLIP-VQA", what, ours, theirs, against=ORIGINAL, atol=1e-6)


def _vision_eps(network: BlipVqa) -> None:
    for module in network._network.vision_model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5


def _one_head(network: BlipVqa) -> None:
    module: Any
    for module in network._network.text_encoder.modules():
        if hasattr(module, "num_attention_heads"):
            module.num_attention_heads, module.attention_head_size = 1, SMALL.hidden_size


MISTAKES: dict[str, Callable[[BlipVqa, pytest.MonkeyPatch], None]] = {
    "[CLS] kept": lambda network, patch: patch.setattr(
        network, "_tokenizer", lambda question, real=network._tokenizer: [CLS, *real(question)[1:]]
    ),
    "another start": lambda network, patch: patch.setattr(blip_vqa, "DEC", SEP),
    "another mean": lambda network, patch: patch.setattr(blip_vqa, "MEAN", (0.5, 0.5, 0.5)),
    "384 pixels": lambda network, patch: patch.setattr(
        blip_vqa, "pixels", lambda image, size: torch.nn.functional.pad(pixels(image, 384), (0, 96, 0, 96))
    ),
    "eps of the class": lambda network, patch: _vision_eps(network),
    "another number of heads": lambda network, patch: _one_head(network),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_golden_answers_would_show_a_mistake(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = golden_network(SMALL_GOLDEN)
    network._network.double()
    MISTAKES[mistake](network, monkeypatch)
    ours = network.yes_probabilities(pictures()["blobs_97x333"], SMALL_GOLDEN["questions"])
    assert np.abs(np.subtract(ours, SMALL_GOLDEN["double"]["blobs_97x333"])).max() > 1e-8


def test_pixels_are_those_of_the_originals_transform() -> None:
    pytest.importorskip("torchvision", exc_type=ImportError)
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    from PIL import Image
    from torchvision import transforms

    theirs: Any = transforms.Compose(
        [
            transforms.Resize((480, 480), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, blip_vqa.STD),
        ]
    )
    for image in pictures().values():
        expected = theirs(Image.fromarray(image))
        assert torch.equal(pixels(image, 480)[0], expected)


def test_order_of_questions_and_repeated_calls_change_nothing(network: BlipVqa) -> None:
    image, questions = pictures()["noise_640x360"], SMALL_GOLDEN["questions"]
    first = network.yes_probabilities(image, questions)
    network.yes_probabilities(pictures()["red_32x32"], questions[:2])
    assert network.yes_probabilities(image, questions) == first
    turned = network.yes_probabilities(image, questions[::-1])[::-1]
    assert np.abs(np.subtract(turned, first)).max() <= 1e-6


def test_one_question_alone_is_answered_as_among_others(network: BlipVqa) -> None:
    image, questions = pictures()["grey_90x60"], SMALL_GOLDEN["questions"]
    together = network.yes_probabilities(image, questions)
    alone = [network.yes_probabilities(image, [question])[0] for question in questions]
    assert np.abs(np.subtract(alone, together)).max() <= 1e-6


def test_image_is_encoded_and_projected_once_for_all_its_questions(
    network: BlipVqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Tensor] = []
    real = network.encode_image
    monkeypatch.setattr(network, "encode_image", lambda image: encoded.append(real(image)) or encoded[-1])
    projected: list[Tensor] = []
    text_encoder: Any = network._network.text_encoder
    keys = text_encoder.encoder.layer[0].crossattention.self.key._layer
    hook = keys.register_forward_hook(lambda module, given, result: projected.append(result))
    network.yes_probabilities(some_picture(), SMALL_GOLDEN["questions"])
    assert len(encoded) == len(projected) == 1
    network.yes_probabilities(some_picture(1), SMALL_GOLDEN["questions"])
    assert len(encoded) == len(projected) == 2
    hook.remove()
    assert network.yes_probabilities(some_picture(), []) == [] and len(encoded) == 2


# ---- the scorer ------------------------------------------------------------------------------------------


def scorer(network: Any, *chunks: str) -> BlipVqaScorer:
    return BlipVqaScorer(ScorerRecord(name="blip_vqa", version=1), SETTINGS, network, Chunks(*chunks))


class Answers:
    """In the place of the network: the same answers to everything."""

    def __init__(self, *answers: float) -> None:
        self.answers, self.questions = answers, ()

    def yes_probabilities(self, image: np.ndarray, questions: tuple[str, ...]) -> list[float]:
        self.questions = tuple(questions)
        return list(self.answers[: len(questions)])


def test_score_comes_with_its_questions_and_their_probabilities() -> None:
    scored = scorer(Answers(0.97654, 0.12345), "a green bench", "the left", "a Blue bowl").score(
        some_picture(), "", prompt("a green bench on the left of a Blue bowl"), 0
    )
    assert scored.score == rounded(float(np.float32(0.9765) * np.float32(0.1235)))
    assert scored.reason == "a green bench? .98 · a Blue bowl? .12"
    assert scored.evidence == {
        "questions": [
            {"question": "a green bench?", "probability": 0.9765},
            {"question": "a Blue bowl?", "probability": 0.1235},
        ]
    }
    assert scored.parts == {"num_phrases": 2}
    json.dumps(scored.evidence)


def test_prompt_without_a_noun_phrase_scores_one_and_says_so() -> None:
    scored = scorer(Answers()).score(some_picture(), "", prompt("running"), 0)
    assert scored.score == 1 and "no noun phrase" in scored.reason
    assert scored.evidence == {"questions": []}


def test_more_than_eight_phrases_ask_eight() -> None:
    answers = Answers(*[0.9] * 8)
    scored = scorer(answers, *(f"thing {i}" for i in range(12))).score(some_picture(), "", prompt("x"), 0)
    assert answers.questions == tuple(f"thing {i}?" for i in range(8))
    assert scored.score == 0.4305


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.full((7, 500, 3), 128, np.uint8),
        some_picture(height=600, width=3),
    ],
    ids=["one pixel", "grey", "narrow"],
)
def test_any_picture_has_a_score(models: Path, image: np.ndarray) -> None:
    built = build_scorer("blip_vqa", settings(), context(models))
    scored = built.score(image, "", prompt("a green bench and a blue bowl"), 0)
    assert 0 <= scored.score <= 1 and scored.parts["num_phrases"] == 2
    assert scored == built.score(image, "another digest", prompt("a green bench and a blue bowl"), 3)


def test_prompt_of_any_script_has_a_score(models: Path) -> None:
    built = build_scorer("blip_vqa", settings(), context(models))
    scored = built.score(some_picture(), "", prompt("日本の ベンチ 🪑 naïve café «bench» \u202e\x00"), 0)
    assert 0 <= scored.score <= 1


# ---- building --------------------------------------------------------------------------------------------


def test_built_scorer_records_all_that_shapes_a_score(models: Path) -> None:
    index = json.loads((models / INDEX).read_text())["files"]
    for weights, size in IMAGE_SIZES.items():
        built = build_scorer("blip_vqa", settings(weights=weights, image_size=size), context(models))
        assert built.record.weights == {id: index[id]["sha256"] for id in (weights, VOCAB_ID)}
        assert built.record.random_weights and built.record.name == "blip_vqa"
        recorded = built.record.settings
        assert recorded["weights"] == weights and recorded["precision"] == "float32"
        assert recorded["np_num"] == 8 and recorded["dropped_chunks"] == list(DROPPED)
        assert recorded["phrases"]
        json.dumps(recorded)


@pytest.mark.parametrize("id", ["blip-vqa", "bert-vocab"])
def test_missing_file_is_named_with_the_way_on(models: Path, id: str) -> None:
    (located,) = [path for path in models.iterdir() if path.name == blip_vqa_file(id)]
    located.unlink()
    with pytest.raises(MissingWeights, match=f"missing weights '{id}'.*weights fetch {id}"):
        build_scorer("blip_vqa", settings(), context(models))


def blip_vqa_file(id: str) -> str:
    from bench.weights.files import WEIGHTS

    return WEIGHTS[id].file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "blip-vqa-hf384"}, "image_size must be 384 for weights blip-vqa-hf384, got 480"),
        ({"image_size": 384}, "image_size must be 480 for weights blip-vqa, got 384"),
        ({"np_num": 0}, "np_num must be >= 1, got 0"),
        ({"weights": "blip2"}, "scorers.blip_vqa.weights must be one of"),
        ({"np_number": 8}, "unknown field scorers.blip_vqa.np_number"),
    ],
)
def test_wrong_settings_are_named(models: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_scorer("blip_vqa", settings(**changes), context(models))


# ---- weights files ---------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    random_weights("blip-vqa", tmp_path / "small.pth", seed=3)
    return tmp_path / "small.pth"


def load(path: Path, *, random: bool = True, weights: str = "blip-vqa") -> dict[str, Tensor]:
    return load_state(path, weights=weights, image_size=IMAGE_SIZES[weights], random=random)[0]


def change(path: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    data = torch.load(path, weights_only=True)
    edit(data["model"])
    torch.save(data, path)


@pytest.mark.parametrize("kind", ["small", "full"])
def test_expected_tensors_are_as_many_as_the_originals(kind: str) -> None:
    stored = golden(kind)
    shapes = original_shapes(Architecture(**stored["architecture"]), 480)
    assert len(shapes) == stored["num_tensors"]
    shared = sum(math.prod(shapes[name]) for name in TIED)
    assert sum(map(math.prod, shapes.values())) - shared == stored["num_parameters"]


def test_buffers_of_the_published_checkpoint_are_ignored(checkpoint: Path) -> None:
    expected = load(checkpoint)
    name = "text_encoder.embeddings.position_ids"
    change(checkpoint, lambda state: state.update({name: torch.arange(48)[None]}))
    assert load(checkpoint).keys() == expected.keys()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("visual_encoder.norm.weight"), r"1 missing \(visual_encoder.norm.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (
            lambda s: s.update({"visual_encoder.cls_token": torch.zeros(1, 1, 17)}),
            r"1 of another form \(visual_encoder.cls_token is \(1, 1, 17\) float32, expected \(1, 1, 16\)",
        ),
        (
            lambda s: s.update({k: s[k].half() for k in list(s)[:3]}),
            r"3 of another form \(visual_encoder.cls_token is \(1, 1, 16\) float16.*, \.\.\.\)",
        ),
        (
            lambda s: s.update({next(iter(TIED)): torch.zeros(30524, 16)}),
            "decoder.weight differs from text_decoder.bert.embeddings.word_embeddings.weight",
        ),
    ],
    ids=["missing", "unexpected", "shape", "dtype", "tie"],
)
def test_wrong_tensors_are_one_line(
    checkpoint: Path, edit: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    change(checkpoint, edit)
    with pytest.raises(UserError, match=message) as caught:
        load(checkpoint)
    assert "\n" not in str(caught.value) and str(checkpoint) in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("weights", IMAGE_SIZES)
def test_truncated_file_is_one_line(tmp_path: Path, weights: str, share: float) -> None:
    path = tmp_path / "weights"
    random_weights(weights, path, seed=3)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        UserError, match="cannot read '.*' as weights of BLIP .*is the download whole"
    ) as caught:
        load(path, weights=weights)
    assert "\n" not in str(caught.value)


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": {"x": Path("anything but tensors")}}, path)
    with pytest.raises(UserError, match="cannot read"):
        load(path)


def test_state_dict_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"model": {"x": 1}}, path)
    with pytest.raises(UserError, match="holds no state dict of BLIP"):
        load(path)
    torch.save([1], path)
    with pytest.raises(UserError, match="holds no state dict of BLIP"):
        load(path)


def test_random_weights_are_not_taken_for_published_ones(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="random weights for rehearsals"):
        load(checkpoint, random=False)


def test_small_tensors_without_sizes_of_their_own_do_not_fit(checkpoint: Path) -> None:
    torch.save({"model": torch.load(checkpoint, weights_only=True)["model"]}, checkpoint)
    with pytest.raises(UserError, match="of 789 tensors .* missing .*another form"):
        load(checkpoint)


def test_hub_file_holds_the_same_network_at_384_and_is_not_the_published_one(
    tmp_path: Path, checkpoint: Path
) -> None:
    hub = tmp_path / "hub.safetensors"
    random_weights("blip-vqa-hf384", hub, seed=3)
    assert not set(TIED) & set(load_file(hub)), "as in a file of the hub, shared tensors are there once"
    ours, theirs = load(checkpoint), load(hub, weights="blip-vqa-hf384")
    assert ours.keys() == theirs.keys()
    different = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert different == {"vision_model.embeddings.position_embedding"}
    with pytest.raises(UserError, match="holds the hub's conversion"):
        load(hub)
    save_file(load_file(hub), hub)
    with pytest.raises(UserError, match="is not BLIP VQA"):
        load(hub, weights="blip-vqa-hf384", random=False)


def test_broken_weights_are_an_error_and_not_a_score() -> None:
    state = random_state(SMALL, 480, seed=1)
    state["visual_encoder.norm.weight"][0] = math.nan
    network = build_network({hub_name(name): tensor for name, tensor in state.items()}, SMALL, 480)
    asks = BlipVqa(network, QuestionTokenizer({p: i for i, p in enumerate(small_vocab())}), 480)
    with pytest.raises(UserError, match="no finite probability"):
        asks.yes_probabilities(some_picture(), ["a dog?"])


def test_vocabulary_must_be_that_of_bert_base_uncased(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    random_weights(VOCAB_ID, path, seed=0)
    vocab = read_vocab(path)
    assert (vocab["yes"], vocab["no"], vocab["[SEP]"], len(vocab)) == (2748, 2053, 102, 30522)
    path.write_text("[PAD]\nyes\nno\n")
    with pytest.raises(UserError, match="expected 30522 pieces with 'yes' at 2748, got 3 with 'yes' at 1"):
        read_vocab(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a vocabulary"):
        read_vocab(path)


def test_random_weights_answer_differently_to_questions_and_pictures(network: BlipVqa) -> None:
    answers = np.array(list(SMALL_GOLDEN["probability"].values()))
    assert answers.std(0).mean() > 0.02 and answers.std(1).mean() > 0.02
