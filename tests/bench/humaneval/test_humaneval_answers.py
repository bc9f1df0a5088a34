"""Import and analysis: nothing foreign enters, nothing is lost, and the numbers are those of the truth."""

from __future__ import annotations

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench.humaneval.analyse import Vote, judge_rater, references
from bench.humaneval.ingest import Answer, latest, read_log
from bench.humaneval.simulate import Truth, dump_answers, simulate
from bench.humaneval.study import Rules
from tests.bench.humaneval.studies import (
    NAMES,
    all_left,
    export,
    humaneval,
    opened,
    page_answers,
    refused,
    write_json,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("answers")
    assert export(place, "--gold", 2, "--flipped", 0.34).exit_code == 0
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A study of one's own: 6 prompts, 3 raters, 2 gold items and 2 flipped repeats a question."""
    for name in ("study", "study-key"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def log_of(place: Path) -> Path:
    return place / "study-answers" / "answers.jsonl"


def bring(place: Path, *files: object) -> Any:
    return humaneval("import", place / "study", *files)


def analysis(place: Path, *more: object) -> dict[str, Any]:
    done = humaneval("analyze", place / "study", *more)
    assert done.exit_code == 0, done.output
    return json.loads((place / "study-answers" / "analysis.json").read_text())


def by_rater(place: Path, rater: str = "r01", **changes: Any) -> Path:
    """A file with "left" everywhere."""
    study, digest, _ = opened(place)
    path = place / f"{rater}.json"
    return write_json(path, page_answers(study, digest, rater, all_left(study, rater), **changes))


def edited(path: Path, change: Any) -> Path:
    value = json.loads(path.read_text())
    change(value)
    return write_json(path, value)


# ---- import ----------------------------------------------------------------------------------------------


def test_importing_twice_changes_nothing(place: Path) -> None:
    files = [by_rater(place, rater) for rater in ("r01", "r02")]
    assert "40 added, 0 kept, 0 updated, 0 refused; 40 of 60" in bring(place, *files).stdout
    before = log_of(place).read_bytes()
    copy = shutil.copy(files[0], place / "the same again.json")
    assert "0 added, 40 kept" in bring(place, *files).stdout
    assert "0 added, 60 kept" in bring(place, *files, copy).stdout
    assert log_of(place).read_bytes() == before


def test_a_partial_file_is_completed_by_the_whole_one_in_any_order(place: Path) -> None:
    whole = by_rater(place)
    part = write_json(place / "part.json", json.loads(whole.read_text()))
    edited(part, lambda value: value.update(answers=value["answers"][:7], complete=False))
    assert "7 added" in bring(place, part).stdout
    assert "13 added, 7 kept" in bring(place, whole).stdout
    assert "0 added, 7 kept" in bring(place, part).stdout


def test_a_change_of_mind_counts_and_the_first_answer_is_not_lost(place: Path) -> None:
    path = by_rater(place)
    assert bring(place, path).exit_code == 0
    old = path.read_text()

    def change(value: dict[str, Any]) -> None:
        value["answers"][3] |= {"choice": "right", "at": "2026-01-01T00:05:00.000Z"}

    assert "0 added, 19 kept, 1 updated" in bring(place, edited(path, change)).stdout
    path.write_text(old)
    assert "0 added, 20 kept, 0 updated" in bring(place, path).stdout
    lines = read_log(log_of(place))
    assert len(lines) == 21
    trial = json.loads(old)["answers"][3]["trial"]
    assert latest(lines)["r01", trial].choice == "right"


def test_two_people_under_one_code_are_told_apart(place: Path) -> None:
    path = by_rater(place)
    assert bring(place, path).exit_code == 0
    before = log_of(place).read_bytes()

    def change(value: dict[str, Any]) -> None:
        value["token"] = "8899aabbccddeeff"
        value["answers"][3]["choice"] = "right"

    other = edited(path, change)
    refused(bring(place, other), "rater r01 answered trial", "import the second with --as NAME")
    assert log_of(place).read_bytes() == before
    assert "20 added" in bring(place, other, "--as", "r01-second").stdout
    refused(bring(place, other, "--as", "r02"), "--as must be a name that is no rater code")


def page_csv(place: Path, *, formula: bool = False) -> Path:
    study, digest, _ = opened(place)
    text = io.StringIO()
    names = ["study_id", "study_sha256", "rater", "token", "simulated", "trial", "question", "choice"]
    writer = csv.DictWriter(text, [*names, "ms", "at", "layout"])
    writer.writeheader()
    for trial in study.trials:
        if trial.rater == "r01":
            writer.writerow(
                {
                    "study_id": study.study_id,
                    "study_sha256": digest,
                    "rater": "r01",
                    "token": "0011223344556677",
                    "simulated": "false",
                    "trial": trial.id,
                    "question": trial.question,
                    "choice": "=HYPERLINK(1)" if formula else "left",
                    "ms": 3000,
                    "at": "2026-01-01T00:00:00.000Z",
                    "layout": "row",
                }
            )
    path = place / "answers.csv"
    path.write_text(text.getvalue())
    return path


def test_the_pages_csv_and_json_are_the_same_answers(place: Path) -> None:
    assert "20 added" in bring(place, page_csv(place)).stdout
    before = log_of(place).read_bytes()
    assert "0 added, 20 kept" in bring(place, by_rater(place)).stdout
    assert log_of(place).read_bytes() == before


def test_mturk_batches_are_read(place: Path) -> None:
    study, digest, _ = opened(place)
    trials = [trial for trial in study.trials if trial.question == "alignment"][:5]
    rows = []
    for k, trial in enumerate(trials):
        rows.append(
            {
                "AssignmentId": f"a{k}",
                "WorkerId": "A1WORKER",
                "AssignmentStatus": "Rejected" if k == 3 else "Approved",
                "WorkTimeInSeconds": "7",
                "Input.study_id": study.study_id,
                "Input.study_sha256": digest,
                "Input.trial": trial.id,
                "Answer.choice": "both_bad" if k == 0 else "",
                "Answer.choice.left": "true" if k == 1 else "false",
                "Answer.taskAnswers": '[{"choice": {"left": false, "right": true}}]' if k == 2 else "",
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path = place / "Batch_1.csv"
    path.write_text(text.getvalue())
    done = bring(place, path)
    assert "3 added, 0 kept, 0 updated, 2 refused" in done.stdout
    assert "1 x a rejected assignment" in done.stdout and "1 x an assignment without" in done.stdout
    answers = read_log(log_of(place))
    assert [answer.choice for answer in answers] == ["both_bad", "left", "right"]
    assert {answer.ms for answer in answers} == {7000} and "A1WORKER" not in log_of(place).read_text()
    assert "0 added, 3 kept" in bring(place, path).stdout


def label_studio(place: Path) -> list[dict[str, Any]]:
    tasks = json.loads((place / "study" / "platforms" / "label-studio-quality.json").read_text())[:4]
    for k, task in enumerate(tasks):
        result = [
            {"from_name": "choice", "to_name": "left", "type": "choices", "value": {"choices": ["tie"]}}
        ]
        task["annotations"] = [
            {
                "id": k,
                "completed_by": {"id": 5} if k == 0 else 6,
                "was_cancelled": k == 2,
                "result": [] if k == 3 else result,
                "lead_time": 4.25,
                "created_at": "2026-01-01T00:00:00.000000Z",
            }
        ]
    return tasks


def test_label_studio_exports_are_read(place: Path) -> None:
    done = bring(place, write_json(place / "ls.json", label_studio(place)))
    assert "2 added, 0 kept, 0 updated, 2 refused" in done.stdout, done.output
    answers = read_log(log_of(place))
    assert [(a.choice, a.ms, a.source) for a in answers] == [("tie", 4250, "label-studio")] * 2
    assert len({answer.rater for answer in answers}) == 2


def test_label_studios_short_form_is_the_same(place: Path) -> None:
    tasks = label_studio(place)
    assert bring(place, write_json(place / "ls.json", tasks)).exit_code == 0
    short = [
        {
            **task["data"],
            "annotator": (5, 6)[k],
            "annotation_id": k,
            "choice": "About the same",  # a project without aliases exports the label
            "lead_time": 4.25,
            "created_at": "2026-01-01T00:00:00.000000Z",
        }
        for k, task in enumerate(tasks[:2])
    ]
    assert "0 added, 2 kept" in bring(place, write_json(place / "min.json", short)).stdout


def test_a_platforms_mixture_of_trials_comes_in_under_a_name(place: Path) -> None:
    study, digest, _ = opened(place)
    choices = {trial.id: "left" for trial in study.trials[::7]}  # of all three raters
    path = write_json(place / "mixed.json", page_answers(study, digest, "annotator", choices))
    refused(bring(place, path), "unknown rater 'annotator'")
    assert f"{len(choices)} added" in bring(place, path, "--as", "annotator").stdout
    assert {answer.rater for answer in read_log(log_of(place))} == {"annotator"}


# ---- what is refused: one line, and the log stays as it was -----------------------------------------------


def _set(name: str, value: Any) -> Any:
    return lambda record: record.update({name: value})


def _set_answer(name: str, value: Any) -> Any:
    return lambda record: record["answers"][2].update({name: value})


def _twice(record: dict[str, Any]) -> None:
    record["answers"].append({**record["answers"][0], "choice": "right"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("study_id", "ffffffffffff"), "answers study 'ffffffffffff', this one is"),
        (_set("study_sha256", "0" * 64), "another version of study"),
        (_set("schema_version", 2), "schema_version must be 1, got 2"),
        (_set("kind", "something"), "is not a file of answers"),
        (_set("rater", "r77"), "unknown rater 'r77'; known: r01, r02, r03"),
        (_set("rater", "r02"), "was not shown to rater r02"),
        (_set("rater", 3), "rater must be a string"),
        (_set("simulated", "perhaps"), "simulated must be true or false"),
        (_set("answers", {}), 'must hold a list "answers"'),
        (_set_answer("trial", "dead"), "answer 3: unknown trial 'dead'"),
        (_set_answer("choice", "both_good"), "has the choice 'both_good'; known: left, tie, right"),
        (_set_answer("choice", "=cmd|'/c calc'!A1"), "has the choice"),
        (_set_answer("ms", "soon"), "a time must be a number, got 'soon'"),
        (_set_answer("ms", -5), "took -5 ms"),
        (_set_answer("ms", 1e300), "ms; expected 0 to"),
        (_set_answer("at", "yesterday"), "ISO 8601"),
        (_set_answer("layout", "diagonal"), "layout must be row or column"),
        (_twice, "twice, differently"),
    ],
)
def test_a_bad_file_is_one_line_and_nothing_is_lost(place: Path, change: Any, message: str) -> None:
    assert bring(place, by_rater(place, "r03")).exit_code == 0
    before = log_of(place).read_bytes()
    good = by_rater(place, "r02")
    bad = edited(by_rater(place), change)
    refused(bring(place, good, bad), str(bad), message)
    assert log_of(place).read_bytes() == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b'{"kind": "gentron-humaneval-ans', "is damaged"),
        (b'{"a": "\xff\xfe"}', "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"a,b\n1,2\n", "is not a file of answers: it must have the columns study_id"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is damaged"),
        (b"[3]", "task 1 must be an object"),
        (b'[{"x": 1}]', "neither an answer of the page nor an export"),
    ],
)
def test_damaged_files_are_one_line(place: Path, data: bytes, message: str) -> None:
    path = place / "bad"
    path.write_bytes(data)
    refused(bring(place, path), str(path), message)
    assert not log_of(place).exists()


