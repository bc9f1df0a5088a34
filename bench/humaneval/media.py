"""Pictures of a study: one size, one format, no metadata; and the corruption of gold items."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from bench.systems.images import encode_png, read_image
from gentron.errors import UserError
from gentron.hashing import sha256

RESIZE = "lanczos"
TILES = 8
NOISE = 48.0  # standard deviation, of 255
PNG_CHUNKS = (b"IHDR", b"IDAT", b"IEND")


def picture_facts(path: Path) -> tuple[tuple[int, int], str]:
    """(width, height) and the sha256 of the pixels; raises BadImage with the reason."""
    image, _ = read_image(path)
    return (image.shape[1], image.shape[0]), sha256(image.tobytes())


def common_size(sizes: set[tuple[int, int]], image_size: int | None) -> tuple[int, int]:
    """The (width, height) that all pictures are brought to: `image_size` as the longer side, or the largest.

    Raises UserError if their shapes differ: cropping or bands would tell the systems apart.
    """
    ratios = {round(width / height, 2) for width, height in sizes}
    if len(ratios) > 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:4])
        raise UserError(
            f"pictures differ in shape ({shown}): rater could tell the systems apart; make them alike first"
        )
    width, height = max(sizes)
    if image_size is None:
        return width, height
    scale = image_size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def plain_png(path: Path, size: tuple[int, int]) -> tuple[bytes, str]:
    """The picture as a PNG of this size, pixels and nothing else, and the sha256 of the file it is from."""
    image, digest = read_image(path)
    return encode_png(resized(image, size)), digest


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (size[1], size[0], 3) by Pillow's Lanczos; nothing for a picture of that size."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def corrupt(image: np.ndarray, seed: bytes) -> np.ndarray:
    """(H, W, 3) uint8 -> the same tiles in another order under strong noise: nobody attentive prefers it."""
    rng = np.random.default_rng(list(seed))
    height, width = image.shape[:2]
    rows = np.array_split(np.arange(height), min(TILES, height))
    columns = np.array_split(np.arange(width), min(TILES, width))
    shift_rows, shift_columns = rng.permutation(len(rows)), rng.permutation(len(columns))
    out = np.empty(image.shape, np.float64)
    for r, into_rows in enumerate(rows):
        for c, into_columns in enumerate(columns):
            # two permutations mixed: rows alone would leave stripes that still look like the picture
            tile_rows = rows[shift_rows[(r + c) % len(rows)]]
            tile_columns = columns[shift_columns[(c + 3 * r) % len(columns)]]
            tile = image[np.ix_(tile_rows, tile_columns)]
            out[np.ix_(into_rows, into_columns)] = np.asarray(
                Image.fromarray(tile).resize((len(into_columns), len(into_rows)), Image.Resampling.NEAREST)
            )
    out += rng.normal(0.0, NOISE, out.shape)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def corrupted_png(png: bytes, seed: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as file:
        return encode_png(corrupt(np.asarray(file.convert("RGB")), seed))


def png_chunks(data: bytes) -> list[bytes]:
    """Names of a PNG's chunks in order; ValueError if it is none."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG file")
    names, place = [], 8
    while place + 8 <= len(data):
        names.append(data[place + 4 : place + 8])
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return names


def describe_bad(bad: list[tuple[str, str, str]], *, shown: int = 5) -> str:
    """(system, image id, reason) of pictures that cannot be shown, as one line."""
    names = [f"{system} {name} ({reason})" for system, name, reason in bad[:shown]]
    more = f" and {len(bad) - shown} more" if len(bad) > shown else ""
    return f"{len(bad)} pictures cannot be shown: {', '.join(names)}{more}; a study needs them all"
