"""`gentron-bench video`: numbers, resuming, shares of several processes, distances of sets, bad input."""

# F frames of a clip

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bench.commands.video import chosen_measures, video
from bench.compare.comparison import compare
from bench.report.entries import load as load_entries
from bench.report.overview import overview
from bench.results.evidence import load
from bench.results.record import read_result
from bench.scorers import Context
from bench.scorers.score import SCORES
from bench.scorers.video import build_clip_scorers, score
from bench.scorers.video.neighbours import temporal_flickering
from bench.set_metrics.fvd import small_n_warning
from bench.sharding import Shard
from bench.systems.clips import Reading, find_clips
from bench.systems.rows import read_rows
from bench.weights import make_random
from gentron.console import make_app
from gentron.data.clip_writer import write_clip
from tests.bad_input import refused
from tests.tiny import TINY_VIDEO_MODEL, make_tiny_checkpoint

pytest.importorskip("cv2")

app = make_app("The command on its own.")
app.command(name="video")(video)
app.callback()(lambda: None)

QUICK = ("--metrics", "temporal_flickering,flow_magnitude", "--flow", "dis")


def run(tmp_path: Path, *args: str) -> Result:
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    return CliRunner().invoke(app, ["video", *args, *where, "--models", str(tmp_path / "models")])


def result_of(tmp_path: Path, name: str) -> Path:
    (path,) = (tmp_path / "out" / "video-set" / name).rglob("result.json")
    return path


def noise(num_frames: int, seed: int) -> np.ndarray:
    """(F, 32, 32, 3) uint8: a texture that drifts a pixel a frame."""
    wide = np.random.RandomState(seed).randint(0, 256, (32, 32 + num_frames, 3)).astype(np.uint8)
    return np.stack([wide[:, k : k + 32] for k in range(num_frames)])


