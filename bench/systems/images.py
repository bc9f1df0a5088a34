"""The one place where an image or a clip that was drawn is opened or saved.

A clip is kept as a folder of numbered PNG frames, which is lossless and keeps frames that are alike.
"""

# F frames, H W sides in pixels

from __future__ import annotations

import hashlib
import io
import math
import warnings
from pathlib import Path

import einops
import numpy as np
from PIL import Image, UnidentifiedImageError

from gentron.atomic import atomic_file
from gentron.errors import MediaError


class BadImage(Exception):
    """A picture or clip that cannot be scored; the message is the reason: missing, corrupt, blank, and of
    clips shorter than asked."""


def encode_png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> PNG without metadata; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_image(path: Path) -> tuple[np.ndarray, str]:
    """The picture as (H, W, 3) uint8 and the sha256 of its file; raises BadImage with the reason."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise BadImage("missing") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error
            with Image.open(io.BytesIO(data)) as file:
                image = np.asarray(file.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage("corrupt") from error
    if (image == image[:1, :1]).all():
        raise BadImage("blank")
    return image, sha256(data)


def write_clip(path: Path, frames: np.ndarray, *, fps: float) -> None:
    """Write a whole folder of frames or nothing.   frames: (F, H, W, 3) uint8."""
    from gentron.data import clip_writer

    clip_writer.write_clip(path, frames, fps)


def digest_of(path: Path) -> str | None:
    """sha256 of a file, or of the names and contents of a folder of frames; None if there is neither."""
    if path.is_file():
        return sha256(path.read_bytes())
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_clip(path: Path, *, num_frames: int, fps: float) -> tuple[np.ndarray, str]:
    """The frames (F, H, W, 3) uint8 that a clip of any kind shows at this rate, and its digest; raises
    BadImage with the reason."""
    from gentron.data.video import read_frames

    digest = digest_of(path)
    if digest is None:
        raise BadImage("missing")
    try:
        frames = read_frames(path, num_frames=num_frames, fps=fps)
    except MediaError as error:
        raise BadImage("shorter than asked" if "shorter than asked" in str(error) else "corrupt") from error
    if (frames == frames[:1, :1, :1]).all():
        raise BadImage("blank")
    return frames, digest


def read_shown(path: Path) -> tuple[np.ndarray, str]:
    """What a reader is shown of a picture, itself, or of a folder of frames, all of them side by side; and
    its digest. Raises BadImage with the reason."""
    if not path.is_dir():
        return read_image(path)
    from gentron.data.video import frame_files

    frames = [read_image(file)[0] for file in frame_files(path)]
    if not frames or len({frame.shape for frame in frames}) > 1:
        raise BadImage("corrupt")
    return side_by_side(np.stack(frames)), str(digest_of(path))


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
