from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.prompts.protocol import load_protocol
from bench.prompts.seeds import image_seed
from bench.systems import Request, SystemInfo, SystemOptions
from bench.systems.folder import FolderSystem
from bench.systems.generate import collect, generate
from bench.systems.images import BadImage, encode_png, fit, read_image, write_atomic
from bench.systems.requests import requests
from bench.systems.rows import append_row, read_rows
from bench.systems.samples import read_manifest
from gentron.errors import UserError
from gentron.media import Sample
from tests.bench.worlds import perfect_image

PROTOCOL = load_protocol("compbench-shapes_v1")
PROMPTS = PROTOCOL.prompts["color"][:4]


class Painter:
    """Draws noise that depends on the seed alone, counts its pictures, and can die before one of them."""

    info = SystemInfo(
        kind="test", name="painter", weights_sha256=None, untrained=False, settings={}, device="-"
    )

    def __init__(self, dies_at: int | None = None) -> None:
        self.drawn: list[str] = []
        self._dies_at = dies_at

    def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
        for request in requests:
            if len(self.drawn) == self._dies_at:
                raise KeyboardInterrupt
            self.drawn.append(request.id)
            pixels = np.random.default_rng(request.seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
            yield Sample((Image.fromarray(pixels),))


def ignore(count: int) -> None:
    pass


def wanted(count: int = 4, *, images_per_prompt: int = 2) -> list[Request]:
    return requests(PROMPTS[:count], images_per_prompt=images_per_prompt, seed=0)


def test_seeds_depend_on_run_prompt_and_sample_alone() -> None:
    assert {r.id: r.seed for r in wanted()} == {r.id: r.seed for r in reversed(wanted())}
    short = {r.id: r.seed for r in requests(PROMPTS[2:3], images_per_prompt=1, seed=0)}
    assert short.items() <= {r.id: r.seed for r in wanted()}.items()
    assert len({image_seed(s, p, k) for s in (0, 1) for p in ("a", "a1") for k in (0, 1, 11)}) == 12
    assert image_seed(0, "color-0000", 0) == 1560299479299492099  # pinned: results depend on it


def test_seeds_fit_a_signed_integer() -> None:
    assert all(0 <= image_seed(0, "p", k) < 2**63 for k in range(200))


def test_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = Painter(dies_at=3)
    with pytest.raises(KeyboardInterrupt):
        generate(first, wanted(), tmp_path, advance=ignore)
    second = Painter()
    records = generate(second, wanted(), tmp_path, advance=ignore)
    assert first.drawn + second.drawn == [r.id for r in wanted()]
    uninterrupted = generate(Painter(), wanted(), tmp_path / "other", advance=ignore)
    assert records == uninterrupted


def test_progress_counts_what_was_there(tmp_path: Path) -> None:
    generate(Painter(), wanted(1), tmp_path, advance=ignore)
    steps: list[int] = []
    generate(Painter(), wanted(2), tmp_path, advance=steps.append)
    assert steps == [2, 1, 1]


def test_damaged_image_is_made_again(tmp_path: Path) -> None:
    records = generate(Painter(), wanted(), tmp_path, advance=ignore)
    (tmp_path / records[1].file).write_bytes(b"half a pict")
    (tmp_path / records[2].file).unlink()
    again = Painter()
    assert generate(again, wanted(), tmp_path, advance=ignore) == records
    assert again.drawn == [wanted()[1].id, wanted()[2].id]


def test_manifest_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    generate(Painter(), wanted(), tmp_path, advance=ignore)
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(read_manifest(tmp_path)) == 7
    again = Painter()
    generate(again, wanted(), tmp_path, advance=ignore)
    assert again.drawn == [wanted()[-1].id]
    assert len(read_manifest(tmp_path)) == 8


def test_rows_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b'{"a": 2')
    append_row(path, {"a": 3})
    assert read_rows(path) == [{"a": 1}, {"a": 3}]


