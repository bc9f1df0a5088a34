"""Published protocols are never edited: a change of any byte is a new version beside the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.jobs.compbench import build_scorers
from bench.prompts.protocol import (
    MotionConfig,
    ShapesConfig,
    load_protocol,
    protocol_names,
    protocols_folder,
    read_config,
)
from bench.prompts.shapes import TESTED
from bench.report.summary import reference
from bench.scorers import SCORERS, Context
from gentron.errors import UserError

PUBLISHED = {
    "compbench-shapes_v1": "bd3009d78f11707ba9d5f2f76dfd12932a11d664b7da6f426e20f68b5a89cff8",
    "motion-shapes_v1": "1a867e56874fadb56109e086a9d0b94b73c2aabf51e9000dfaad878d02728cb4",
    "t2i-compbench-plus_2025-01": "dff9a67c56c32b1c562369930943d1530e92d6eaee62c01ccdb4119781c1b164",
    "t2i-compbench_2023-11": "b559cb57defcf06994f1e771a39b443b2156458d758ba99e9b3f119b6e619a48",
    "t2i-compbench_2024-02": "152fb5ff6701b45277508204ef1350c0afef38da1af5a7c875f8083aa935b5b7",
}


def test_every_protocol_is_listed_here() -> None:
    assert protocol_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", protocol_names())
def test_protocol_is_as_published(name: str) -> None:
    assert read_config(name)[1] == PUBLISHED[name]


@pytest.mark.parametrize("name", protocol_names())
def test_suites_and_scorers_are_known(name: str) -> None:
    config, _ = read_config(name)
    assert config.name == name
    assert set(config.suites["all"]) == set(config.categories)
    assert {config.scorer_of(category)[0] for category in config.categories} <= set(SCORERS)


def test_shapes_protocol_is_complete() -> None:
    protocol = load_protocol("compbench-shapes_v1")
    assert all(protocol.prompts.values())
    assert isinstance(protocol.config, ShapesConfig)
    assert {c.tested for c in protocol.config.categories.values()} <= set(TESTED)
    scorers = build_scorers(protocol, "all", Context())
    assert list(scorers.by_category) == list(protocol.config.categories) and not scorers.skipped


@pytest.mark.parametrize("name", protocol_names())
def test_header_says_command_time_and_expected_values(name: str) -> None:
    text = (protocols_folder() / f"{name}.yaml").read_text()
    assert all(word in text for word in ("# Command:", "# Time:", "# Expected:"))


@pytest.mark.parametrize("name", protocol_names())
def test_reference_run_is_of_the_full_protocol(name: str) -> None:
    config, digest = read_config(name)
    result = reference(name, digest)
    if result is None:
        pytest.skip("no reference run is committed yet")
    assert result.limit is None and result.suite == "all" and result.counts.missing == 0
    measures = ["appearance", "persistence"] if isinstance(config, MotionConfig) else []
    assert [m.category for m in result.metrics] == [*config.categories, *measures]


def write_protocol(folder: Path, **changes: object) -> None:
    data = yaml.safe_load((protocols_folder() / "compbench-shapes_v1.yaml").read_text())
    (folder / "changed.yaml").write_text(yaml.safe_dump(data | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 1}, "unknown field sead"),
        ({"seed": "one"}, "seed must be an integer"),
        ({"suites": {"all": ["colour"]}}, "unknown category 'colour'"),
        ({"resize": "bicubic"}, "resize must be one of"),
        ({"kind": "shapes-sound"}, "unknown kind 'shapes-sound'; known: shapes-motion, prompt-sets"),
    ],
)
def test_wrong_field_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_protocol(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load_protocol("changed", folder=tmp_path)


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(UserError, match="unknown protocol 'nope'; known: compbench-shapes_v1"):
        load_protocol("nope")
