"""The page in a real browser, opened from a disk: a rater answers by keyboard, reloads, and finishes."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.humaneval.study import Key, Study
from tests.bench.humaneval.chromium import Chromium, find_chromium
from tests.bench.humaneval.studies import HOSTILE, NAMES, export, humaneval, opened
from tests.bench.humaneval.test_humaneval_video import video_study

PROGRAM = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"),
]
READY = "typeof ready !== 'undefined' && ready && performance.now() - shownAt > SETTLE_MS"
PROMPTS = 5  # two questions: ten items


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    assert PROGRAM is not None
    with Chromium(PROGRAM, tmp_path / "profile", tmp_path / "downloads") as browser:
        browser.resize(1280, 800)
        yield browser


def address(place: Path, query: str = "?rater=r01") -> str:
    return (place / "study" / "index.html").as_uri() + query


def key_of(study: Study, trial_id: str, choice: str, *, second: bool = False) -> str:
    """The key that gives this answer to this trial: the first or the second of its keys."""
    trial = next(trial for trial in study.trials if trial.id == trial_id)
    choices = {one.code: one.keys for one in study.question(trial.question).choices}
    return choices[choice][1 if second else 0]


def current(browser: Chromium) -> str:
    return browser.evaluate("trials[state.position].id")


def answer_all(
    browser: Chromium, study: Study, choose: Callable[[str], str], *, until: int | None = None
) -> list[str]:
    """Answer by keyboard what is open, up to `until` answers; returns the trials in order."""
    done: list[str] = []
    while browser.evaluate("screen") != "done" and len(done) != until:
        if browser.evaluate("screen") != "trial":
            browser.press("Enter")
            continue
        browser.wait(READY)
        trial = current(browser)
        browser.press(key_of(study, trial, choose(trial), second=len(done) % 2 == 1))
        browser.wait(
            f"state.answers['{trial}'] && (screen !== 'trial' || trials[state.position]?.id !== '{trial}')"
        )
        browser.wait("!busy")
        done.append(trial)
    return done


def truthful(study: Study, key: Key) -> Callable[[str], str]:
    """A wins the first two prompts, the third is a draw, B wins the rest."""
    order = [prompt.id for prompt in key.prompts]

    def choose(trial_id: str) -> str:
        truth = key.trials[trial_id]
        place = order.index(truth.prompt_id)
        if place == 2:
            codes = [one.code for one in study.question(question[trial_id]).choices]
            return "tie" if "tie" in codes else "both_bad"
        wanted = "a" if place < 2 else "b"
        return "left" if truth.left == wanted else "right"

    question = {trial.id: trial.question for trial in study.trials}
    return choose


def downloaded(folder: Path, pattern: str) -> Path:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [path for path in folder.glob(pattern) if path.stat().st_size]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"nothing like {pattern} in {list(folder.iterdir())}")


def test_ten_items_by_keyboard_with_a_reload_and_the_analysis_is_the_truth(
    browser: Chromium, tmp_path: Path
) -> None:
    assert export(tmp_path, count=PROMPTS, raters=2).exit_code == 0
    study, _, key = opened(tmp_path)
    choose = truthful(study, key)
    wanted = [trial.id for trial in study.trials if trial.rater == "r01"]
    assert len(wanted) == 10
    browser.open(address(tmp_path))
    seen = answer_all(browser, study, choose, until=4)
    browser.reload()
    assert browser.evaluate("byId('begin-label').textContent") == "Continue"
    assert "4 of 10" in browser.evaluate("byId('start-note').textContent")
    seen += answer_all(browser, study, choose)
    assert seen == wanted
    browser.press("Enter")  # saves
    path = downloaded(tmp_path / "downloads", "*.json")
    assert path.name == f"answers-{study.study_id}-r01.json"
    record = json.loads(path.read_text())
    assert record["complete"] and not record["simulated"]
    assert all(200 <= answer["ms"] < 60_000 and answer["layout"] == "row" for answer in record["answers"])
    done = humaneval("import", tmp_path / "study", path)
    assert "10 added, 0 kept" in done.stdout, done.output
    browser.evaluate("byId('save-csv').click()")
    table = downloaded(tmp_path / "downloads", "*.csv")
    assert "0 added, 10 kept" in humaneval("import", tmp_path / "study", table).stdout
    assert study.rules.min_seconds == 1.0  # the browser is faster: the truth is before the rules
    assert humaneval("analyze", tmp_path / "study").exit_code == 0
    found = json.loads((tmp_path / "study-answers" / "analysis.json").read_text())
    assert (found["a"], found["b"]) == NAMES
    for question in found["questions"]:
        shares = [question["before"][name]["value"] for name in ("win", "draw", "lose", "net")]
        assert shares == pytest.approx([0.4, 0.2, 0.4, 0.0])
    assert browser.complaints() == []
    asked = browser.addresses()
    assert asked and all(one.startswith(("file://", "blob:")) for one in asked), asked


def test_a_prompt_with_markup_is_shown_as_text_and_only_where_it_may(
    browser: Chromium, tmp_path: Path
) -> None:
    assert export(tmp_path, count=2, raters=1).exit_code == 0
    study, _, _ = opened(tmp_path)
    browser.open(address(tmp_path, ""))
    shown = []
    while browser.evaluate("screen") != "done":
        if browser.evaluate("screen") != "trial":
            browser.press("Enter")
            continue
        browser.wait(READY)
        hidden, text = browser.evaluate("[byId('prompt').hidden, byId('prompt').textContent]")
        is_quality = browser.evaluate("trials[state.position].question") == "quality"
        assert hidden == is_quality
        if is_quality:
            assert text == "" and not browser.evaluate(
                "study.texts.some(text => document.body.innerText.includes(text))"
            )
        else:
            shown.append(text)
        answer_all(browser, study, lambda _: "left", until=1)
    assert HOSTILE in shown and browser.evaluate("window.pwned === undefined")
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
    assert browser.complaints() == []


def test_a_step_back_changes_an_answer_and_goes_on_where_it_was(browser: Chromium, tmp_path: Path) -> None:
    assert export(tmp_path, "--questions", "quality", count=4, raters=1).exit_code == 0
    study, _, _ = opened(tmp_path)
    browser.open(address(tmp_path))
    first, second = answer_all(browser, study, lambda _: "left", until=2)
    browser.wait(READY)
    third = current(browser)
    for _ in range(2):
        browser.press("Backspace")
        browser.wait(READY)
    assert current(browser) == first
    assert browser.evaluate("document.querySelector('[aria-pressed=true]').dataset.choice") == "left"
    answer_all(browser, study, lambda _: "right", until=1)
    browser.wait(READY)
    assert current(browser) == third
    choices = browser.evaluate(
        "Object.fromEntries(Object.entries(state.answers).map(([k, v]) => [k, v.choice]))"
    )
    assert choices == {first: "right", second: "left"}


def test_keys_wait_for_the_pictures_and_do_not_answer_twice(browser: Chromium, tmp_path: Path) -> None:
    assert export(tmp_path, "--questions", "quality", count=4, raters=1).exit_code == 0
    browser.open(address(tmp_path))
    browser.press("Enter")
    browser.press("Enter")
    for _ in range(10):  # before the first pair has settled
        browser.press("ArrowLeft")
    browser.wait(READY)
    assert browser.evaluate("numDone()") == 0
    for _ in range(5):
        browser.press("ArrowLeft")
    browser.wait("!busy && " + READY)
    assert browser.evaluate("numDone()") == 1
    browser.press(" ")  # enlarged: arrows change what is shown
    assert browser.evaluate("byId('zoom').open")
    browser.press("ArrowRight")
    assert browser.evaluate("byId('zoom-right').getAttribute('aria-pressed')") == "true"
    browser.press("Escape")
    browser.wait("!byId('zoom').open")
    assert browser.evaluate("numDone()") == 1


def test_a_missing_picture_is_said_and_can_be_tried_again(browser: Chromium, tmp_path: Path) -> None:
    assert export(tmp_path, "--questions", "quality", count=2, raters=1).exit_code == 0
    study, _, _ = opened(tmp_path)
    path = tmp_path / "study" / "media" / study.trials[0].left
    data = path.read_bytes()
    path.unlink()
    browser.open(address(tmp_path))
    browser.press("Enter")
    browser.press("Enter")
    browser.wait("!byId('failed').hidden")
    browser.press("ArrowLeft")
    assert browser.evaluate("numDone()") == 0
    path.write_bytes(data)
    browser.evaluate("byId('retry').click()")
    browser.wait(READY)
    assert browser.evaluate("byId('failed').hidden")


@pytest.mark.parametrize(
    ("width", "height", "phone"), [(1440, 900, False), (1024, 600, False), (390, 844, True)]
)
def test_a_pair_fits_the_window(
    browser: Chromium, tmp_path: Path, width: int, height: int, phone: bool
) -> None:
    assert export(tmp_path, "--questions", "alignment", count=3, raters=1).exit_code == 0
    browser.resize(width, height, phone=phone)
    browser.open(address(tmp_path))
    browser.press("Enter")
    browser.press("Enter")
    browser.wait(READY)
    boxes: dict[str, Any] = browser.evaluate(
        "Object.fromEntries("
        "['left', 'right', 'answers'].map(id => [id, byId(id).getBoundingClientRect().toJSON()]))"
    )
    for box in boxes.values():
        assert box["left"] >= 0 and box["right"] <= width and box["top"] >= 0 and box["bottom"] <= height
    sides = [(boxes[side]["width"], boxes[side]["height"]) for side in ("left", "right")]
    assert sides[0] == pytest.approx(sides[1], abs=0.5)
    assert sides[0][0] == pytest.approx(sides[0][1], abs=0.5) and sides[0][0] > 170
    is_column = boxes["right"]["top"] >= boxes["left"]["bottom"]
    assert is_column == phone
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_two_videos_play_in_lockstep(browser: Chromium, tmp_path: Path) -> None:
    assert video_study(tmp_path, "webm", "--questions", "quality").exit_code == 0
    browser.open(address(tmp_path))
    browser.press("Enter")
    browser.press("Enter")
    browser.wait(READY)
    times: list[list[float]] = browser.evaluate(
        """new Promise(done => {
            const videos = [...document.querySelectorAll('.frame video')], seen = [];
            const start = performance.now();
            const look = () => {
                seen.push(videos.map(video => video.currentTime));
                if (performance.now() - start < 5000) requestAnimationFrame(look); else done(seen);
            };
            look();
        })"""
    )
    drift = sorted(abs(one - other) for one, other in times)
    assert len(times) > 50
    assert drift[int(0.95 * len(drift))] < 1 / 8, drift[-5:]  # a frame lasts 1/8 s
    loops = sum(after[0] < before[0] - 0.5 for before, after in zip(times, times[1:], strict=False))
    assert loops >= 1 and max(time for time, _ in times) > 1.5
    browser.press("p")
    assert browser.evaluate("[...document.querySelectorAll('.frame video')].every(video => video.paused)")
    assert browser.complaints() == []


def test_answers_in_the_table_are_no_formulas(browser: Chromium, tmp_path: Path) -> None:
    assert export(tmp_path, count=2, raters=1).exit_code == 0
    browser.open(address(tmp_path))
    cells = browser.evaluate("""['=1+1', '+1', '-1', '@A', '\\tx', 'a,"b"', 'plain'].map(cell)""")
    rows = list(csv.reader([",".join(cells)]))
    assert rows == [["'=1+1", "'+1", "'-1", "'@A", "'\tx", 'a,"b"', "plain"]]
