"""One place decides what is said beside a result; every view shows from the same list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.prompts.protocol import load_protocol
from bench.report.entries import read
from bench.report.overview import sections
from bench.report.summary import notes
from bench.results.evidence import load
from bench.results.record import Counts, LimitChoice, Skipped, dump_result, read_result
from bench.results.warnings import installed_protocol, warnings
from tests.bench.results.made_results import make_result, write_made

PROTOCOL = load_protocol("compbench-shapes_v1")


def clean():
    result = replace(make_result(), protocol=PROTOCOL.name, protocol_sha256=PROTOCOL.sha256)
    asked = installed_protocol(result)
    assert asked is not None
    return replace(
        result,
        seed=asked.seed,
        images_per_prompt=asked.images_per_prompt,
        limit=None,
        suite="all",
        counts=Counts(expected=6, scored=6, missing=0),
        provenance=replace(result.provenance, dirty=False),
    )


def test_a_whole_run_of_the_protocol_has_none() -> None:
    assert warnings(clean()) == []


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        ({"counts": Counts(expected=6, scored=5, missing=1)}, "missing", "1 of 6 images are missing: the"),
        (
            {"counts": Counts(expected=6, scored=6, missing=0, num_blank=2)},
            "blank",
            "2 of 6 pictures are blank",
        ),
        ({"limit": 3}, "limit", "first 3 prompts of each category only"),
        (
            {"limit": 3, "limit_choice": LimitChoice(rule="stratified", seed=1)},
            "limit",
            "seeded 3 prompts of each category only",
        ),
        ({"suite": "color"}, "suite", "suite color only"),
        ({"skipped": [Skipped(metric="x", reason="y")]}, "skipped", "not measured: x"),
        ({"images_per_prompt": 77}, "images_per_prompt", "77 images a prompt, the protocol asks for"),
        ({"seed": 99}, "seed", "seed 99, the protocol's is"),
        ({"editions": {"color": "old"}}, "edition", "color: prompt list old"),
    ],
)
def test_each_departure_is_said(change: dict[str, Any], name: str, text: str) -> None:
    (found,) = warnings(replace(clean(), **change))
    assert found.name == name and found.text.startswith(text)


def test_every_view_says_what_makes_numbers_no_result(tmp_path: Path) -> None:
    path = write_made(tmp_path / "a")
    result = read_result(path)
    result = replace(result, system=replace(result.system, untrained=True))
    path.write_bytes(dump_result(result))
    (text,) = [each.text for each in warnings(result) if each.name == "untrained"]
    assert text in load(path).flags
    assert f"{text}." in notes(result)
    (section,) = sections([read(path)])
    assert text in [flag.text for flag in section.entries[0].flags]
