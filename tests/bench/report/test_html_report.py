"""The report: what stands together, what is said beside it, and the page as a browser shows it."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.commands.report import report
from bench.report.entries import load
from bench.report.html import page as page_module
from bench.report.html.page import asset, page, policy
from bench.report.html.plots import Dot, Line, Point, axis, dot_plot, heat_map, line_plot
from bench.report.overview import Comparison, Section, overview
from bench.report.tables import latex, markdown, md, tex
from bench.scorers.score import Missing
from gentron.console import make_app
from tests.bench.results.made_results import made_set_metric, write_made

HOSTILE = """<script>document.title="owned"</script>"'&<img src=x onerror=alert(1)> | `x` $y_1$"""

app = make_app("test")
app.command()(report)
app.command(name="other")(lambda: None)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, words)])


def assert_one_line(done: Result, *messages: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for message in messages:
        assert message in done.stderr


def sections(*places: Path) -> list[Section]:
    return overview(load(list(places), keep_going=False)).sections


def comparison(*places: Path) -> Comparison:
    (section,) = sections(*places)
    (found,) = section.comparisons
    return found


def full_page(*places: Path, pictures: int = 2) -> str:
    return page(overview(load(list(places), keep_going=False)), pictures=pictures)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with all that a report can show, in a folder that no test changes."""
    tmp_path = tmp_path_factory.mktemp("everything")
    results = tmp_path / "results"
    steps = {"num_steps": 8}
    for k, scale in enumerate((1.0, 2.0, 4.0)):
        folder = results / "made_v1" / "alpha" / f"run{k}"
        write_made(
            folder,
            level=0.3 + 0.2 * k,
            settings={"guidance_scale": scale, **steps},
            pictures=tmp_path / f"work{k}",
            hue=80 * k,
            date=f"2026-01-0{k + 1}T00:00:00+00:00",
        )
    write_made(
        results / "made_v1" / "alpha" / "later",
        level=0.9,
        settings={"guidance_scale": 4.0, **steps},
        weights="99" * 32,
        date="2026-02-01T00:00:00+00:00",
        commit="fedcba98" * 5,
    )
    write_made(
        results / "made_v1" / "beta" / "run",
        system="beta",
        level=0.6,
        texts={"color-0000": HOSTILE},
        reason=HOSTILE,
        pictures=tmp_path / "work-b",
        limit=6,
        skip=["complex"],
        set_metrics=[made_set_metric(12.5)],
        missing=[Missing(prompt_id="color-0009", sample=0, file="x.png", reason="corrupt")],
        command=HOSTILE,
    )
    write_made(results / "made_v1" / "gamma" / "run", system="gamma", untrained=True, level=0.0)
    write_made(results / "t2i-compbench_2024-02" / "alpha" / "run", protocol="t2i-compbench_2024-02")
    return results


# ---- what stands together --------------------------------------------------------------------------------


def test_protocols_and_their_hashes_are_never_mixed(tmp_path: Path) -> None:
    write_made(tmp_path / "a", protocol="one_v1")
    write_made(tmp_path / "b", protocol="two_v1")
    write_made(tmp_path / "c", protocol="two_v1", protocol_sha256="00" * 32)
    found = sections(tmp_path)
    assert [(s.protocol, s.sha256[:4]) for s in found] == [
        ("one_v1", "abab"),
        ("two_v1", "0000"),
        ("two_v1", "abab"),
    ]
    assert all(len(s.entries) == 1 for s in found)


def test_other_scorer_settings_are_a_table_of_their_own_that_names_the_field(tmp_path: Path) -> None:
    write_made(tmp_path / "a", system="alpha")
    write_made(tmp_path / "b", system="beta", scorer_settings={"precision": "bf16"})
    write_made(tmp_path / "c", system="gamma", random_weights=True)
    (section,) = sections(tmp_path)
    assert [[e.system for e in c.entries] for c in section.comparisons] == [["alpha"], ["beta"], ["gamma"]]
    first, second, third = section.comparisons
    assert first.apart == ""
    assert second.apart == "scorers.*.settings.precision"
    assert third.apart == "scorers.*.random_weights"
    assert "since they differ in scorers.*.settings.precision." in full_page(tmp_path)


def test_flags_say_why_a_number_is_no_result(everything: Path) -> None:
    shorts = {e.label: [f.short for f in e.flags] for e in comparison(everything / "made_v1").entries}
    assert shorts["gamma"] == ["untrained"]
    assert shorts["beta"] == ["1 missing", "first 6", "1 skipped"]
    # the installed protocol of the same name has another hash, so nothing is said of its number of images
    assert [s.entries[0].flags for s in sections(everything / "t2i-compbench_2024-02")] == [()]
    text = full_page(everything)
    for words in ("untrained: random weights", "no weights of its scorer here", "color-0009_00 (corrupt)"):
        assert words in text


def test_the_best_is_never_a_smoke_test_nor_a_result_of_another_size(tmp_path: Path) -> None:
    write_made(tmp_path / "a", system="low", level=0.2)
    write_made(tmp_path / "b", system="high", level=0.5)
    write_made(tmp_path / "c", system="short", level=0.9, count=2, limit=2)
    write_made(tmp_path / "d", system="untrained", level=1.0, untrained=True)
    found = comparison(tmp_path)
    best = found.best("color")
    assert best is not None and best.system == "high"
    assert full_page(tmp_path).count('class="best"') == 3  # a category each; the mean has two classes


def test_labels_tell_results_of_one_system_apart(everything: Path) -> None:
    labels = [e.label for e in comparison(everything / "made_v1").entries]
    assert len(set(labels)) == len(labels)
    assert "alpha · guidance 2" in labels and "alpha · guidance 4 · later" in labels and "beta" in labels


def test_a_mean_needs_all_categories(everything: Path) -> None:
    means = {e.label: e.mean for e in comparison(everything / "made_v1").entries}
    assert means["beta"] is None
    whole = means["alpha · guidance 2"]
    assert whole is not None and whole.low is not None and whole.low < whole.mean < (whole.high or 0)
    assert whole.num_images == 18


def test_no_interval_is_shown_where_every_prompt_scores_alike(tmp_path: Path) -> None:
    write_made(tmp_path / "a", level=-1.0)
    entry = comparison(tmp_path).entries[0]
    assert [(v.mean, v.low, v.high) for v in entry.values.values()] == [(0.0, None, None)] * 3


def test_intervals_are_shown_inside_the_scale(tmp_path: Path) -> None:
    write_made(tmp_path / "a", level=0.8, count=6)
    entry = comparison(tmp_path).entries[0]
    reach = {m.category: m.score.interval for m in entry.result.metrics}
    beyond = [name for name, ends in reach.items() if ends and ends[1] > 1]
    assert beyond and all(entry.values[name].high == 1.0 for name in beyond)
    assert all(entry.values[name].low == reach[name][0] for name in beyond)  # type: ignore[index]


# ---- sweeps and history ----------------------------------------------------------------------------------


def test_one_setting_makes_a_line_with_its_latest_values(everything: Path) -> None:
    found = comparison(everything / "made_v1")
    (sweep,) = found.sweeps
    # `later` has other weights, so it is no part of the sweep
    assert sweep.names == (("guidance_scale",),) and sweep.values(0) == [1.0, 2.0, 4.0]
    assert sweep.fixed == {"num_steps": 8}
    assert [e.label for _, e in sweep.points][-1] == "alpha · guidance 4 · run2"


def test_two_settings_make_a_grid_and_tied_ones_count_once(tmp_path: Path) -> None:
    for size in (64, 128):
        for scale in (1, 2):
            settings = {"height": size, "width": size, "guidance_scale": scale}
            write_made(tmp_path / f"{size}-{scale}", settings=settings)
    (sweep,) = comparison(tmp_path).sweeps
    assert sweep.names == (("height", "width"), ("guidance_scale",))
    assert sweep.values(0) == [64, 128]
    entry = sweep.at(64, 2)
    assert entry is not None and entry.result.system.settings["guidance_scale"] == 2
    text = full_page(tmp_path, pictures=0)
    assert "height, width × guidance_scale" in text and 'class="heat"' in text


def test_three_settings_are_cut_into_lines(tmp_path: Path) -> None:
    for a in (1, 2, 3):
        write_made(tmp_path / f"a{a}", settings={"a": a, "b": "x", "c": 1})
    write_made(tmp_path / "b", settings={"a": 1, "b": "y", "c": 1})
    write_made(tmp_path / "c", settings={"a": 1, "b": "y", "c": 2})
    (sweep,) = comparison(tmp_path).sweeps
    assert sweep.names == (("a",),) and len(sweep.points) == 3


def test_history_is_the_same_system_over_time(everything: Path) -> None:
    (history,) = comparison(everything / "made_v1").histories
    assert [e.result.provenance.date[:10] for e in history.entries] == ["2026-01-03", "2026-02-01"]
    text = full_page(everything)
    assert "2 results from 2026-01-03 to 2026-02-01, 2 sets of weights" in text and "fedcba98" in text


# ---- pictures --------------------------------------------------------------------------------------------


def sources(text: str) -> list[str]:
    return re.findall(r'<img[^>]* src="([^"]*)"', text)


def test_pictures_are_embedded_with_score_prompt_and_reason(tmp_path: Path) -> None:
    write_made(tmp_path / "r", pictures=tmp_path / "work", reason="two of four")
    text = full_page(tmp_path / "r", pictures=1)
    assert len(sources(text)) == 3 * 3  # lowest, highest, random
    assert all(source.startswith("data:image/png;base64,") for source in sources(text))
    assert text.count("two of four</p>") == 9 and "chance 0.12" in text
    assert sources(full_page(tmp_path / "r", pictures=0)) == []
    assert full_page(tmp_path / "r", pictures=1) == text


def test_lowest_and_highest_are_what_they_say(tmp_path: Path) -> None:
    write_made(tmp_path / "r", pictures=tmp_path / "work", count=12)
    text = full_page(tmp_path / "r", pictures=2)
    groups = re.findall(r"<h6>(\w+)</h6>(.*?)</div></div>", text, re.S)
    scores = [(name, [float(s) for s in re.findall(r"<b>([\d.]+)</b>", part)]) for name, part in groups]
    assert [name for name, _ in scores[:3]] == ["lowest", "highest", "random"]
    for (_, low), (_, high) in zip(scores[::3], scores[1::3], strict=True):
        assert max(low) < min(high)


def absent(tmp_path: Path) -> str:
    shutil.rmtree(tmp_path / "work")
    return f"not on this machine: they were kept in {tmp_path / 'work'}"


def changed(tmp_path: Path) -> str:
    for path in (tmp_path / "work" / "images").iterdir():
        path.write_bytes(path.read_bytes() + b"x")
    return "changed since it was scored"


def corrupt(tmp_path: Path) -> str:
    for path in (tmp_path / "work" / "images").iterdir():
        path.write_bytes(b"\x89PNG half")
    return "corrupt"


@pytest.mark.parametrize("harm", [absent, changed, corrupt], ids=lambda f: f.__name__)
def test_pictures_that_cannot_be_shown_are_said(tmp_path: Path, harm: Callable[[Path], str]) -> None:
    write_made(tmp_path / "r", pictures=tmp_path / "work")
    words = harm(tmp_path)
    text = full_page(tmp_path / "r")
    assert sources(text) == [] and words in text


def test_an_id_does_not_lead_out_of_the_folder_of_pictures(tmp_path: Path) -> None:
    write_made(tmp_path / "r", pictures=tmp_path / "work")
    (tmp_path / "work" / "manifest.jsonl").unlink()
    outside = tmp_path / "outside_00.png"
    shutil.copy(tmp_path / "work" / "images" / "color-0000_00.png", outside)
    file = tmp_path / "r" / "scores.csv"
    file.write_text(file.read_text().replace("color-0000,", "../../outside,"))
    text = full_page(tmp_path / "r", pictures=6)
    assert len(sources(text)) == 17 and "1 missing" in text


def test_the_same_prompts_stand_side_by_side(everything: Path) -> None:
    text = full_page(everything, pictures=1)
    assert "The same prompts side by side" in text
    strips = re.findall(r'<div class="strip" tabindex="0">(.*?)</div>', text, re.S)
    # two of alpha's runs have pictures and are not history; beta's, of two categories, are the third
    assert [len(sources(strip)) for strip in strips] == [3, 3]


def test_a_page_with_too_many_pictures_says_what_it_leaves_out(
    everything: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "MAX_BYTES", 30_000)
    text = full_page(everything / "made_v1")
    assert 0 < text.count('<details class="more album"') < 4
    assert "pictures left out, the page has 0 MB of them: ask for fewer results" in text


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    import numpy as np

    from bench.report.html.pictures import embed

    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    picture = embed(noise)
    assert (picture.width, picture.height) == (256, 171)
    assert picture.uri.startswith("data:image/jpeg;base64,") and len(picture.uri) < 60_000


# ---- text ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes that load something, texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            v or "" for k, v in attrs if k in ("src", "href", "data", "action", "srcset", "poster")
        ]
        self.handlers += [k for k, _ in attrs if k.startswith("on") or k == "style"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hostile_texts_are_shown_as_texts(everything: Path) -> None:
    text = full_page(everything, pictures=6)
    seen = Page(text)
    assert seen.tags.count("script") == 1 and seen.tags.count("style") == 1
    assert seen.handlers == []
    assert any(HOSTILE in each for each in seen.texts)
    assert all(load.startswith(("#", "data:")) for load in seen.loads)
    assert "http://" not in text and "https://" not in text


def test_the_policy_lets_in_this_style_and_script_only(everything: Path) -> None:
    text = full_page(everything)
    said = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert [html.unescape(each) for each in said] == [policy(asset("style.css"), asset("script.js"))]
    assert said[0].startswith("default-src &#x27;none&#x27;; img-src data:;")
    assert re.findall(r"<style>(.*?)</style>", text, re.S) == [asset("style.css")]
    assert re.findall(r"<script>(.*?)</script>", text, re.S) == [asset("script.js")]


def test_markdown_and_latex_escape_too(everything: Path) -> None:
    found = overview(load([everything], keep_going=False))
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", markdown(found), re.M)]
    assert len(tables) == 4  # two of scores, one of a metric of sets, one of published rows
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert md("a|b <i> `c` *d* [e](f)") == r"a\|b &lt;i&gt; \`c\` \*d\* \[e\](f)"
    assert tex(r"100 % of a_b & c\d {e} #1 $x^2~") == (
        r"100 \% of a\_b \& c\textbackslash{}d \{e\} \#1 \$x\textasciicircum{}2\textasciitilde{}"
    )
    lines = latex(found)
    assert lines.count(r"\begin{table}") == lines.count(r"\end{table}") == 2
    assert lines.count(r"\begin{tabular}") == lines.count(r"\bottomrule") == 2
    rows = [line for line in lines.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert all(line.count(" & ") in (5, 8) for line in rows)


def test_tables_hold_the_means_and_intervals_of_the_results(tmp_path: Path) -> None:
    write_made(tmp_path / "a", level=0.5)
    entry = comparison(tmp_path).entries[0]
    value = entry.values["color"]
    assert value.low is not None and value.high is not None
    span = f"{value.low:.3f}–{value.high:.3f}"
    found = overview(load([tmp_path], keep_going=False))
    assert f"{value.mean:.3f}<br>{span}" in markdown(found)
    assert rf"${value.mean:.3f}_{{\pm {(value.high - value.low) / 2:.3f}}}$" in latex(found)
    assert f'<b>{value.mean:.3f}</b><span class="interval">{span}</span>' in page(found)


# ---- plots -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(0, 1), (0.3102, 0.3202), (0, 0), (-2.5, 40_000), (0.123, 0.1234)])
def test_an_axis_has_round_ticks_around_its_values(ends: tuple[float, float]) -> None:
    scale = axis(ends)
    assert scale.low <= ends[0] and ends[1] <= scale.high
    assert 2 <= len(scale.ticks) <= 8
    texts = [scale.text(tick) for tick in scale.ticks]
    assert len(set(texts)) == len(texts)
    assert all(abs(float(text) - tick) < 1e-9 for text, tick in zip(texts, scale.ticks, strict=True))


def test_a_dot_lies_where_its_value_is() -> None:
    rows = [Dot(label="a", mean=0.0), Dot(label="b", mean=1.0), Dot(label="c", mean=0.25, low=0.0, high=0.5)]
    drawn = dot_plot(["x", *rows], label="p")
    xs = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert xs[2] == pytest.approx(xs[0] + (xs[1] - xs[0]) / 4, abs=0.02)
    (reach,) = re.findall(r'x1="([\d.]+)" x2="([\d.]+)" y1="[\d.]+" y2="[\d.]+" class="reach"', drawn)
    assert [float(x) for x in reach] == pytest.approx([xs[0], (xs[0] + xs[1]) / 2], abs=0.02)


def test_texts_in_plots_are_escaped() -> None:
    line = Line(label=HOSTILE, points=[Point(x=0, mean=0.5, title=HOSTILE)])
    parts = [
        dot_plot([HOSTILE, Dot(label=HOSTILE, mean=0.5, title=HOSTILE)], label=HOSTILE),
        line_plot([line], label=HOSTILE, x_ticks=[(0, HOSTILE)], x_title=HOSTILE),
        heat_map([[(0.5, HOSTILE), None]], rows=[HOSTILE], columns=["a", HOSTILE], row_title="r",
                 column_title=HOSTILE, label=HOSTILE),
    ]  # fmt: skip
    for part in parts:
        assert "script" not in Page(part).tags and "img" not in Page(part).tags
        assert Page(part).handlers == []


# ---- the command -----------------------------------------------------------------------------------------


def test_all_outputs_at_once(everything: Path, tmp_path: Path) -> None:
    files = [tmp_path / "out" / name for name in ("r.html", "r.md", "r.tex")]
    done = run(everything, "--html", files[0], "--markdown", files[1], "--latex", files[2], "--pictures", 1)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("7 results") == 3
    assert files[0].read_text().startswith("<!doctype html>")
    assert files[1].read_text().startswith("# Report") and "\\toprule" in files[2].read_text()
    assert not (everything / "README.md").exists()


def test_without_outputs_it_writes_the_readme_of_the_folder(tmp_path: Path) -> None:
    write_made(tmp_path / "made_v1" / "alpha" / "run")
    done = run("--results", tmp_path)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'README.md'}: 1 results\n"
    assert "## made_v1" in (tmp_path / "README.md").read_text()


def test_named_results_are_shown_on_standard_output(tmp_path: Path) -> None:
    path = write_made(tmp_path / "a")
    write_made(tmp_path / "b", system="beta")
    done = run(path, tmp_path / "b", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# Report") and done.stdout.count("| beta |") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_result_without_its_rows_is_shown_without_pictures(tmp_path: Path) -> None:
    path = write_made(tmp_path / "a")
    (tmp_path / "a" / "scores.csv").unlink()
    assert "so its pictures are not known" in full_page(path)


def newer(path: Path) -> str:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 9}))
    return "schema_version 9 is newer than this release"


def damaged(path: Path) -> str:
    path.write_text(path.read_text()[:300])
    return "is damaged"


def edited(path: Path) -> str:
    data = json.loads(path.read_text())
    data["metrics"][0]["score"]["mean"] = 0.999
    path.write_text(json.dumps(data))
    return "disagree in mean of color"


def foreign(path: Path) -> str:
    path.write_text("[1, 2]")
    return "schema_version must be"


def renamed(path: Path) -> str:
    data = json.loads(path.read_text())
    data["metrics"][0]["score"]["average"] = data["metrics"][0]["score"].pop("mean")
    path.write_text(json.dumps(data))
    return "unknown field metrics[0].score.average"


@pytest.mark.parametrize("harm", [newer, damaged, edited, foreign, renamed], ids=lambda f: f.__name__)
def test_a_bad_result_is_named_and_left_out_only_on_request(
    tmp_path: Path, harm: Callable[[Path], str]
) -> None:
    results, out = tmp_path / "results", tmp_path / "r.html"
    write_made(results / "made_v1" / "good" / "run", system="good")
    bad = write_made(results / "made_v1" / "bad" / "run", system="bad")
    words = harm(bad)
    assert_one_line(run(results, "--html", out), str(bad), words)
    assert not out.exists()
    done = run(results, "--html", out, "--keep-going")
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("left out: ") and words in done.stderr and str(bad) in done.stderr
    assert "1 file left out" in out.read_text() and html.escape(words) in out.read_text()
    assert_one_line(run(bad, "--html", out, "--keep-going"), "no result can be read", words)


def test_bad_words_on_the_command_line(tmp_path: Path) -> None:
    path = write_made(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    assert_one_line(run(tmp_path / "none"), "no file or folder")
    assert_one_line(
        run(tmp_path / "empty"), "no results in", "expected <protocol>/<system>/<run>/result.json"
    )
    assert_one_line(run("--results", tmp_path), "expected <protocol>/<system>/<run>/result.json")
    assert_one_line(run(path, "--pictures", 99), "pictures must be 0 to 20, got 99")
    assert_one_line(run(path, "--html", tmp_path / "x", "--latex", tmp_path / "x"), "must be different files")
    assert_one_line(run(path, "--html", tmp_path / "empty"), "cannot be replaced")
    assert_one_line(run(path, "--html", path / "x.html"), "Not a directory")


def test_the_documented_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[3] / "docs" / "report.md").read_text("utf-8")
    write_made(tmp_path / "results" / "compbench-shapes_v1" / "mini" / "run", count=2)
    write_made(tmp_path / "runs" / "sweep", count=2, system="beta")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^gentron-bench report(.*)$", document, re.M)
    assert len(lines) == 7
    for line in lines:
        done = run(*shlex.split(line, comments=True))
        assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "report.html",
        "tables.md",
        "tables.tex",
    ]


def test_the_command_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "PIL", "scipy", "yaml")
    code = f"import sys, bench.commands.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- in a browser ----------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
WIDTHS = (360, 390, 1280)
MEASURE = Path(__file__).with_name("measure_page.html")


def chromium(tmp_path: Path, url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A page opened in headless Chromium that cannot reach any host."""
    assert CHROMIUM is not None
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    always += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    words = [CHROMIUM, *always, *flags, "--virtual-time-budget=3000", url]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)


