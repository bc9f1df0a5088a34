"""Pictures as cameras, scanners and designers save them, in the colours a person would see."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gentron.errors import MediaError
from gentron.pictures import read_picture

CASES = Path(__file__).parents[1] / "data" / "cases"


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def ramp(dtype: str, top: float) -> Image.Image:
    """Grey from 0 to `top`, left to right, 256 wide."""
    return Image.fromarray(np.tile(np.linspace(0, top, 256), (4, 1)).astype(dtype))


@pytest.mark.parametrize(
    "image,form",
    [
        (ramp("uint16", 65535), "PNG"),
        (ramp("uint16", 65535), "TIFF"),
        (ramp("int32", 65535), "TIFF"),
        (ramp("int32", 255), "TIFF"),
        (ramp("float32", 1), "TIFF"),
        (ramp("uint8", 255), "PNG"),
    ],
)
def test_grey_of_any_depth_is_scaled_by_its_range(image: Image.Image, form: str) -> None:
    """Pillow's own conversion clips: 16-bit grey turns white, 0..1 floats black."""
    pixels = np.asarray(read_picture(encoded(image, form)))
    assert pixels.shape == (4, 256, 3)
    assert np.abs(pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("image", [ramp("float32", 3.5), ramp("int32", 1e6), ramp("float32", np.nan)])
def test_grey_of_no_known_range_is_refused(image: Image.Image) -> None:
    with pytest.raises(MediaError, match=r"deep.tif: .* values from .* to .*, expected 0\.\."):
        read_picture(encoded(image, "TIFF"), name="deep.tif")


def clear(mode: str) -> bytes:
    """Half red, half transparent over a hidden magenta."""
    if mode == "P":
        image = Image.new("P", (8, 4), 0)
        image.putpalette([255, 0, 255, 255, 0, 0])
        image.paste(1, (0, 0, 4, 4))
        return encoded(image, transparency=0)
    if mode == "RGB":
        image = Image.new("RGB", (8, 4), (255, 0, 255))
        image.paste((255, 0, 0), (0, 0, 4, 4))
        return encoded(image, transparency=(255, 0, 255))
    image = Image.new("RGBA", (8, 4), (255, 0, 255, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 4))
    return encoded(
        image,
        "WEBP" if mode == "WEBP" else "PNG",
        **({"lossless": True, "exact": True} if mode == "WEBP" else {}),
    )


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "WEBP"])
def test_transparency_is_white_in_every_form(mode: str) -> None:
    image = read_picture(clear(mode))
    assert image.getpixel((1, 1)) == (255, 0, 0) and image.getpixel((6, 1)) == (255, 255, 255)


def test_half_transparent_is_mixed_with_white() -> None:
    image = read_picture(encoded(Image.new("LA", (2, 2), (0, 51))))
    assert image.getpixel((0, 0)) == (204, 204, 204)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_honoured(orientation: int, form: str) -> None:
    """The corner that is stored first must stand where the standard says."""
    stored = Image.new("RGB", (48, 32), (0, 0, 0))
    stored.paste((255, 255, 255), (0, 0, 16, 16))  # the first corner that is stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read_picture(encoded(stored, form, exif=exif))
    assert upright.size == ((48, 32) if orientation < 5 else (32, 48))
    # where row 0 and column 0 of the stored picture are shown, Exif 2.32 table 6
    row0, column0 = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    x = 8 if "left" in (row0, column0) else upright.width - 8
    y = 8 if "top" in (row0, column0) else upright.height - 8
    assert upright.convert("L").getpixel((x, y)) > 240  # type: ignore[operator]
    if form != "TIFF":
        assert read_picture(encoded(stored, form, exif=exif), honour_exif=False).size == (48, 32)


def test_damaged_exif_leaves_the_picture() -> None:
    data = encoded(Image.new("RGB", (8, 8), (9, 9, 9)), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff\xff")
    assert read_picture(data).size == (8, 8)


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size whose pixels are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
def test_a_decompression_bomb_is_one_line_with_its_name(side: int) -> None:
    """Also the size of which Pillow only warns, whatever the warnings filter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MediaError, match="cannot read picture bomb.png: .*decompression bomb") as caught:
            read_picture(png_header(side, side), name="bomb.png")
    assert "\n" not in str(caught.value)


def test_damaged_pictures_raise_one_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = encoded(image, form)
        for data in (whole[: len(whole) // 2], whole[:40], b"", b"\0" * 100):
            with pytest.raises(MediaError, match="cannot read picture x:"):
                read_picture(data, name="x")
    with pytest.raises(MediaError, match="none.png: No such file"):
        read_picture(tmp_path / "none.png")


def test_random_damage_never_escapes_as_another_error() -> None:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = encoded(image, form)
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 6):
                data[place] = rng.integers(256)
            try:
                assert read_picture(bytes(data)).mode == "RGB"
            except MediaError:
                pass


def test_no_program_is_started_for_a_picture() -> None:
    """Pillow hands EPS to Ghostscript."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(MediaError, match="cannot identify"):
        read_picture(eps)


def test_the_pictures_of_the_cases() -> None:
    folder = CASES / "pictures"
    grey, deep, real = (
        np.asarray(read_picture(folder / name)) for name in ("gray16.png", "int32.tif", "float.tif")
    )
    assert grey.max() == 255 and grey.min() == 0 and len(np.unique(grey)) > 2
    assert deep.max() == 255 and len(np.unique(deep)) > 2
    assert 20 < real.min() < 40 and 230 < real.max() < 245
    assert read_picture(folder / "exif6.jpg").size == (64, 96)
    magenta = np.asarray(read_picture(folder / "alpha_hidden_magenta.png")).reshape(-1, 3)
    assert not (magenta == (255, 0, 255)).all(1).any()
    with pytest.raises(MediaError, match="b.png: .*400000000 pixels.*bomb"):
        read_picture(CASES / "bomb" / "b.png")
