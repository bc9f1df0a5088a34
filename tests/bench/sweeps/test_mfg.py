"""`gentron-bench mfg-sweep`: a world with known answers, going on, shares, files, the command."""

# F frames of a clip

from __future__ import annotations

import io
import json
import shutil
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bench.commands.mfg_sweep import mfg_sweep, write_pictures
from bench.jobs.clip_source import Choice, ClipSource, clip_prompts
from bench.jobs.video import Places
from bench.prompts import Prompt
from bench.prompts.motion import realise_clip
from bench.sharding import Shard
from bench.sweeps.drawing import Disc, Drawing, Stroke, Words, to_png, to_svg
from bench.sweeps.grid import Cell, cells
from bench.sweeps.mfg import SweepOptions, Swept, num_branches, run
from bench.sweeps.page import verdict
from bench.sweeps.study import export_study
from bench.sweeps.table import CSV_FILE, SWEEP, SWEEP_FILE, difference
from bench.systems import Media, Request, SystemInfo
from gentron.console import make_app
from gentron.errors import UserError
from gentron.media import Sample
from gentron.shapes.motion import render_clip
from tests.bad_input import refused
from tests.tiny import TINY_VIDEO_MODEL, make_tiny_checkpoint

pytest.importorskip("cv2")

app = make_app("The command on its own.")
app.command(name="mfg-sweep")(mfg_sweep)
app.callback()(lambda: None)