def test_less_than_one_image_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="images_per_prompt must be >= 1, got 0"):
        requests(PROMPTS, images_per_prompt=0, seed=0)


# ---- images ----------------------------------------------------------------------------------------------


def test_image_comes_back_as_it_was(tmp_path: Path) -> None:
    image = perfect_image(PROMPTS[0])
    write_atomic(tmp_path / "a.png", encode_png(image))
    assert np.array_equal(read_image(tmp_path / "a.png")[0], image)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "missing"),
        (b"", "corrupt"),
        (b"not a picture", "corrupt"),
        (encode_png(np.random.default_rng(0).integers(0, 9, (64, 64, 3)).astype(np.uint8))[:300], "corrupt"),
    ],
)
def test_bad_image_has_a_reason(tmp_path: Path, data: bytes | None, reason: str) -> None:
    if data is not None:
        (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadImage, match=reason):
        read_image(tmp_path / "a.png")


def test_resize_is_the_mean_over_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    means = image.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(fit(image, 64) - means).max() <= 1
    assert fit(image, 256) is image


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "a.png", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


# ---- images made elsewhere -------------------------------------------------------------------------------


def picture(path: Path, k: int) -> Path:
    path.write_bytes(encode_png(perfect_image(PROMPTS[k])))
    return path


def test_images_are_found_by_id_and_by_prompt(tmp_path: Path) -> None:
    by_id = picture(tmp_path / f"{PROMPTS[0].id}_0.png", 0)
    by_text = [picture(tmp_path / f"{PROMPTS[1].text}_{number:06d}.png", 1) for number in (9, 10)]
    plain = picture(tmp_path / f"{PROMPTS[2].text.upper()}.PNG", 2)
    folder = FolderSystem(tmp_path, SystemOptions())
    found = folder.find(wanted(3), PROMPTS)
    assert found[0] == by_id and found[2:4] == by_text and found[4] == plain
    assert not found[1].exists() and not found[5].exists()


def test_manifest_of_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    paths = [picture(tmp_path / "x" / f"{k}.png", k) for k in range(3)]
    rows = [
        {"file": "x/0.png", "prompt_id": PROMPTS[0].id, "sample": 1},
        {"file": "x/1.png", "prompt": PROMPTS[1].text},
        {"file": "x/2.png", "prompt": PROMPTS[1].text},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = FolderSystem(tmp_path, SystemOptions())
    found = folder.find(wanted(2), PROMPTS)
    assert not found[0].exists() and found[1:] == paths


def test_manifest_of_gentron_sample_is_read(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"00000{k}.png", k) for k in range(2)]
    images = [{"file": path.name, "prompt": PROMPTS[k].text, "seed": 0} for k, path in enumerate(paths)]
    (tmp_path / "manifest.json").write_text(json.dumps({"model": "mini", "images": images}))
    folder = FolderSystem(tmp_path, SystemOptions())
    assert folder.find(wanted(2, images_per_prompt=1), PROMPTS) == paths


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"manifest.jsonl:1: not JSON"),
        ('{"prompt": "a"}', 'must be an object with "file"'),
        ('{"file": "a.png"}', 'must have "prompt_id" or "prompt"'),
        ('{"file": "a.png", "prompt": "a", "sample": -1}', "sample must be an integer from 0"),
    ],
)
def test_bad_manifest_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        FolderSystem(tmp_path, SystemOptions())


def test_folder_records_hash_its_files(tmp_path: Path) -> None:
    picture(tmp_path / f"{PROMPTS[0].id}_00.png", 0)
    folder = FolderSystem(tmp_path, SystemOptions())
    first, second = collect(folder, wanted(2, images_per_prompt=1), PROMPTS)
    assert first.sha256 and second.sha256 is None


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--guidance-scale has no effect on images made elsewhere"):
        FolderSystem(tmp_path, SystemOptions(guidance_scale=3.0))