def write_set(folder: Path, *, count: int = 3, num_frames: int = 4, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for k in range(count):
        write_clip(folder / f"clip{k}", noise(num_frames, seed + k), 8)
        (folder / f"clip{k}.txt").write_text(f"prompt number {k}")
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return write_set(tmp_path / "clips")


# ---- numbers ---------------------------------------------------------------------------------------------


def test_a_result_has_a_number_a_clip_and_measure(tmp_path: Path, clips: Path) -> None:
    done = run(tmp_path, "--videos", str(clips), *QUICK)
    assert done.exit_code == 0, done.output
    evidence = load(result_of(tmp_path, "clips"))
    lines = evidence.lines["temporal_flickering"]
    assert [line.score for line in lines] == [temporal_flickering(noise(4, k)) for k in range(3)]
    assert [line.prompt for line in lines] == [f"prompt number {k}" for k in range(3)]
    by_name = {metric.category: metric for metric in evidence.result.metrics}
    assert by_name["flow_magnitude_dis"].score.num_prompts == 3
    assert {"top 5 %", "dynamic"} == set(by_name["flow_magnitude_dis"].views)
    assert evidence.result.scorers["flow_magnitude_dis"].settings["flow"].startswith("DIS")
    assert evidence.result.counts.scored == 3
    assert "flow_magnitude_dis" in done.output and "pixels a frame" in done.output


def test_missing_networks_are_skipped_by_name_with_the_way_on(tmp_path: Path, clips: Path) -> None:
    done = run(tmp_path, "--videos", str(clips))
    assert done.exit_code == 0, done.output
    result = read_result(result_of(tmp_path, "clips"))
    reasons = {each.metric: each.reason for each in result.skipped}
    assert "raft_large_C_T_V1-22a6c225.pth" in reasons["warping_error_raft"]
    assert "weights fetch clip-vit-b-32" in reasons["clip_frames"]
    assert {m.category for m in result.metrics} >= {"warping_error_dis", "neighbour_ssim"}


def test_random_networks_make_a_rehearsal(tmp_path: Path, clips: Path) -> None:
    make_random("clip-vit-b-32", tmp_path / "models")
    done = run(tmp_path, "--videos", str(clips), "--metrics", "clip_frames,clip_consistency")
    assert done.exit_code == 0, done.output
    assert read_result(result_of(tmp_path, "clips")).is_rehearsal
    assert "a rehearsal, not a result" in done.output


def test_auto_flow_is_raft_where_its_weights_are(tmp_path: Path) -> None:
    assert chosen_measures("warping_error", "auto", tmp_path) == ["warping_error_dis", "warping_error_raft"]
    make_random("raft-large", tmp_path)
    assert chosen_measures("warping_error", "auto", tmp_path) == ["warping_error_raft"]
    assert chosen_measures("neighbour_ssim", "dis", tmp_path) == ["neighbour_ssim"]


def test_nothing_to_measure_is_an_error(tmp_path: Path, clips: Path) -> None:
    refused(run(tmp_path, "--videos", str(clips), "--metrics", "clip_consistency"), "nothing can be measured")


def test_clips_without_prompts_have_no_clip_score(tmp_path: Path, clips: Path) -> None:
    make_random("clip-vit-b-32", tmp_path / "models")
    for path in clips.glob("*.txt"):
        path.unlink()
    done = run(tmp_path, "--videos", str(clips), "--metrics", "clip_frames,temporal_flickering")
    assert done.exit_code == 0, done.output
    result = read_result(result_of(tmp_path, "clips"))
    assert [m.category for m in result.metrics] == ["temporal_flickering"]
    assert "clip_frames" in [skipped.metric for skipped in result.skipped]


# ---- going on, and shares ---------------------------------------------------------------------------------


def test_what_is_scored_is_not_scored_again(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second clip; the rest is done, and nothing twice."""
    seen: list[int] = []
    killed = True

    def counted(frames: np.ndarray) -> float:
        seen.append(int(frames[0, 0, 0, 0]))
        if killed and len(seen) == 2:
            raise KeyboardInterrupt
        return temporal_flickering(frames)

    from bench.scorers.video import neighbours

    entry = neighbours._SCORERS["temporal_flickering"]
    monkeypatch.setitem(neighbours._SCORERS, "temporal_flickering", (counted, *entry[1:]))
    args = ("--videos", str(clips), "--metrics", "temporal_flickering")
    assert run(tmp_path, *args).exit_code != 0
    killed = False
    assert run(tmp_path, *args).exit_code == 0
    assert len(seen) == 4  # two of the first run, one of them in vain; two of the second
    first = result_of(tmp_path, "clips").read_bytes()
    assert run(tmp_path, *args).exit_code == 0 and len(seen) == 4
    assert result_of(tmp_path, "clips").read_bytes() == first


@pytest.mark.parametrize("world_size", [2, 3])
def test_scores_do_not_depend_on_the_number_of_processes(
    tmp_path: Path, clips: Path, world_size: int
) -> None:
    built = build_clip_scorers(["neighbour_ssim", "warping_error_dis"], Context())
    found = find_clips(clips)
    for folder, ranks in ((tmp_path / "one", [Shard()]), (tmp_path / "some", _shards(world_size))):
        for shard in ranks:
            score.score_clips(
                built.scorers,
                shard.mine(found),
                folder,
                reading=Reading(),
                advance=lambda count: None,
                file_name=shard.file_name(SCORES),
            )
    alone, shared = (
        score.gather_clips(built.scorers, found, tmp_path / name, reading=Reading())
        for name in ("one", "some")
    )
    assert alone == shared and len(alone.rows["neighbour_ssim"]) == 3


def _shards(world_size: int) -> list[Shard]:
    return [Shard(rank, world_size) for rank in range(world_size)]


@pytest.mark.slow
def test_torchrun_writes_the_same_files(tmp_path: Path, clips: Path) -> None:
    files = []
    for processes in (1, 2):
        where = tmp_path / f"run{processes}"
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [
            *(sys.executable, *torchrun, "-m", "bench", "video", "--videos", str(clips)),
            *("--reference", str(clips), "--set-metrics", "fd-mini", *QUICK),
            *("--out", str(where / "out"), "--work", str(where / "work")),
        ]
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (path,) = (where / "out").rglob("result.json")
        data = json.loads(path.read_text())
        del data["provenance"]
        (rows,) = (where / "work").rglob("scores.jsonl")
        files.append((data, path.with_name("scores.csv").read_bytes(), rows.read_bytes()))
        assert len(read_rows(rows)) == 6
    assert files[0] == files[1]


# ---- sets ------------------------------------------------------------------------------------------------


def test_a_set_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    make_random("i3d", tmp_path / "models")
    clips = write_set(tmp_path / "clips", num_frames=16)
    done = run(tmp_path, "--videos", str(clips), *QUICK[:1], "temporal_flickering", "--reference", str(clips))
    assert done.exit_code == 0, done.output
    metrics = {m.name: m for m in read_result(result_of(tmp_path, "clips")).set_metrics}
    fvd, frames = metrics["fvd_tf"], metrics["fd_mini-autoencoder_frames"]
    assert fvd.value == pytest.approx(0, abs=1e-3) and fvd.num_images == 3
    assert "first 16 frames, stride 1" in fvd.settings["resize"] and fvd.settings["of"] == "clips"
    assert frames.value == pytest.approx(0, abs=1e-6) and frames.num_images == 48
    assert frames.settings["of"] == "every frame of every clip"
    assert "FVD of only 3 clips" in done.output and "only 48 images" in done.output


def test_fvd_of_clips_that_are_too_short_is_skipped(tmp_path: Path, clips: Path) -> None:
    make_random("i3d", tmp_path / "models")
    done = run(tmp_path, "--videos", str(clips), *QUICK, "--reference", str(clips), "--set-metrics", "fvd")
    assert done.exit_code == 0, done.output
    (skipped,) = read_result(result_of(tmp_path, "clips")).skipped
    assert skipped.metric == "fvd_tf"
    assert skipped.reason == "FVD takes 16 frames of a clip, and the clips hold 4"


def test_without_a_reference_sets_are_not_measured(tmp_path: Path, clips: Path) -> None:
    assert run(tmp_path, "--videos", str(clips), *QUICK).exit_code == 0
    result = read_result(result_of(tmp_path, "clips"))
    assert {s.metric for s in result.skipped} == {"fvd_tf", "fd_mini-autoencoder_frames"}
    assert "--reference" in result.skipped[0].reason


def test_small_sets_are_warned_of() -> None:
    assert "only 2047 clips" in str(small_n_warning(2047, 4096))
    assert small_n_warning(2048, 2048) is None


# ---- compare and report ----------------------------------------------------------------------------------


def test_two_results_compare_measure_by_measure(tmp_path: Path, clips: Path) -> None:
    """The same prompts, the other clips twice as fast: flow has no better side, flickering has."""
    other = tmp_path / "other"
    other.mkdir()
    for k in range(3):
        write_clip(other / f"clip{k}", noise(8, k)[::2], 8)
        (other / f"clip{k}.txt").write_text(f"prompt number {k}")
    for folder in (clips, other):
        assert run(tmp_path, "--videos", str(folder), *QUICK).exit_code == 0
    found = compare(load(result_of(tmp_path, "clips")), load(result_of(tmp_path, "other")))
    deltas = {delta.metric: delta for delta in found.deltas}
    assert set(deltas) == {"temporal_flickering", "flow_magnitude_dis"}
    assert deltas["flow_magnitude_dis"].num_prompts == 3


def test_a_report_takes_no_mean_over_measures(tmp_path: Path, clips: Path) -> None:
    assert run(tmp_path, "--videos", str(clips), *QUICK).exit_code == 0
    (section,) = overview(load_entries([tmp_path / "out"], keep_going=False)).sections
    (entry,) = section.entries
    assert entry.mean is None and set(entry.values) == {"temporal_flickering", "flow_magnitude_dis"}


# ---- bad input -------------------------------------------------------------------------------------------


def test_a_damaged_clip_is_named(tmp_path: Path, clips: Path) -> None:
    (clips / "broken.mp4").write_bytes(b"nothing")
    done = run(tmp_path, "--videos", str(clips), *QUICK)
    refused(done, "1 of 4 clips cannot be measured: broken.mp4")
    done = run(tmp_path, "--videos", str(clips), *QUICK, "--allow-missing")
    assert done.exit_code == 0, done.output
    result = read_result(result_of(tmp_path, "clips"))
    assert (result.counts.scored, result.counts.missing) == (3, 1)
    assert result.missing[0].file == "broken.mp4"


def test_a_clip_of_one_frame_is_missing(tmp_path: Path, clips: Path) -> None:
    write_clip(clips / "one", noise(1, 9), 8)
    refused(run(tmp_path, "--videos", str(clips), *QUICK), "one (one frame, expected at least 2)")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--videos", "nowhere"), "no folder 'nowhere'"),
        (("--model", "mini-t2v"), "--model and --videos exclude each other"),
        (("--flow", "farneback"), "unknown flow 'farneback'; known: auto, raft, dis"),
        (("--metrics", "lpips"), "unknown metric 'lpips'; known: temporal_flickering"),
        (("--set-metrics", "fvd,ifd"), "unknown metric 'ifd'"),
        (("--fvd-mode", "clean"), "unknown fvd_mode 'clean'; known: tf, stylegan-v"),
        (("--fps", "0"), "fps must be above 0"),
        (("--num-frames", "1"), "num_frames must be >= 2"),
        (("--reference", "nowhere"), "no folder 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, clips: Path, args: tuple[str, ...], said: str) -> None:
    videos = () if args[0] == "--videos" else ("--videos", str(clips))
    refused(run(tmp_path, *videos, *args), said)


def test_one_scorer_refuses_what_it_cannot_take(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a", np.zeros((2, 8, 20, 3), np.uint8), 8)
    done = run(tmp_path, "--videos", str(tmp_path / "clips"), "--metrics", "neighbour_ssim")
    refused(done, "SSIM needs frames of at least 11 x 11")


# ---- clips that a model draws ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "video", TINY_VIDEO_MODEL)


def test_a_models_clips_are_drawn_and_measured(tmp_path: Path, tiny_video: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    args = ("--model", str(tiny_video), "--prompts", str(tmp_path / "prompts.txt"), *QUICK)
    done = run(tmp_path, *args, "--num-inference-steps", "2", "--motion-guidance-scale", "1.3")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "out").rglob("result.json")
    evidence = load(path)
    result = evidence.result
    assert result.protocol == "prompts-prompts" and result.counts.scored == 2
    settings = result.system.settings
    assert (settings["num_frames"], settings["motion_guidance_scale"]) == (4, 1.3)
    lines = evidence.lines["temporal_flickering"]
    assert [line.prompt for line in lines] == ["a cat", "a dog"]
    assert all(line.seed is not None and line.seed >= 0 for line in lines)
    (folder,) = (tmp_path / "work" / "prompts-prompts").iterdir()
    assert len(list((folder / "clips").iterdir())) == 2  # lossless, a PNG a frame


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--model", "mini"), "is a text-to-image model and draws no clips"),
        (("--model", "nowhere"), "unknown model 'nowhere'"),
        (("--prompts", "nowhere.txt"), "no file 'nowhere.txt'"),
        (("--limit", "0"), "limit must be >= 1"),
        (("--seed", "-1"), "seed must be >= 0"),
    ],
)
def test_a_model_that_cannot_be_asked_is_one_line(
    tmp_path: Path, tiny_video: Path, args: tuple[str, ...], said: str
) -> None:
    model = () if "--model" in args else ("--model", str(tiny_video))
    refused(run(tmp_path, *model, *args), said)


@pytest.mark.parametrize("option", ["--guidance-scale", "--seed", "--limit", "--num-inference-steps"])
def test_settings_of_models_have_no_effect_on_videos(tmp_path: Path, clips: Path, option: str) -> None:
    refused(run(tmp_path, "--videos", str(clips), option, "2"), f"{option} has no effect on --videos")