def test_a_cut_off_csv_and_one_with_a_formula_are_refused(place: Path) -> None:
    path = page_csv(place)
    path.write_text(path.read_text()[:-40])
    refused(bring(place, path), "line 21 is cut off")
    refused(bring(place, page_csv(place, formula=True)), "line 2", "the choice '=HYPERLINK(1)'")
    refused(bring(place, place / "nowhere.csv"), "no file of answers")
    assert not log_of(place).exists()


def test_a_damaged_log_is_never_written_over(place: Path) -> None:
    assert bring(place, by_rater(place)).exit_code == 0
    broken = log_of(place).read_bytes()[:-30]
    log_of(place).write_bytes(broken)
    refused(bring(place, by_rater(place, "r02")), "answers.jsonl, line 20 is damaged")
    assert log_of(place).read_bytes() == broken


def test_keys_and_studies_are_checked(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert bring(place, by_rater(place)).exit_code == 0
    other = tmp_path_factory.mktemp("other")
    assert export(other).exit_code == 0
    key, study = place / "study-key" / "key.json", place / "study"
    refused(humaneval("analyze", study, "--key", other / "study-key"), "is the key of study")
    refused(humaneval("analyze", study, "--key", place / "none.json"), "no key at")
    refused(humaneval("analyze", study, "--key", study / "study.json"), "is not a humaneval-key")
    refused(humaneval("analyze", other / "study"), "no answers at")
    refused(humaneval("analyze", place / "nothing"), "no study in")
    text = key.read_text()
    key.write_text(text.replace('"left": "a"', '"left": "b"', 1))
    refused(humaneval("analyze", study), "was changed since the export")
    key.write_text(text[:-50])
    refused(humaneval("analyze", study), "is damaged")
    key.write_text(text)
    public = study / "study.json"
    newer = public.read_text().replace('"schema_version": 1', '"schema_version": 9', 1)
    public.write_text(newer)
    refused(humaneval("analyze", study), "schema_version 9 is newer than this release")
    other_question = newer.replace('"schema_version": 9', '"schema_version": 1', 1)
    public.write_text(other_question.replace('"question": "quality"', '"question": "beauty"', 1))
    refused(humaneval("analyze", study), "names an unknown question or rater")


# ---- analysis --------------------------------------------------------------------------------------------


def say(place: Path, rater: str, of_prompt: dict[str, str]) -> Path:
    """A file in which the rater's preference is by prompt: a, b or tie; gold right, repeats the same."""
    study, digest, key = opened(place)
    choices = {}
    for trial in study.trials:
        truth = key.trials[trial.id]
        if trial.rater != rater:
            continue
        wanted = "intact" if truth.kind == "gold" else of_prompt[truth.prompt_id]
        if wanted == "tie":
            choices[trial.id] = "tie" if trial.question == "quality" else "both_good"
        else:
            choices[trial.id] = "left" if truth.left == wanted else "right"
    path = place / f"{rater}-said.json"
    return write_json(path, page_answers(study, digest, rater, choices))


PREFERENCES = dict(
    zip([f"line-{k:04d}" for k in range(1, 7)], ["a", "a", "a", "tie", "b", "tie"], strict=True)
)


def test_win_draw_lose_are_exactly_what_was_said(place: Path) -> None:
    files = [say(place, rater, PREFERENCES) for rater in ("r01", "r02", "r03")]
    assert bring(place, *files).exit_code == 0
    found = analysis(place)
    assert (found["a"], found["b"], found["simulated"]) == (*NAMES, False)
    for question in found["questions"]:
        after = question["after"]
        assert after == question["before"]
        assert (after["votes"], after["prompts"], after["raters"]) == (18, 6, 3)
        shares = [after[name]["value"] for name in ("win", "draw", "lose", "net")]
        assert shares == pytest.approx([3 / 6, 2 / 6, 1 / 6, 2 / 6])
        assert (after["sign"]["for_a"], after["sign"]["tied"], after["sign"]["for_b"]) == (3, 2, 1)
        assert after["alpha_nominal"] == after["alpha_ordinal"] == 1.0
        for name in ("win", "draw", "lose", "net"):
            low, high = after[name]["interval"]
            assert low < after[name]["value"] < high
            assert after[name]["prompt_interval"][0] <= after[name]["value"]
    assert all(not record["excluded"] and record["gold_failed"] == 0 for record in found["raters"])
    assert [row["lose"] for row in found["references"]] == [0.291, 0.148]


def test_both_good_and_both_bad_are_kept_apart_and_both_are_draws(place: Path) -> None:
    study, digest, key = opened(place)
    trials = [t for t in study.trials if t.question == "alignment" and key.trials[t.id].kind == "pair"]
    choices = {t.id: ("both_good", "both_bad")[k % 2] for k, t in enumerate(trials) if t.rater == "r01"}
    path = write_json(place / "ties.json", page_answers(study, digest, "r01", choices))
    assert bring(place, path).exit_code == 0
    after = analysis(place)["questions"][1]["after"]
    assert after["draw"]["value"] == 1.0 and after["codes"] == {"both_bad": 3, "both_good": 3}
    assert after["left_pick"] is None


def test_careless_and_biased_raters_are_excluded_and_both_results_are_given(place: Path) -> None:
    study, digest, key = opened(place)
    good = say(place, "r01", PREFERENCES)
    left = by_rater(place, "r02")  # every flipped repeat contradicted, half of the gold items failed
    fast = edited(say(place, "r03", PREFERENCES), lambda value: [a.update(ms=300) for a in value["answers"]])
    assert bring(place, good, left, fast).exit_code == 0
    found = analysis(place)
    records = {record["rater"]: record for record in found["raters"]}
    assert not records["r01"]["excluded"]
    assert any("4 of 4 flipped repeats contradicted" in reason for reason in records["r02"]["excluded"])
    assert any("gold items failed" in reason for reason in records["r02"]["excluded"])
    assert records["r03"]["excluded"] == ["20 of 20 answers faster than 1 s"]
    for question in found["questions"]:
        assert (question["before"]["votes"], question["after"]["votes"]) == (18, 6)
        assert question["after"]["win"]["value"] == pytest.approx(0.5)
    text = (place / "study-answers" / "analysis.md").read_text()
    assert "20 of 20 answers faster than 1 s" in text and "all votes" in text


def rules() -> Rules:
    return Rules(
        min_seconds=1.0,
        max_fast_share=0.2,
        max_gold_failed_share=0.25,
        max_contradicted_share=0.5,
        min_checks=2,
    )


def vote(kind: str, net: int, code: str = "left", seconds: float = 3.0, prompt: str = "p") -> Vote:
    side = {0: "tie"}.get(net, "left")
    return Vote(
        rater="r",
        question="alignment",
        prompt_id=prompt,
        kind=kind,
        code=code,
        side=side,
        net=net,
        seconds=seconds,
    )


def test_neither_fits_passes_a_gold_item_and_equal_fails_it() -> None:
    gold = [vote("gold", 0, code) for code in ("both_bad", "both_good")] + [vote("gold", 1), vote("gold", -1)]
    assert judge_rater("r", gold, rules()).gold_failed == 2


def test_a_tie_is_no_contradiction_and_few_checks_drop_nobody() -> None:
    votes = [vote("pair", 1, prompt="p"), vote("repeat", 0, "both_good", prompt="p")]
    assert judge_rater("r", votes, rules()).contradicted == 0
    votes = [vote("pair", 1, prompt="p"), vote("repeat", -1, prompt="p")]
    record = judge_rater("r", votes, rules())
    assert (record.repeats, record.contradicted, record.excluded) == (1, 1, [])


def test_the_papers_row_is_as_published() -> None:
    assert [(row.question, row.win, row.draw, row.lose) for row in references()] == [
        ("quality", 0.511, 0.198, 0.291),
        ("alignment", 0.423, 0.429, 0.148),
    ]
    assert all(abs(row.win + row.draw + row.lose - 1) < 1e-9 for row in references())


def test_the_plot_is_a_picture_with_the_numbers_in_it(place: Path) -> None:
    assert bring(place, say(place, "r01", PREFERENCES)).exit_code == 0
    analysis(place)
    root = ElementTree.parse(place / "study-answers" / "analysis.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"50.0", "33.3", "51.1", "GenTron / SDXL", f"{NAMES[0]} wins"} <= set(texts)


# ---- simulated raters ------------------------------------------------------------------------------------


def test_simulated_raters_need_a_flag_and_leave_a_mark(place: Path) -> None:
    sim = place / "sim"
    assert humaneval("simulate", place / "study", "--out", sim).exit_code == 0
    assert bring(place, *sorted(sim.iterdir())).exit_code == 0
    refused(humaneval("analyze", place / "study"), "simulated raters", "--allow-simulated")
    assert not (place / "study-answers" / "analysis.json").exists()
    assert analysis(place, "--allow-simulated")["simulated"] is True
    for name in ("analysis.md", "analysis.svg"):
        assert "simulated raters" in (place / "study-answers" / name).read_text().lower()


def test_simulated_and_real_answers_never_meet(place: Path) -> None:
    sim = place / "sim"
    assert humaneval("simulate", place / "study", "--out", sim).exit_code == 0
    assert bring(place, *sorted(sim.iterdir())).exit_code == 0
    refused(bring(place, by_rater(place)), "both simulated and real")
    log = log_of(place)
    real = [
        {**json.loads(line), "simulated": False, "rater": "x"} for line in log.read_text().splitlines()[:1]
    ]
    log.write_text(log.read_text() + json.dumps(real[0]) + "\n")
    refused(humaneval("analyze", place / "study", "--allow-simulated"), "must never be mixed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--win", "0.9"], "must be shares that add up to 1"),
        (["--careless", "2"], "careless must be a share"),
        (["--rater-sd", "-1"], "rater_sd must be in"),
    ],
)
def test_bad_truths_are_one_line(place: Path, words: list[str], message: str) -> None:
    refused(humaneval("simulate", place / "study", "--out", place / "sim", *words), message)


