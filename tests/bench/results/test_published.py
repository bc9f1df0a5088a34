"""Papers' rows: their digits hold together, and they stand beside results of their own protocol only."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.prompts.protocol import protocol_names, read_config
from bench.report.entries import load
from bench.report.html.page import page
from bench.report.overview import overview
from bench.report.tables import latex, markdown
from bench.results.published import (
    PublishedTable,
    published_folder,
    read_all,
    rows_for,
    studies,
    tables,
)
from gentron.errors import UserError
from tests.bench.results.made_results import write_made

OLD, NEW = "t2i-compbench_2023-11", "t2i-compbench_2024-02"
WITH_PROTOCOL = [table for table in tables() if table.evaluator.protocol]


def test_every_file_is_read() -> None:
    assert {table.id for table in read_all()} == {path.stem for path in published_folder().glob("*.yaml")}
    assert len(tables()) == 4 and len(studies()) == 1


@pytest.mark.parametrize("table", WITH_PROTOCOL, ids=lambda table: table.id)
def test_protocol_categories_and_editions_exist(table: PublishedTable) -> None:
    assert table.evaluator.protocol in protocol_names()
    config, _ = read_config(str(table.evaluator.protocol))
    for row in table.rows:
        assert list(row.values) == list(config.categories)
    known = getattr(config, "editions", {})
    for category, edition in table.prompts.editions.items():
        assert edition in known[category]


@pytest.mark.parametrize("table", [t for t in WITH_PROTOCOL if t.rows[0].mean], ids=lambda table: table.id)
def test_printed_means_are_those_of_the_printed_rows(table: PublishedTable) -> None:
    for row in table.rows:
        assert row.mean is not None
        # half a digit of rounding in the mean, and of the six figures it was taken from
        assert abs(sum(row.values.values()) / 6 - row.mean) <= 0.0101, row.system


def test_old_and_new_evaluator_are_never_mixed() -> None:
    old, new = rows_for(OLD), rows_for(NEW)
    assert {row.protocol for row in old} == {OLD} and {row.protocol for row in new} == {NEW}
    # SDXL was reported under both, and reads lower under the new one
    scores = [next(r.scores["color"] for r in rows if r.system == "SDXL") for rows in (old, new)]
    assert scores == [0.6369, 0.5879]
    assert all(row.certainty == "likely" for row in old)
    assert rows_for("compbench-shapes_v1") == []


def test_a_row_of_two_tables_is_given_once_with_the_names_of_both() -> None:
    (row,) = [r for r in rows_for(OLD) if r.system == "GenTron-G/2"]
    assert len(row.tables) == 2
    assert row.scores["color"] == 0.7674 and row.mean == 0.4999


def test_rows_without_a_protocol_say_what_is_unknown() -> None:
    general = next(table for table in tables() if table.id == "gentron_general")
    assert general.evaluator.protocol is None and len(general.unknown) >= 4
    (study,) = studies()
    assert study.study.questions["quality"].win == 51.1
    assert study.study.questions["alignment"].draw == 42.9


def published_names(folder: Path, protocol: str, **fields) -> list[str]:
    write_made(folder / protocol / "x" / "run", protocol=protocol, **fields)
    (section,) = overview(load([folder / protocol], keep_going=False)).sections
    return [row.system for row in section.comparisons[0].published]


def test_a_report_shows_them_beside_results_of_their_protocol_only(tmp_path: Path) -> None:
    assert "SD3-medium" in published_names(tmp_path, NEW)
    assert "GORS" in published_names(tmp_path, OLD)
    assert "GORS" not in published_names(tmp_path, NEW)
    assert published_names(tmp_path, "made_v1") == []
    # all three in one report: each row in its protocol's part of every form
    found = overview(load([tmp_path], keep_going=False))
    for text in (page(found, pictures=0), markdown(found), latex(found)):
        made = min(text.index(name) for name in ("made_v1", "made\\_v1") if name in text)
        old, new = text.index("GORS"), text.index("SD3-medium")
        assert made < old < new
        assert text.count("SD3-medium") == text.count("FLUX.1-schnell")
        assert "not measured here" in text


def test_none_stand_beside_a_rehearsal(tmp_path: Path) -> None:
    assert published_names(tmp_path, NEW, random_weights=True) == []


BAD = {
    "unit: percent": ("unit: pounds", "unit must be one of ['percent', 'fraction', 'as named']"),
    "color: 36.94": ("color: 136.94", "color: 136.94 is no score in percent"),
    "certainty: likely": ("certainty: unknown", "certainty must be 'unknown' just where protocol is null"),
    "id: gentron_ablation": ("id: other", "id must be 'gentron_ablation', got 'other'"),
    "mean: 34.32": ("median: 34.32", "unknown field rows[0].median"),
    "rows:": ("rows: [", "while parsing"),
}


@pytest.mark.parametrize("found", BAD)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, found: str) -> None:
    put, message = BAD[found]
    text = (published_folder() / "gentron_ablation.yaml").read_text("utf-8")
    assert found in text
    (tmp_path / "gentron_ablation.yaml").write_text(text.replace(found, put, 1))
    with pytest.raises(UserError) as error:
        tables(tmp_path)
    assert "gentron_ablation.yaml" in str(error.value) and message in str(error.value)


def test_shares_of_a_study_add_up(tmp_path: Path) -> None:
    text = (published_folder() / "gentron_user_study.yaml").read_text("utf-8")
    (tmp_path / "gentron_user_study.yaml").write_text(text.replace("win: 51.1", "win: 15.1"))
    with pytest.raises(UserError, match="must add up to 100"):
        studies(tmp_path)