@contextmanager
def quiet(name: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


class KnownSystem:
    """Draws what is asked at lambda_M = 1, stands still at 0, and has half of its frames in false colours
    beyond 1."""

    def __init__(self, cell: Cell, prompts: Sequence[Prompt], drawn: list[str]) -> None:
        self._scale, self._drawn = cell.motion_guidance_scale, drawn
        self._prompts = {prompt.id: prompt for prompt in prompts}
        self.info = SystemInfo(
            kind="gentron",
            name="known",
            weights_sha256="0" * 64,
            untrained=False,
            settings={
                "guidance_scale": cell.guidance_scale,
                "motion_guidance_scale": cell.motion_guidance_scale,
            },
            device="cpu",
            media=Media("video", 8, 4.0),
        )

    def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
        for request in requests:
            self._drawn.append(f"{self._scale:g} {request.id}")
            rng = np.random.default_rng(request.seed)
            clip = realise_clip(self._prompts[request.prompt_id].clip_claim, rng)
            assert clip is not None
            frames = render_clip(clip)
            if self._scale == 0:
                frames = np.repeat(frames[:1], len(frames), axis=0)
            if self._scale > 1:
                frames[1::2] = np.roll(frames[1::2], 1, axis=-1)
            yield Sample(tuple(Image.fromarray(frame) for frame in frames), 4.0)


def source(work: Path, limit: int = 2, suite: str = "direction") -> ClipSource:
    asked = clip_prompts("motion-shapes_v1", None, default=None)
    return asked.source(Choice(suite=suite, limit=limit), work=work)


def sweep(folder: Path, values: Sequence[float], *, shard: Shard | None = None, limit: int = 2) -> tuple:
    asked, drawn = source(folder / "work", limit), []
    places = Places(out=folder / "out", work=folder / "work", device="cpu", models=folder / "models")
    swept = run(
        cells(values, [2.0]),
        lambda cell: KnownSystem(cell, asked.prompts, drawn),
        asked,
        SweepOptions(flow="dis"),
        places=places,
        stage=quiet,
        shard=shard or Shard(),
    )
    return swept, drawn


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    found, _ = sweep(tmp_path_factory.mktemp("sweep"), [0.0, 2.0], limit=3)
    return found


# ---- numbers ---------------------------------------------------------------------------------------------


def test_what_is_known_is_found(swept: Swept) -> None:
    """At 1 everything is right; at 0 nothing moves; at 2 half of the frames are wrong."""
    still, right, false = (
        {name: found.value.mean or 0.0 for name, found in cell.values.items()} for cell in swept.record.cells
    )
    assert [cell.motion_guidance_scale for cell in swept.record.cells] == [0, 1, 2]
    assert right["motion_correctness"] == right["frame_quality"] == right["consistency"] == 1
    assert right["motion_magnitude"] == pytest.approx(4, abs=0.2)
    assert still["motion_correctness"] == still["motion_magnitude"] == 0
    assert still["frame_quality"] == 1 and still["flicker"] == 1
    assert false["frame_quality"] == 0.5 and false["flicker"] < right["flicker"]


def test_differences_are_from_the_base_and_paired(swept: Swept) -> None:
    still, right, _ = swept.record.cells
    assert all(found.difference is None for found in right.values.values())
    apart = still.values["motion_magnitude"].difference
    assert apart is not None and apart.num_prompts == 3
    assert apart.mean == pytest.approx(-4, abs=0.2)
    column = swept.record.column("motion_correctness")
    assert column is not None and verdict(column, still.values["motion_correctness"]) in ("", "worse")


def test_pairs_are_of_the_same_prompt_and_sample() -> None:
    base = {("a", 0): 1.0, ("a", 1): 2.0, ("b", 0): 5.0}
    other = {("a", 1): 4.0, ("b", 0): 5.0, ("c", 0): 9.0}
    found = difference(other, base, "frame_quality")
    assert found is not None and found.mean == 1.0 and found.num_prompts == 2
    assert difference({("c", 0): 1.0}, base, "frame_quality") is None


def test_branches_of_weight_0_are_not_counted() -> None:
    for text, motion, count in ((2.0, 1.0, 2), (2.0, 2.0, 2), (2.0, 1.3, 3), (1.0, 1.0, 1), (2.0, 0.0, 3)):
        assert num_branches(Cell(text, motion)) == count


# ---- going on, and shares ---------------------------------------------------------------------------------


def test_a_wider_sweep_draws_only_what_is_new(tmp_path: Path) -> None:
    first, drawn = sweep(tmp_path, [1.3])
    assert [name.split()[0] for name in drawn] == ["1", "1", "1.3", "1.3"]  # the base is added, and first
    wider, drawn = sweep(tmp_path, [1.3, 0.0])
    assert [name.split()[0] for name in drawn] == ["0", "0"]
    same = {cell.motion_guidance_scale: replace(cell) for cell in wider.record.cells}
    assert all(same[cell.motion_guidance_scale] == cell for cell in first.record.cells)
    assert first.folder != wider.folder


def test_the_same_sweep_is_written_once(tmp_path: Path) -> None:
    first, _ = sweep(tmp_path, [1.3])
    before = (first.folder / SWEEP_FILE).read_bytes()
    again, drawn = sweep(tmp_path, [1.3])
    assert again.folder == first.folder and not drawn
    assert (again.folder / SWEEP_FILE).read_bytes() == before


class ThreadShard(Shard):
    """Ranks as threads of this process."""

    meeting: threading.Barrier

    def barrier(self) -> None:
        self.meeting.wait(timeout=120)


def test_two_processes_find_the_numbers_of_one(tmp_path: Path) -> None:
    alone, _ = sweep(tmp_path / "one", [0.0, 2.0])
    ThreadShard.meeting = threading.Barrier(2)
    found: list = [None, None]

    def work(rank: int) -> None:
        found[rank] = sweep(tmp_path / "two", [0.0, 2.0], shard=ThreadShard(rank, 2))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared, drawn = found[0]
    assert found[1][0] is None and len(drawn) == 3  # half of the clips each
    records = [
        replace(
            s.record,
            provenance=alone.record.provenance,
            cells=[replace(c, clips=None) for c in s.record.cells],
        )
        for s in (alone, shared)
    ]
    assert records[0] == records[1]
    files = [sorted((tmp_path / name / "work").rglob("scores.jsonl")) for name in ("one", "two")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


# ---- files -----------------------------------------------------------------------------------------------


def test_the_table_is_read_back_and_says_its_version(swept: Swept, tmp_path: Path) -> None:
    path = swept.folder / SWEEP_FILE
    assert SWEEP.read(path) == swept.record
    data = json.loads(path.read_text())
    assert (data["kind"], data["schema_version"], data["base"]) == ("mfg-sweep", 1, 1.0)
    (tmp_path / "new.json").write_text(json.dumps({**data, "schema_version": 2}))
    with pytest.raises(UserError, match="newer"):
        SWEEP.read(tmp_path / "new.json")


def test_the_csv_has_a_line_a_value_and_column(swept: Swept) -> None:
    lines = (swept.folder / CSV_FILE).read_text().splitlines()
    assert lines[0].startswith("lambda_t,lambda_m,branches,column,mean")
    assert len(lines) == 1 + sum(len(cell.values) for cell in swept.record.cells)
    assert any(line.startswith("2.0,1.0,2,motion_correctness,1.0,") for line in lines)


def test_plots_sheets_and_page(swept: Swept) -> None:
    write_pictures(swept, num_sheets=2)
    svg = ET.fromstring((swept.folder / "frame_quality-motion_correctness.svg").read_text())
    words = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0", "1", "2"} <= set(words)
    with Image.open(swept.folder / "frame_quality-motion_magnitude.png") as plot:
        assert plot.size == (920, 640) and not plot.info
    sheets = sorted(swept.folder.glob("sheet-*.png"))
    assert len(sheets) == 2
    with Image.open(sheets[0]) as sheet:
        assert sheet.height > 3 * 64
    page = (swept.folder / "report.html").read_text()
    assert page.count("<img ") == 2 and page.count("<svg ") >= 2 + len(swept.record.columns)
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page


def test_a_drawing_is_the_same_in_both_forms() -> None:
    parts = (
        Stroke([(10, 10), (90, 10)], "#ff0000", 4),
        Disc((50, 40), 8, "#0000ff"),
        Words("a < b", (10, 70)),
    )
    drawing = Drawing(100, 80, parts, "a line & a disc")
    svg = ET.fromstring(to_svg(drawing))
    assert svg.attrib["aria-label"] == "a line & a disc"
    assert [node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")] == ["a < b"]
    with Image.open(io.BytesIO(to_png(drawing))) as image:
        assert image.size == (200, 160)
        assert image.getpixel((100, 20)) == (255, 0, 0) and image.getpixel((100, 80)) == (0, 0, 255)
        assert image.getpixel((190, 150)) == (255, 255, 255)


def test_two_values_become_a_study(swept: Swept, tmp_path: Path) -> None:
    done = export_study(
        swept, (1.0, 2.0), fps=4.0, raters=2, out=tmp_path / "study", work=tmp_path / "work", stage=quiet
    )
    assert (done.folder / "index.html").is_file() and done.key.is_file()
    assert len(done.study.trials) == 2 * 3 * 2  # questions, prompts, raters
    text = (done.folder / "index.html").read_text()
    assert "lambda" not in text
    with pytest.raises(UserError, match="lambda_M 1.7 is not in the sweep: choose from 0, 1, 2"):
        export_study(swept, (1.0, 1.7), fps=4.0, raters=2, out=tmp_path / "b", work=tmp_path, stage=quiet)


# ---- the command -----------------------------------------------------------------------------------------


def command(tmp_path: Path, *args: str) -> Result:
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    return CliRunner().invoke(app, ["mfg-sweep", *args, *where, "--models", str(tmp_path / "models")])


@pytest.fixture(scope="module")
def tiny_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "video", TINY_VIDEO_MODEL)


def test_the_command_sweeps_a_checkpoint(tmp_path: Path, tiny_video: Path) -> None:
    """A file of prompts: no judge, no CLIP here; flow, flicker and SSIM are measured."""
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    args = ("--model", str(tiny_video), "--prompts", str(tmp_path / "prompts.txt"))
    done = command(tmp_path, *args, "--lambda-m", "0,2", "--num-inference-steps", "2", "--flow", "dis")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "out").rglob(SWEEP_FILE)
    record = SWEEP.read(path)
    assert record.protocol == "prompts-prompts" and record.num_prompts == 2
    assert {cell.motion_guidance_scale for cell in record.cells} == {0, 1, 2}
    assert {"motion_magnitude", "flicker", "warping_error"} <= set(record.cells[0].values)
    assert "text_alignment" in {skipped.metric for skipped in record.skipped}
    assert "motion_guidance_scale" not in record.system.settings and record.system.settings["num_frames"] == 4
    assert path.with_name("report.html").is_file()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--lambda-m", "nan"), "lambda_m must be finite"),
        (("--lambda-t", "1:0:1"), "lambda_t must be a range"),
        (("--model", "mini"), "is a text-to-image model"),
        (("--model", "nowhere"), "unknown model 'nowhere'"),
        (("--study", "1,1.7"), "lambda_M 1.7 is not in the grid"),
        (("--study", "1"), "must be two values"),
        (("--study", "1,1"), "two different values"),
        (("--flow", "x"), "unknown flow 'x'"),
        (("--prompts", "nowhere.txt"), "no file 'nowhere.txt'"),
        (("--prompts", "x", "--protocol", "y"), "exclude each other"),
        (("--suite", "colour"), "colour"),
        (("--set-metrics", "fvd"), "unknown metric 'fvd'"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, tiny_video: Path, args: tuple[str, ...], said: str) -> None:
    model = () if "--model" in args else ("--model", str(tiny_video), "--protocol", "motion-shapes_v1")
    if "--prompts" in args:
        model = ("--model", str(tiny_video))
    refused(command(tmp_path, *model, *args), said)


def test_a_model_of_another_world_needs_prompts(tmp_path: Path, tiny_video: Path) -> None:
    shutil.copytree(tiny_video, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["training"] = {"data": "films"}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    done = command(tmp_path, "--model", str(tmp_path / "other"))
    refused(done, "give prompts for this model with --prompts FILE")
