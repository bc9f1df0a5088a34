"""Data sources: the same sample for the same index, nothing held back among the training samples."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gentron.data import Stream, item_of_index, keyed_rng
from gentron.data.ahead import DecodeAhead
from gentron.data.folder import FolderSource, load_picture
from gentron.data.latents import CHUNK, latent_cache
from gentron.data.listing import InFile, Item
from gentron.data.samples import list_samples
from gentron.data.shapes import ShapesSource
from gentron.errors import MediaError, UserError
from gentron.shapes.write import write_folder, write_webdataset


def encode(images: Tensor) -> Tensor:
    """A stand-in autoencoder: colours averaged over 16 x 16 pixels."""
    return torch.nn.functional.avg_pool2d(images, 16)


def shapes_source(cache: Path, **changes: int) -> ShapesSource:
    settings: dict[str, Any] = {"seed": 1, "pool_size": 20, "validation_size": 4} | changes
    return ShapesSource(encode=encode, autoencoder_hash="stub", cache_dir=cache, **settings)


def test_keyed_streams_differ_and_repeat() -> None:
    first = keyed_rng(1, 2, Stream.CAPTION).random(4)
    assert np.array_equal(first, keyed_rng(1, 2, Stream.CAPTION).random(4))
    for other in (
        keyed_rng(2, 2, Stream.CAPTION),
        keyed_rng(1, 3, Stream.CAPTION),
        keyed_rng(1, 2, Stream.SCENE),
    ):
        assert not np.array_equal(first, other.random(4))
    with pytest.raises(ValueError, match="seed and index must be in"):
        keyed_rng(-1, 0, Stream.SCENE)


def test_every_epoch_visits_every_item_in_another_order() -> None:
    epochs = [[item_of_index(7, i, 10) for i in range(start, start + 10)] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_shapes_samples_depend_on_their_index_alone(tmp_path: Path) -> None:
    source, again = shapes_source(tmp_path), shapes_source(tmp_path)
    whole = source.batch(range(50))
    part = again.batch([41, 3])
    assert part.captions == [whole.captions[41], whole.captions[3]]
    assert torch.equal(part.latents, whole.latents[[41, 3]])
    assert whole.latents.shape == (50, 3, 4, 4) and whole.latents.dtype == torch.float32


def test_shapes_captions_are_phrased_anew_on_each_visit(tmp_path: Path) -> None:
    source = shapes_source(tmp_path)
    visits: dict[int, set[str]] = {}
    batch = source.batch(range(20 * 8))
    for index, caption in enumerate(batch.captions):
        visits.setdefault(item_of_index(1, index, 20), set()).add(caption)
    assert np.mean([len(captions) for captions in visits.values()]) > 3


def test_held_back_shapes_come_from_a_stream_of_their_own(tmp_path: Path) -> None:
    source = shapes_source(tmp_path, validation_size=6)
    held_back, training = source.held_back(), source.batch(range(20))
    assert len(held_back.captions) == 6
    assert torch.equal(held_back.latents[:4], shapes_source(tmp_path).held_back().latents)
    same = (held_back.latents[:, None] - training.latents[None]).abs().amax((2, 3, 4)) < 1e-3
    assert not same.any()


def ranged(items: range) -> np.ndarray:
    return np.array(items, np.float16).reshape(-1, 1, 1, 1)


def spy(asked: list[range]) -> Callable[[range], np.ndarray]:
    def encode_items(items: range) -> np.ndarray:
        asked.append(items)
        return ranged(items)

    return encode_items


def test_latent_cache_goes_on_after_a_cut_and_grows(tmp_path: Path) -> None:
    path, asked = tmp_path / "latents.f16", []
    latent_cache(path, num_items=CHUNK + 1, shape=(1, 1, 1), encode_items=spy(asked))
    assert asked == [range(0, CHUNK), range(CHUNK, 2 * CHUNK)]
    with open(path, "r+b") as file:
        file.truncate(2 * CHUNK + 7)  # a kill in the second chunk
    asked.clear()
    latents = latent_cache(path, num_items=2 * CHUNK + 1, shape=(1, 1, 1), encode_items=spy(asked))
    assert asked == [range(CHUNK, 2 * CHUNK), range(2 * CHUNK, 3 * CHUNK)]
    assert np.array_equal(latents, ranged(range(3 * CHUNK)))
    asked.clear()
    latent_cache(path, num_items=5, shape=(1, 1, 1), encode_items=spy(asked))
    assert asked == []


def test_another_autoencoder_or_seed_gets_a_file_of_its_own(tmp_path: Path) -> None:
    shapes_source(tmp_path)
    shapes_source(tmp_path, seed=2)
    ShapesSource(
        encode=encode, autoencoder_hash="other", cache_dir=tmp_path, seed=1, pool_size=20, validation_size=4
    )
    assert len(list(tmp_path.glob("*.f16"))) == 3


def make_folder(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (40 + i, 32), (i * 20, 0, 0)).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"picture {i}\nimage {i}\n")
    return folder


def folder_source(folder: Path) -> FolderSource:
    return FolderSource(folder, encode=encode, image_size=32, seed=1, validation_size=4)


def test_folder_samples_depend_on_their_index_alone(tmp_path: Path) -> None:
    source = folder_source(make_folder(tmp_path / "data"))
    whole, part = source.batch(range(30)), source.batch([29, 4])
    assert part.captions == [whole.captions[29], whole.captions[4]]
    assert torch.equal(part.latents, whole.latents[[29, 4]])
    assert any(c.startswith("picture") for c in whole.captions)
    assert any(c.startswith("image") for c in whole.captions)
    # caption and picture belong together: the red of picture i is 20 i
    numbers = torch.tensor([int(caption.split()[1]) for caption in whole.captions])
    torch.testing.assert_close(whole.latents[:, 0, 0, 0], numbers * 20 / 127.5 - 1)


def test_held_back_pictures_are_never_trained_on(tmp_path: Path) -> None:
    source = folder_source(make_folder(tmp_path / "data"))
    held_back = {caption.split()[1] for caption in source.held_back().captions}
    trained = {caption.split()[1] for caption in source.batch(range(60)).captions}
    assert len(held_back) == 1 and not held_back & trained and len(trained) == 11


def items_of(folder: Path) -> list[Item]:
    return list_samples(folder).checked().items


def bytes_of(item: Item) -> bytes:
    content = item.read()
    return content if isinstance(content, bytes) else content.read_bytes()


def test_captions_file_lists_the_pictures(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", 2)
    rows = [{"file": "00.png", "caption": "one"}, {"file_name": "01.png", "text": ["two", "zwei"]}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [(item.name, item.captions) for item in items_of(folder)] == [
        ("00.png", ("one",)),
        ("01.png", ("two", "zwei")),
    ]
    (folder / "captions.jsonl").write_text('{"picture": "00.png"}')
    with pytest.raises(UserError, match='captions.jsonl:1: expected {"file"'):
        items_of(folder)


def test_shards_hold_the_same_samples_as_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        with tarfile.open(shards / f"{number:05d}.tar", "w") as tar:
            for path in sorted(folder.iterdir()):
                if int(path.stem) % 2 == number:
                    tar.add(path, path.name)
    by_caption = {item.captions: bytes_of(item) for item in items_of(folder)}
    assert {item.captions: bytes_of(item) for item in items_of(shards)} == by_caption
    assert folder_source(shards).batch(range(3)).latents.shape == (3, 3, 2, 2)
    (shards / "00000.tar").write_bytes(b"not a tar file")
    with pytest.raises(UserError, match="cannot read shard .*00000.tar"):
        items_of(shards)


def test_what_the_shapes_world_writes_can_be_trained_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", count=3, seed=0)
    write_webdataset(tmp_path / "shards", count=3, seed=0)
    folder, shards = items_of(tmp_path / "folder"), items_of(tmp_path / "shards")
    assert len(folder) == 3
    assert [(i.captions, bytes_of(i)) for i in folder] == [(i.captions, bytes_of(i)) for i in shards]


def test_picture_is_resized_by_its_short_side_and_centre_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    picture = load_picture(Item("wide", (), InFile(tmp_path / "wide.png")), 20)
    assert picture.shape == (20, 20, 3) and (picture == 255).all()


def test_unreadable_data_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data folder"):
        items_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no captioned pictures in .*empty; expected NAME.png with NAME.txt"):
        items_of(tmp_path / "empty")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(MediaError, match="cannot read picture bad: cannot identify image file"):
        load_picture(Item("bad", (), InFile(tmp_path / "bad.png")), 8)
    with pytest.raises(MediaError, match="cannot read picture gone: No such file"):
        load_picture(Item("gone", (), InFile(tmp_path / "gone.png")), 8)


def test_broken_pictures_are_replaced_and_named(tmp_path: Path) -> None:
    """The others keep their places: a broken file changes the samples of its own turns alone."""
    folder = make_folder(tmp_path / "data")
    whole = folder_source(folder).batch(range(44))
    held_back = folder_source(folder).held_back().captions[0].split()[1]
    broken = next(number for number in range(12) if number != int(held_back))
    (folder / f"{broken:02d}.png").write_bytes(b"not a picture")
    source = folder_source(folder)
    batches = [source.batch(range(start, start + 11)) for start in range(0, 44, 11)]
    told = [line for batch in batches for line in batch.unreadable]
    assert len(told) == 4 and len({*told}) == 1  # once an epoch of 11
    assert f"cannot read picture {broken:02d}.png" in told[0]
    captions = [caption for batch in batches for caption in batch.captions]
    latents = torch.cat([batch.latents for batch in batches])
    for index, caption in enumerate(whole.captions):
        if int(caption.split()[1]) == broken:
            assert int(captions[index].split()[1]) != broken
        else:
            assert captions[index] == caption and torch.equal(latents[index], whole.latents[index])
    again = folder_source(folder).batch(range(44))
    assert again.captions == captions and torch.equal(again.latents, latents)


def test_a_broken_picture_is_not_held_back(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    first = folder_source(folder).held_back().captions[0].split()[1]
    (folder / f"{int(first):02d}.png").write_bytes(b"not a picture")
    held_back = folder_source(folder).held_back()
    assert len(held_back.captions) == 1 and held_back.captions[0].split()[1] != first
    assert f"{int(first):02d}.png" in held_back.unreadable[0]


def test_a_set_of_broken_pictures_stops(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    source = folder_source(folder)
    for path in folder.glob("*.png"):
        path.write_bytes(b"not a picture")
    with pytest.raises(UserError, match="16 pictures in a row cannot be read, the last: cannot read picture"):
        source.batch(range(4))
    with pytest.raises(UserError, match="no file can be read, the first: cannot read picture"):
        folder_source(folder)


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 1 captioned picture, need at least 2"):
        folder_source(make_folder(tmp_path / "data", 1))


def test_decoding_ahead_changes_no_result() -> None:
    asked: list[int] = []

    def decode(index: int) -> int:
        asked.append(index)
        return index * index

    ahead = DecodeAhead(decode, num_threads=2)
    for batch in (range(0, 4), range(4, 8), range(8, 12), [99, 3, 3], range(200, 204), range(208, 212)):
        assert ahead(batch) == [index * index for index in batch]
        assert len(ahead._waiting) <= 2 * len(batch)  # bounded
    assert len(asked) <= 44  # each batch and what was guessed; nothing decoded twice on the straight way
    assert sorted(asked)[:12] == list(range(12)) or asked.count(3) == 2


def test_decoding_ahead_raises_where_the_result_is_taken() -> None:
    def decode(index: int) -> int:
        if index == 5:
            raise MediaError("five")
        return index

    ahead = DecodeAhead(decode, num_threads=2)
    assert ahead(range(0, 4)) == [0, 1, 2, 3]
    with pytest.raises(MediaError, match="five"):
        ahead(range(4, 8))
    assert ahead(range(8, 12)) == [8, 9, 10, 11]
