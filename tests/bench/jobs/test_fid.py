"""`gentron-bench fid` from pictures to result, and FID in every mode against the tool it is named after."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.commands.fid import MODES
from bench.jobs.fid_sources import chosen_names, coco_protocol, preparation
from bench.prompts.coco import choose, read_captions
from bench.prompts.protocol import load_protocol, protocols_folder
from bench.results.record import read_result
from bench.set_metrics.features.inception import MODES as INCEPTION_MODES
from bench.set_metrics.features.inception import Inception, random_state_dict
from bench.set_metrics.frechet import frechet_distance
from bench.set_metrics.measure import METRICS, jobs
from bench.systems.images import encode_png
from bench.weights import make_random
from bench.weights.files import RANDOM_NOTE
from gentron.errors import UserError
from gentron.shapes import render, sample_scene
from gentron.shapes.scene import scene_rng
from tests.bad_input import refused
from tests.bench.worlds import write_perfect_folder
from tests.golden.set_metrics import cases
from tests.parity import Compare

GOLDEN = Path(__file__).parents[2] / "golden" / "set_metrics"
ROOT = Path(__file__).parents[3]


def write_scenes(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        (folder / f"{k:03d}.png").write_bytes(encode_png(render(sample_scene(scene_rng(seed, k)))))
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of 24 scenes, to be read only."""
    where = tmp_path_factory.mktemp("scenes")
    return write_scenes(where / "one", 24, 1), write_scenes(where / "two", 24, 2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_random("inception", folder)
    return folder


def run(tmp_path: Path, *words: object) -> Result:
    where = ["--out", str(tmp_path / "results"), "--work", str(tmp_path / "work"), "--device", "cpu"]
    return CliRunner().invoke(app, ["fid", *map(str, words), *where])


def results(tmp_path: Path) -> list:
    return [read_result(path) for path in sorted((tmp_path / "results").rglob("result.json"))]


def values(result) -> dict[str, float]:
    return {metric.name: metric.value for metric in result.set_metrics}


TOOLS = {
    "clean": "clean-fid",
    "tf": "torch-fidelity",
    "pytorch-fid": "pytorch-fid",
    "torchmetrics": "torchmetrics",
}


# ---- against the tools -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_fid_is_that_of_the_tool(mode: str, parity: Compare) -> None:
    """From pictures in eight sizes to the number, on shared random weights; stored by make.py."""
    wanted = json.loads((GOLDEN / "fid.json").read_text())["fid"][mode]
    network = Inception()
    network.load_state_dict(random_state_dict(divisor=1, seed=cases.INCEPTION_SEED))
    network.eval()
    prepare = INCEPTION_MODES[mode].prepare
    with torch.inference_mode():
        first, second = (
            np.stack([network(prepare(image))[0].numpy() for image in images]) for images in cases.pictures()
        )
    ours = frechet_distance(first, second)
    parity("FID", f"pictures to number, {mode}", ours, wanted, against=f"{TOOLS[mode]} (stored)", rtol=1e-6)


def test_modes_of_the_command_are_those_of_the_network() -> None:
    assert MODES == tuple(INCEPTION_MODES)


# ---- the command -----------------------------------------------------------------------------------------


def test_two_folders(tmp_path: Path, scenes: tuple[Path, Path]) -> None:
    done = run(
        tmp_path, "--images", scenes[0], "--reference", scenes[1], "--metrics", "fd-mini,pr-mini,kd-mini",
        "--kid-subset-size", 10,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (result,) = results(tmp_path)
    assert list(values(result)) == [
        *("fd_mini-autoencoder", "precision_mini-autoencoder", "recall_mini-autoencoder"),
        "kd_mini-autoencoder",
    ]
    first = result.set_metrics[0]
    assert first.num_images == 24 and first.reference.num_images == 24 and first.reference.id == "two"
    assert first.interval is not None and first.interval[0] < first.value < first.interval[1]
    assert first.settings["extractor"] == "mini-autoencoder" and not first.settings["random_weights"]
    assert result.set_metrics[-1].settings["subset_size"] == 10
    assert result.protocol == "image-set" and result.counts.scored == 24
    assert "fd_mini-autoencoder-24" in done.stdout and "only 24 images" in done.stdout
    assert "fid" not in " ".join(values(result))


def test_a_folder_with_itself_is_nothing(tmp_path: Path, scenes: tuple[Path, Path]) -> None:
    run(tmp_path, "--images", scenes[0], "--reference", scenes[0], "--metrics", "fd-mini,pr-mini")
    (result,) = results(tmp_path)
    assert values(result) == pytest.approx(
        {"fd_mini-autoencoder": 0, "precision_mini-autoencoder": 1, "recall_mini-autoencoder": 1}, abs=1e-6
    )


def test_the_shapes_world_as_reference(tmp_path: Path) -> None:
    """Of true pictures of the prompts: near the floor; of scenes turned upside down: far above it."""
    protocol = load_protocol("compbench-shapes_v1")
    folder = write_perfect_folder(tmp_path / "images", protocol.select("all", limit=None)[::20])
    for path in folder.iterdir():  # a system that draws everything on its head
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    done = run(tmp_path, "--images", folder, "--metrics", "fd-mini")
    assert done.exit_code == 0, done.output
    assert "floor" in done.stdout and "shapes world 1: scenes, seed 20231207, 90 images" in done.stdout
    assert results(tmp_path)[0].set_metrics[0].value > 1


def test_a_model_is_measured_from_prompt_to_table(tmp_path: Path, tiny_checkpoint: Path) -> None:
    words = ["--model", tiny_checkpoint, "--protocol", "compbench-shapes_v1", "--num-images", 12]
    words += ["--num-inference-steps", 2]
    done = run(tmp_path, *words)
    assert done.exit_code == 0, done.output
    (result,) = results(tmp_path)
    assert result.protocol == "compbench-shapes_v1" and result.suite == "sample-12"
    assert list(values(result)) == [
        *("fd_mini-autoencoder", "precision_mini-autoencoder", "recall_mini-autoencoder")
    ]
    assert result.set_metrics[0].reference.id == "shapes world 1: compbench-shapes_v1, seed 20231207"
    images = list((tmp_path / "work").rglob("*.png"))
    assert len(images) == 12
    categories = {path.name.rpartition("-")[0] for path in images}
    assert len(categories) > 2  # not the first twelve prompts of one list
    stamps = {path: path.stat().st_mtime_ns for path in images}
    assert run(tmp_path, *words).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(results(tmp_path)) == 1


def test_a_second_run_makes_no_features(
    tmp_path: Path, scenes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--images", scenes[0], "--reference", scenes[1], "--metrics", "fd-mini"]
    assert run(tmp_path, *words).exit_code == 0

    def refuse(self: object, image: np.ndarray) -> np.ndarray:
        raise AssertionError("made again")

    monkeypatch.setattr("bench.set_metrics.features.mini.MiniAutoencoderExtractor.features", refuse)
    again = run(tmp_path, *words)
    assert again.exit_code == 0, again.output
    assert len(results(tmp_path)) == 1


def test_bad_images_are_listed_and_stop_the_run(tmp_path: Path) -> None:
    images = write_scenes(tmp_path / "images", 8, 1)
    (images / "001.png").write_bytes((images / "001.png").read_bytes()[:50])
    (images / "002.png").write_bytes(encode_png(np.full((1, 1, 3), 7, np.uint8)))
    Image.open(images / "003.png").convert("CMYK").save(images / "003.tif")
    words = ["--images", images, "--metrics", "fd-mini"]
    done = run(tmp_path, *words)
    refused(done, "1 of 9 images cannot be used: 001.png (corrupt)")
    assert not (tmp_path / "results").exists()
    allowed = run(tmp_path, *words, "--allow-missing")
    assert allowed.exit_code == 0, allowed.output
    assert "over survivors only" in allowed.stdout
    (result,) = results(tmp_path)
    assert (result.counts.expected, result.counts.scored, result.counts.missing) == (9, 8, 1)
    assert {m.file: m.reason for m in result.missing} == {"001.png": "corrupt"}
    assert result.set_metrics[0].num_images == 8  # a picture of one colour counts, as in the tools imitated


def test_bad_reference_images_too(tmp_path: Path, scenes: tuple[Path, Path]) -> None:
    reference = write_scenes(tmp_path / "reference", 8, 1)
    (reference / "004.png").write_bytes(b"")
    words = ["--images", scenes[0], "--reference", reference, "--metrics", "fd-mini"]
    refused(run(tmp_path, *words), "1 of 8 reference images cannot be used: 004.png (corrupt)")
    allowed = run(tmp_path, *words, "--allow-missing")
    assert allowed.exit_code == 0 and "1 of 8 reference images cannot be used" in allowed.stdout
    assert results(tmp_path)[0].set_metrics[0].reference.num_images == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "nowhere"], "no images 'nowhere'"),
        (["--reference", "nowhere"], "no reference 'nowhere'"),
        (["--mode", "cv2"], "unknown mode 'cv2'; known: clean, tf, pytorch-fid, torchmetrics"),
        (["--metrics", "fid,vgg"], "unknown metric 'vgg'; known: fid, fid-infinity, kid"),
        (["--images", ".", "--model", "mini"], "--model and --images exclude each other"),
        (["--images", ".", "--protocol", "coco-30k_v1"], "--protocol has no effect on --images"),
        (["--images", ".", "--sampler", "ddim"], "--sampler has no effect on --images"),
        (["--model", "g2"], "give --captions captions_val2014.json"),
        (["--model", "nope"], "unknown model 'nope'"),
        (["--num-images", "1"], "num_images must be >= 2, got 1"),
        (["--num-images", "9999"], "compbench-shapes_v1 must hold at least 9999 images, got 1800"),
        (["--metrics", "fd-mini", "--compare-modes"], "--compare-modes needs a metric on Inception"),
        (["--save-reference", "stats.npz"], "--save-reference alone needs --reference DIR"),
        (["--reference", ".", "--save-reference", "stats.txt"], "must end in .npz"),
        (
            ["--reference", ".", "--save-reference", "a.npz", "--num-images", "5"],
            "--num-images has no effect on --save-reference alone",
        ),
        (["--batch-size", "0"], "batch_size must be >= 1, got 0"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setenv("GENTRON_MODELS", str(tmp_path / "none"))
    refused(run(tmp_path, *words), message)
    assert not (tmp_path / "results").exists() and not (tmp_path / "work").exists()


def test_too_few_images_are_said_before_any_work(tmp_path: Path, scenes: tuple[Path, Path]) -> None:
    words = ["--images", scenes[0], "--reference", scenes[1]]
    done = run(tmp_path, *words, "--metrics", "kd-mini")
    refused(done, "kd_mini-autoencoder needs at least 1000 images on either side, got 24 and 24")
    done = run(tmp_path, *words, "--metrics", "fd-infinity-mini")
    refused(done, "needs at least 30 images")
    done = run(tmp_path, *words, "--metrics", "fd-mini", "--num-images", "25")
    refused(done, "must hold at least 25 images, got 24")
    assert not (tmp_path / "work").exists()


def test_missing_weights_skip_a_metric_and_never_make_a_number(
    tmp_path: Path, scenes: tuple[Path, Path]
) -> None:
    words = ["--images", scenes[0], "--reference", scenes[1], "--models", tmp_path / "none"]
    done = run(tmp_path, *words, "--metrics", "fd-mini,fid,pr,cmmd")
    assert done.exit_code == 0, done.output
    (result,) = results(tmp_path)
    assert list(values(result)) == ["fd_mini-autoencoder"]
    assert [s.metric for s in result.skipped] == [
        *("fid_clean", "precision_inception-clean", "recall_inception-clean", "cmmd")
    ]
    assert "gentron-bench weights fetch inception" in result.skipped[0].reason
    assert "skipped: fid_clean: missing weights 'inception'" in done.stdout
    nothing = run(tmp_path, *words, "--metrics", "fid,cmmd")
    refused(nothing, "nothing can be measured: missing weights 'inception'")
    assert len(results(tmp_path)) == 1


def test_every_mode_side_by_side(tmp_path: Path, scenes: tuple[Path, Path], models: Path) -> None:
    words = ["--images", scenes[0], "--reference", scenes[1], "--models", models, "--num-images", "6"]
    done = run(tmp_path, *words, "--compare-modes")
    assert done.exit_code == 0, done.output
    (result,) = results(tmp_path)
    assert list(values(result)) == [f"fid_{mode}" for mode in MODES]
    assert len(set(values(result).values())) == 4
    assert "TensorFlow 1 bilinear" in done.stdout and RANDOM_NOTE in done.stdout
    assert result.is_rehearsal
    assert {m.settings["mode"] for m in result.set_metrics} == set(MODES)


def test_a_stored_reference_is_as_good_as_its_pictures(
    tmp_path: Path, scenes: tuple[Path, Path], models: Path
) -> None:
    stats = tmp_path / "stats.npz"
    common = ["--models", models, "--metrics", "fid,fd-mini", "--mode", "tf"]
    done = run(tmp_path, "--reference", scenes[1], "--save-reference", stats, *common)
    assert done.exit_code == 0 and "24 images, inception-tf, mini-autoencoder" in done.stdout, done.output
    assert not (tmp_path / "results").exists()
    direct = run(tmp_path / "a", "--images", scenes[0], "--reference", scenes[1], *common)
    stored = run(tmp_path / "b", "--images", scenes[0], "--reference", stats, *common)
    assert direct.exit_code == stored.exit_code == 0, stored.output
    one, two = results(tmp_path / "a")[0], results(tmp_path / "b")[0]
    assert values(two) == pytest.approx(values(one), rel=1e-5)  # moments keep half the digits at N < D
    assert one.set_metrics[0].reference == two.set_metrics[0].reference

    wrong = run(tmp_path, "--images", scenes[0], "--reference", stats, "--models", models, "--metrics", "fid")
    refused(wrong, "is of another mode: expected clean, got tf: not comparable")
    wrong = run(tmp_path, "--images", scenes[0], "--reference", stats, "--metrics", "pr-mini")
    refused(wrong, "holds mean and covariance of mini-autoencoder only")
    assert not (tmp_path / "results").exists()


def test_features_that_are_kept_measure_again_without_a_network(
    tmp_path: Path, scenes: tuple[Path, Path], models: Path
) -> None:
    files = [tmp_path / f"{k}.npz" for k in (0, 1)]
    for k in (0, 1):
        words = ["--images", scenes[k], "--reference", scenes[1 - k], "--models", models]
        done = run(tmp_path / str(k), *words, "--metrics", "fid,pr", "--features", files[k])
        assert done.exit_code == 0, done.output
    words = ["--images", files[0], "--reference", files[1], "--models", tmp_path / "none"]
    done = run(tmp_path / "again", *words, "--metrics", "fid,pr")
    assert done.exit_code == 0, done.output
    first, again = results(tmp_path / "0")[0], results(tmp_path / "again")[0]
    assert values(again) == values(first)
    assert first.set_metrics[0].settings["features"] == files[0].as_posix()
    assert again.is_rehearsal
    refused(run(tmp_path, *words, "--metrics", "fd-mini"), "the stored features are of inception-clean")


def test_jobs_are_one_a_mode() -> None:
    found = jobs(["fid", "cmmd", "fid"], ["clean", "tf"])
    assert [job.names[0] for job in found] == ["fid_clean", "fid_tf", "cmmd"]
    assert [job.label for job in found] == ["inception-clean", "inception-tf", "clip-vit-l-14-336"]
    assert all(
        not n.startswith(("fid", "kid")) for m in METRICS.values() if "mini" in m.extractor for n in m.names
    )


def test_a_choice_by_name_is_a_sample_that_grows() -> None:
    names = [f"{k:04d}" for k in range(1000)]
    small, large = chosen_names(names, 100, where=""), chosen_names(names, 300, where="")
    assert set(small) < set(large) and small == sorted(small)
    assert 30 < np.mean([int(n) < 500 for n in small]) * 100 < 70
    assert chosen_names(names, None, where="") == names


# ---- COCO-30K --------------------------------------------------------------------------------------------


def annotation_file(path: Path, count: int) -> Path:
    images = [{"id": 7 * k, "file_name": f"COCO_val2014_{7 * k:012d}.jpg"} for k in range(count)]
    annotations = [
        {"id": 100 * k + c, "image_id": 7 * k, "caption": f" caption {c} of {k} \n"}
        for k in range(count)
        for c in range(5)
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def small_protocol(folder: Path, num_images: int, ids: str = "null") -> None:
    text = (protocols_folder() / "captions" / "coco-30k_v1.yaml").read_text()
    text = text.replace("num_images: 30000", f"num_images: {num_images}").replace(
        "ids_sha256: null", f"ids_sha256: {ids}"
    )
    (folder / "captions").mkdir(exist_ok=True)
    (folder / "captions" / "coco-30k_v1.yaml").write_text(text)


def test_the_choice_of_coco_is_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.jobs.fid_sources.protocols_folder", lambda: tmp_path)
    small_protocol(tmp_path, 20)
    path = annotation_file(tmp_path / "captions.json", 50)
    protocol = coco_protocol("coco-30k_v1")
    found = read_captions(path, protocol)
    assert len(found.prompts) == 20 and len(found.files) == 50
    assert [p.id for p in found.prompts] == sorted(p.id for p in found.prompts)
    assert all(p.text.startswith("caption") and p.text == p.text.strip() for p in found.prompts)
    by_hand = sorted(range(0, 350, 7), key=lambda i: hashlib.sha256(f"2014:{i}".encode()).hexdigest())[:20]
    assert [p.id for p in found.prompts] == [f"coco-{i:012d}" for i in sorted(by_hand)]

    data = json.loads(path.read_text())
    data["annotations"].reverse()
    data["images"].reverse()
    path.write_text(json.dumps(data))
    assert read_captions(path, protocol) == found  # the order of the file does not matter

    small_protocol(tmp_path, 20, ids=found.ids_sha256)
    assert read_captions(path, coco_protocol("coco-30k_v1")).prompts == found.prompts
    data["annotations"] = [{**a, "id": a["id"] + 1} for a in data["annotations"]]
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="pins another choice of images"):
        read_captions(path, coco_protocol("coco-30k_v1"))


def test_the_published_choice_is_what_it_says() -> None:
    config = coco_protocol("coco-30k_v1").config
    assert (config.selection.num_images, config.selection.seed, config.images_per_prompt) == (30_000, 2014, 1)
    chosen = choose({k: [(10 * k, "a"), (10 * k + 1, "b")] for k in range(40_000)}, config.selection)
    assert len(chosen) == 30_000 and [row[0] for row in chosen] == sorted({row[0] for row in chosen})
    assert 0.45 < np.mean([text == "a" for _, _, text in chosen]) < 0.55
    text = (protocols_folder() / "captions" / "coco-30k_v1.yaml").read_text()
    assert all(word in text for word in ("# Command:", "# Time:", "# Expected:"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected an object"),
        ('{"images": []}', "is no COCO caption file: KeyError"),
        (
            '{"images": [], "annotations": [{"id": 1, "image_id": 2, "caption": "a"}]}',
            "that it does not list: 2",
        ),
        ('{"images": [], "annotations": []}', "takes 30000 images with captions, and"),
    ],
)
def test_other_annotation_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_captions(tmp_path / "captions.json", coco_protocol("coco-30k_v1"))


def test_file_names_that_climb_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.jobs.fid_sources.protocols_folder", lambda: tmp_path)
    small_protocol(tmp_path, 2)
    path = annotation_file(tmp_path / "captions.json", 3)
    path.write_text(path.read_text().replace("COCO_val2014_000000000007.jpg", "../secret.jpg"))
    with pytest.raises(UserError, match="file_name must be a plain name, got '../secret.jpg'"):
        read_captions(path, coco_protocol("coco-30k_v1"))


def test_coco_from_captions_to_result(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.jobs.fid_sources.protocols_folder", lambda: tmp_path)
    small_protocol(tmp_path, 4)
    captions = annotation_file(tmp_path / "captions.json", 6)
    photos = tmp_path / "val2014"
    photos.mkdir()
    for k in range(6):
        Image.fromarray(cases.picture(k, 60, 90, 0.9)).save(photos / f"COCO_val2014_{7 * k:012d}.jpg")
    words = ["--model", tiny_checkpoint, "--protocol", "coco-30k_v1", "--captions", captions]
    words += ["--reference", photos, "--metrics", "fd-mini", "--num-inference-steps", 2]
    done = run(tmp_path, *words)
    assert done.exit_code == 0, done.output
    (result,) = results(tmp_path)
    assert result.protocol == "coco-30k_v1" and len(result.editions["ids"]) == 64
    (metric,) = result.set_metrics
    assert (metric.num_images, metric.reference.num_images) == (4, 6)
    assert metric.settings["prepared"] == "centre-bicubic-256"
    stats = tmp_path / "val2014.npz"
    saving = ["--protocol", "coco-30k_v1", "--captions", captions, "--reference", photos]
    assert run(tmp_path, *saving, "--metrics", "fd-mini", "--save-reference", stats).exit_code == 0
    words[words.index(photos)] = stats
    assert run(tmp_path / "stored", *words).exit_code == 0
    assert values(results(tmp_path / "stored")[0]) == pytest.approx(values(result), rel=1e-5)
    words[words.index(stats)] = photos
    (photos / "COCO_val2014_000000000014.jpg").unlink()
    refused(run(tmp_path, *words), "1 of 6 reference images cannot be used")


def test_coco_pictures_are_cropped_and_brought_to_256() -> None:
    name, prepare = preparation(coco_protocol("coco-30k_v1").config.prepared)
    image = cases.picture(3, 300, 421, 0.9)
    wanted = Image.fromarray(image).crop((60, 0, 360, 300)).resize((256, 256), Image.Resampling.BICUBIC)
    assert name == "centre-bicubic-256"
    np.testing.assert_array_equal(prepare(image), np.asarray(wanted))


# ---- processes -------------------------------------------------------------------------------------------

SCRIPT = "from bench.cli import main; main()"


def start(folder: Path, words: list[object], rank: int, world: int, port: int) -> subprocess.Popen:
    where = ["--out", folder / "results", "--work", folder / "work", "--device", "cpu"]
    environment = {
        **os.environ,
        **{"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "OMP_NUM_THREADS": str(3 - world),
    }
    command = [sys.executable, "-c", SCRIPT, "fid", *map(str, words), *map(str, where)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path, scenes: tuple[Path, Path], models: Path) -> None:
    """One process on two threads against two on one thread each: the same numbers to the last digit."""
    words: list[object] = ["--images", scenes[0], "--reference", scenes[1], "--models", models]
    words += ["--metrics", "fid,pr,fd-mini"]
    for world in (1, 2):
        port = free_port()
        started = [start(tmp_path / str(world), words, rank, world, port) for rank in range(world)]
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    one, two = (results(tmp_path / str(world))[0] for world in (1, 2))
    assert one.set_metrics == two.set_metrics and len(one.set_metrics) == 4
    parts = sorted(path.name for path in (tmp_path / "2" / "work").rglob("*.bin"))
    assert parts == ["rank0.bin", "rank0.bin", "rank1.bin", "rank1.bin"]


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path, scenes: tuple[Path, Path], models: Path) -> None:
    images = write_scenes(tmp_path / "images", 100, 5)
    words: list[object] = ["--images", images, "--reference", scenes[0], "--models", models]
    words += ["--metrics", "fid", "--no-intervals"]
    process = start(tmp_path, words, 0, 1, 0)
    cache = tmp_path / "work" / "features"
    while not any(path.stat().st_size > 20_000 for path in cache.glob("*/rank0.bin")):
        assert process.poll() is None, process.communicate()[1].decode()
    process.kill()
    process.communicate()
    (part,) = cache.glob("*/rank0.bin")
    kept = part.stat().st_size
    part.write_bytes(part.read_bytes()[: kept - 7])  # as a power cut may leave it
    again = start(tmp_path, words, 0, 1, 0)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors.decode()
    alone = start(tmp_path / "alone", words, 0, 1, 0)
    assert alone.communicate(timeout=300) and alone.returncode == 0
    assert results(tmp_path)[0].set_metrics == results(tmp_path / "alone")[0].set_metrics
