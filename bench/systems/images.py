"""The one place where an image file is opened or saved."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import einops
import numpy as np
from PIL import Image

from gentron.atomic import atomic_file
from gentron.errors import MediaError
from gentron.hashing import sha256
from gentron.pictures import as_rgb, read_picture


class BadImage(Exception):
    """A picture that cannot be read; the message is the reason: missing, corrupt, too large."""


def encode_png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> PNG without metadata; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def read_image(path: Path, *, as_stored: bool = False) -> tuple[np.ndarray, str]:
    """The picture as (H, W, 3) uint8 and the sha256 of its file; raises BadImage with the reason.

    As a person sees it: upright by its EXIF, transparency on white.   as_stored: as the tools that compute
    FID read it, by Pillow's own conversion: EXIF unread, transparency dropped. Grey of 16 bits and more is
    scaled to 8 in both. A picture of one colour is a picture like any other: see `is_blank`.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise BadImage("missing") from None
    try:
        picture = _stored(data) if as_stored else read_picture(data, name=path.name)
    except MediaError as error:
        reason = str(error).partition(f"{path.name}: ")[2]
        told = (
            "decompression bomb" in reason or "values from" in reason
        )  # what a person can do something about
        raise BadImage(reason if told else "corrupt") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage("corrupt") from error
    return np.asarray(picture), sha256(data)


def _stored(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error
        with Image.open(io.BytesIO(data)) as file:
            return as_rgb(file) if file.mode.startswith(("I", "F")) else file.convert("RGB")


def is_blank(image: np.ndarray) -> bool:
    """Of one colour: to be counted and warned of, for a model that draws nothing draws this."""
    return bool((image == image[:1, :1]).all())


def side_by_side(frames: np.ndarray) -> np.ndarray:
    """(F, H, W, 3) -> one picture in reading order, about twice as wide as high: 8 frames in 2 rows of 4."""
    columns = math.ceil(math.sqrt(2 * len(frames)))
    rows = math.ceil(len(frames) / columns)
    blank = np.full((rows * columns - len(frames), *frames.shape[1:]), 255, np.uint8)
    return einops.rearrange(np.concatenate([frames, blank]), "(r c) h w d -> (r h) (c w) d", r=rows)


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3): the mean over each area, nothing for a picture of that size."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
