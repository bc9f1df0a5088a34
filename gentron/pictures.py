"""Any picture file as the RGB picture a person would see: one reader for training, judging and viewing."""

# H, W: sides of a picture in pixels

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from gentron.errors import MediaError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
"""Those that decode here: Pillow's EPS would start a program, others are not pictures people train on."""

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored picture upright (Exif 2.32, table 6)."""

_OPENING = threading.Lock()  # catch_warnings is not safe among threads


def read_picture(source: Path | bytes, *, name: str | None = None, honour_exif: bool = True) -> Image.Image:
    """The picture in RGB: upright as its EXIF says, transparency on white, deep grey scaled to 8 bit.

    source: a file or its bytes.   name: what an error calls it.   honour_exif: False keeps the stored
    orientation, as tools that compute FID do (but for TIFF, which Pillow itself turns).
    Raises MediaError with the file's name for what is damaged, no picture, a decompression bomb, or grey
    values in no known range.
    """
    name = name or (f"of {len(source)} bytes" if isinstance(source, bytes) else str(source))
    try:
        with _open(source) as image:
            rgb = as_rgb(image)
            turn = UPRIGHT.get(_orientation(image)) if honour_exif else None
    except OSError as error:
        reason = error.strerror or str(error).split(" <_io")[0]
        raise MediaError(f"cannot read picture {name}: {reason}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = str(error).split(", could")[0]
        raise MediaError(f"cannot read picture {name}: {reason}: a decompression bomb?") from None
    except Exception as error:  # decoders raise all kinds on damaged files: struct, zlib, Key, Index, ...
        raise MediaError(f"cannot read picture {name}: {error or type(error).__name__}") from None
    return rgb if turn is None else rgb.transpose(turn)


def _open(source: Path | bytes) -> Image.Image:
    """Reads the header alone; what Pillow warns of as a possible bomb (89 million pixels) is an error."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF in a good picture: it stands as it is stored
        return 1


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB; the first frame where there are several. MediaError: no known range."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """(H, W) uint16, int32 or float -> uint8, by the range that the values are stated in.

    uint16: 0..65535.   int32: 0..255 or 0..65535, whichever holds all.   float: 0..1.   Else MediaError: a
    guess would show white or black.
    """
    if values.dtype == np.uint16:
        return np.rint(values / 257).astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and 0 <= low and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if values.dtype.kind == "i" and 0 <= low and high <= 65535:
        return np.rint(values / (1 if high <= 255 else 257)).astype(np.uint8)
    expected = "0..1" if values.dtype.kind == "f" else "0..65535"
    raise MediaError(
        f"{values.dtype} values from {low} to {high}, expected {expected}; save it with 8 or 16 bits"
    )