def test_the_analysis_finds_the_simulated_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "bench.humaneval.export.secrets.token_hex", lambda size: "5a" * size
    )  # same votes always
    checks = ("--gold", 4, "--flipped", 0.2, "--questions", "alignment")
    assert export(tmp_path, *checks, count=40, raters=8).exit_code == 0
    study, digest, key = opened(tmp_path)
    truth = Truth(win=0.5, draw=0.2, lose=0.3, prompt_sd=0.7, rater_sd=0.2, left_bias=0.15, careless=0.25)
    files = [
        write_bytes(tmp_path / f"{rater}.json", dump_answers(record))
        for rater, record in simulate(study, digest, key, truth, seed=3).items()
    ]
    assert bring(tmp_path, *files).exit_code == 0
    found = analysis(tmp_path, "--allow-simulated")
    assert sum(bool(record["excluded"]) for record in found["raters"]) == 2  # the careless, nobody else
    for question in found["questions"]:
        after = question["after"]
        assert (after["votes"], after["raters"]) == (40 * 6, 6)
        for name, true in (("win", 0.5), ("draw", 0.2), ("lose", 0.3), ("net", 0.2)):
            low, high = after[name]["interval"]
            assert low <= true <= high, (question["name"], name, after[name])
            assert high - low < (0.7 if name == "net" else 0.4)
        low, high = after["left_pick"]["interval"]
        assert after["left_pick"]["value"] > 0.5
        assert 0 < after["alpha_ordinal"] < 0.6


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_answers_are_kept_as_lines_of_their_own_record(place: Path) -> None:
    assert bring(place, by_rater(place)).exit_code == 0
    first = json.loads(log_of(place).read_text().splitlines()[0])
    assert set(first) == set(Answer.__dataclass_fields__)