def console(tmp_path: Path, text: str) -> tuple[list[str], str]:
    """What a page says on the console, and its title, once it is opened from the disk."""
    file = tmp_path / "page.html"
    file.write_text(text, "utf-8")
    done = chromium(tmp_path, file.as_uri(), "--enable-logging=stderr", "--dump-dom")
    lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return lines, re.findall(r"<title>(.*?)</title>", done.stdout)[0]  # later ones are of plots


@in_chromium
def test_the_page_fits_every_width_and_fetches_nothing(everything: Path, tmp_path: Path) -> None:
    text = full_page(everything)
    frames = "".join(
        f'<iframe width="{width}" height="800" srcdoc="{html.escape(text)}"></iframe>' for width in WIDTHS
    )
    # JSON would close the script element with the hostile text's own </script>
    hostile = json.dumps(HOSTILE).replace("<", "\\u003c")
    file = tmp_path / "frames.html"
    file.write_text(
        MEASURE.read_text().replace("<pre>", f"{frames}<pre>").replace("HOSTILE", hostile), "utf-8"
    )
    done = chromium(tmp_path, file.as_uri(), "--window-size=1400,900", "--dump-dom")
    found = json.loads(html.unescape(re.findall(r"<pre>(.*?)</pre>", done.stdout, re.S)[0]))
    assert [each["width"] for each in found] == list(WIDTHS)
    for each in found:
        assert each["scroll"] <= each["width"], each
        assert each["beyond"] == []
        assert each["fetched"] == [] and each["scripts"] == 1
        assert each["images"] > 20 and each["broken"] == 0
        assert each["hostile"]
        # one click sorts by the mean, highest first; those without one come last
        known = [float(key) for key in each["means"] if key]
        assert known == sorted(known, reverse=True) and each["means"][-1] == ""


@in_chromium
def test_the_console_stays_silent_and_would_not_otherwise(everything: Path, tmp_path: Path) -> None:
    text = full_page(everything)
    lines, title = console(tmp_path, text)
    assert lines == [] and title == "Results · gentron-bench report"
    # the same page with what a hostile text would add: the policy stops it, and this test would see it
    harm = '<img src="https://example.org/x.png"><script>document.title="owned"</script></main>'
    lines, title = console(tmp_path, text.replace("</main>", harm))
    assert len(lines) == 2 and all("Content Security Policy" in line for line in lines)
    assert title != "owned"
