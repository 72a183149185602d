"""From a picture's bytes to uint8 pixels: never silently wrong.

Pillow alone clips 16-bit greys at 255, turns float images to zero, ignores EXIF rotation, drops alpha, decodes a small
file into gigabytes and does not look at a PNG's checksums. Here: 16 bits are scaled, rotation is applied, transparent
pixels lie on white, and what is too large, cut short, damaged or of an unknown kind is a `BadImage` with a reason.
docs/pictures.md lists the kinds.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
import stat
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from jaxft.decoding.memory import TooMuch, held
from jaxft.decoding.signatures import what_else
from jaxft.errors import JaxftError

#: Pixels beyond which a picture is refused before it is decoded (JPEGs are first halved as far as their format allows).
MAX_PIXELS = 100_000_000
#: Pillow's guard against bombs is replaced by ours, which needs no warning.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False
#: Pillow warns of metadata it repairs. `catch_warnings` in many threads would in the end silence everybody's warnings.
warnings.filterwarnings("ignore", module=r"PIL\.")
#: Files up to this size are read at once: Pillow asks for them in many small pieces, and threads get in each other's way.
_AT_ONCE = 16 << 20
#: What is opened, whatever a file is called: Pillow would start Ghostscript for a PostScript file named .jpg.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
#: The most bytes a pixel that decoding took, of 17 kinds: Pillow's own four a pixel, four more turned, the array twice; and
#: where it is laid on white, or libwebp has two pictures of its own.
_BYTES_A_PIXEL = 16
_BYTES_A_PIXEL_ON_WHITE = 24
#: Of a progressive JPEG all coefficients, two bytes each, at full size whatever size is decoded.
_BYTES_OF_COEFFICIENTS = 6
#: By the EXIF orientation. `ImageOps.exif_transpose` would write all tags anew, and fail where one is odd.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(JaxftError):
    """A picture that cannot be read, and why."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded picture, and what its file said of it.

    Attributes:
      pixels: uint8 [H, W, C].
      kind: "JPEG", "PNG", ...; "array" of pixels.
      mode: Pillow's: "RGB", "L", "P", "I;16", ...; of pixels, "L", "RGB" or the number of channels.
      height, width: of the upright picture in full, where `pixels` may be shrunk.
      orientation: EXIF's, 1 to 8; 1 is upright.
    """

    pixels: np.ndarray
    kind: str
    mode: str
    height: int
    width: int
    orientation: int = 1


def decode(
    image: bytes | Path | np.ndarray,
    channels: int = 3,
    *,
    shrink: Callable[[int, int], float] | None = None,
    cut: Callable[[Image.Image], Image.Image] | None = None,
) -> np.ndarray:
    """Decodes a picture.

    Args:
      image: a file's bytes or path; or pixels, uint8 [H, W] or [H, W, C].
      channels: 3 gives RGB, 1 grey; another number only takes pixels that have it.
      shrink: `shrink(height, width)` is called once with the size of the upright picture, and says how many times smaller
        both sides may become. A JPEG is then decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that is not smaller than that,
        before its colours are computed (libjpeg's scaled inverse DCT), with ceil(side * scale) pixels a side. Other files and
        pixels come in full.
      cut: of a file, what is wanted of the upright picture ("L" or "RGB"), taken before it becomes an array: that saves copies.

    Returns:
      uint8 [H, W, channels].

    Raises:
      BadImage: with the reason.
    """
    return read_picture(image, channels, shrink=shrink, cut=cut).pixels


def read_picture(
    image: bytes | Path | np.ndarray,
    channels: int = 3,
    *,
    shrink: Callable[[int, int], float] | None = None,
    cut: Callable[[Image.Image], Image.Image] | None = None,
) -> Picture:
    """`decode`, with what the file says of the picture."""
    if isinstance(image, np.ndarray):
        pixels = _pixels(image, channels)
        height, width, given = image.shape if image.ndim == 3 else (*image.shape, 1)
        if shrink is not None:
            shrink(height, width)
        return Picture(pixels, "array", {1: "L", 3: "RGB"}.get(given, str(given)), height, width)
    if channels not in (1, 3):
        raise BadImage(f"a picture file gives 1 or 3 channels, not {channels}: pass arrays")
    try:
        if isinstance(image, Path):
            found = image.stat()
            if not stat.S_ISREG(found.st_mode):
                # Opening a pipe would wait for somebody to write into it.
                raise BadImage(
                    "is a directory" if stat.S_ISDIR(found.st_mode) else "is no regular file, but a pipe, socket or device"
                )
            if found.st_size <= _AT_ONCE:
                image = image.read_bytes()
        with _open(image) as opened:
            if opened.format == "PNG":
                # Pillow's own `verify` would read the file once more from its beginning, piece by piece.
                if isinstance(image, Path):
                    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                        _check_chunks(mapped)
                else:
                    _check_chunks(image)
            return _decode(opened, channels, shrink, cut)
    except (BadImage, TooMuch):
        raise
    except UnidentifiedImageError as error:
        raise BadImage(what_else(_head(image))) from error
    except FileNotFoundError as error:
        raise BadImage("the file does not exist") from error
    except Exception as error:  # whatever Pillow stumbles over: struct.error, SyntaxError, OSError, MemoryError, ...
        if isinstance(error, OSError) and error.strerror:
            raise BadImage(f"cannot be read ({error.strerror})") from error
        raise BadImage(f"cannot be decoded ({str(error)[:100] or type(error).__name__})") from error


def _check_chunks(file: bytes | mmap.mmap) -> None:
    """Compares the checksums of a PNG's chunks, up to its last one (PNG Specification, 5.3).

    Raises:
      BadImage: one is wrong, or the file ends before.
    """
    at, kind = 8, b""
    with memoryview(file) as view:
        while kind != b"IEND":
            length, kind = int.from_bytes(view[at : at + 4]), bytes(view[at + 4 : at + 8])
            end = at + 8 + length
            if len(view) < end + 4:
                raise BadImage("cannot be decoded (the file is cut short)")
            if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
                raise BadImage(
                    f"cannot be decoded (broken PNG file: the checksum of its chunk {kind.decode('latin1')!r} is wrong)"
                )
            at = end + 4


def _open(image: bytes | Path) -> Image.Image:
    return Image.open(image if isinstance(image, Path) else io.BytesIO(image), formats=_FORMATS)


def _head(image: bytes | Path) -> bytes:
    if not isinstance(image, Path):
        return bytes(image[:64])
    with image.open("rb") as file:
        return file.read(64)


def _pixels(image: np.ndarray, channels: int) -> np.ndarray:
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
        raise BadImage(f"pixels must be uint8 [H, W] or [H, W, C], not {image.dtype} {list(image.shape)}")
    if pixels.shape[2] == channels:
        return pixels
    if pixels.shape[2] == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 3 and channels == 1:
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    raise BadImage(f"{pixels.shape[2]} channels where {channels} are wanted")


def _decode(
    opened: Image.Image,
    channels: int,
    shrink: Callable[[int, int], float] | None,
    cut: Callable[[Image.Image], Image.Image] | None,
) -> Picture:
    full, by = opened.size, 1
    orientation = 1
    if jpeg := opened.format in ("JPEG", "MPO"):
        orientation = _orientation(opened)
        by = _scale(full, orientation, shrink)
        # Fractions of pixels, as Pillow rounds them down before it rounds up.
        opened.draft(opened.mode, (full[0] / by, full[1] / by))  # type: ignore[arg-type]
    if opened.width * opened.height > MAX_PIXELS:
        raise BadImage(f"{opened.width}x{opened.height} pixels are more than {MAX_PIXELS:,}")
    progressive = jpeg and "progressive" in opened.info
    if progressive and full[0] * full[1] > 4 * MAX_PIXELS:
        raise BadImage(f"{full[0]}x{full[1]} pixels are too many for a progressive JPEG, which is held whole")
    much = opened.format == "WEBP" or _transparent(opened)
    cost = opened.width * opened.height * (_BYTES_A_PIXEL_ON_WHITE if much else _BYTES_A_PIXEL)
    with held(cost + (full[0] * full[1] * _BYTES_OF_COEFFICIENTS if progressive else 0)):
        facts = _facts(opened)
        opened.load()
        if not jpeg:
            # Of a TIFF Pillow's `load` has turned the pixels, and a PNG may say so after them.
            orientation = _orientation(opened)
            full = opened.size
            if shrink is not None:
                shrink(*_upright(full, orientation))
        image = opened if orientation == 1 else opened.transpose(_UPRIGHT[orientation])
        upright = _eight_bits(image, facts, channels)
        wanted = np.array(upright if cut is None else cut(upright))
        pixels = wanted.reshape(*wanted.shape[:2], -1)
    height, width = _upright(full, orientation)
    return Picture(pixels, "JPEG" if jpeg else str(opened.format), opened.mode, height, width, facts.orientation or orientation)


def _orientation(opened: Image.Image) -> int:
    found = opened.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in _UPRIGHT else 1


def _upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of what is stored as (width, height)."""
    return size if orientation >= 5 else (size[1], size[0])


def _scale(full: tuple[int, int], orientation: int, shrink: Callable[[int, int], float] | None) -> int:
    """1, 2, 4 or 8: what the sides of a JPEG are divided by. Too large a one is halved until it fits."""
    by = next((by for by in (1, 2, 4) if -(-full[0] // by) * -(-full[1] // by) <= MAX_PIXELS), 8)
    if shrink is None:
        return by
    asked = shrink(*_upright(full, orientation))
    return max(by, next((by for by in (8, 4, 2) if by <= asked), 1))


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What a file says of its values, and Pillow does not apply.

    Attributes:
      top: the largest value of greys of more than 8 bits.
      inverted: whether 0 is white among them.
      transparent: the grey that is transparent, as Pillow scales greys; None is none.
      orientation: of a TIFF, which Pillow turns itself; 0 of others.
    """

    top: int = 65535
    inverted: bool = False
    transparent: int | None = None
    orientation: int = 0


def _facts(opened: Image.Image) -> _Facts:
    """Before it is loaded.

    Raises:
      BadImage: values that no rule turns to 8 bits.
    """
    if opened.format == "TIFF":
        tags = opened.tag_v2  # type: ignore[attr-defined]
        bits, form = _first(tags.get(TiffImagePlugin.BITSPERSAMPLE)), _first(tags.get(TiffImagePlugin.SAMPLEFORMAT))
        if form == 2 and bits <= 16:
            raise BadImage("signed integers have no defined range of values: save it as 8 or 16 bits without a sign")
        inverted = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
        turned = tags.get(ExifTags.Base.Orientation, 1)
        return _Facts(4095 if bits == 12 else 65535, inverted, None, turned if turned in _UPRIGHT else 1)
    clear = opened.info.get("transparency")
    if opened.format == "PNG" and isinstance(clear, int | tuple) and opened.mode in ("L", "I;16", "RGB"):
        raw = str(opened.tile[0][3])  # type: ignore[attr-defined]
        if opened.mode == "RGB" and ";16" in raw:
            raise BadImage("16 bits with a transparent colour are not read: save it with an alpha channel, or as 8 bits")
        if isinstance(clear, int):
            return _Facts(transparent=clear * {"L;2": 85, "L;4": 17}.get(raw, 1))
    return _Facts()


def _first(tag: int | tuple[int, ...] | None) -> int:
    """A TIFF's tag of one value a channel: of the first; 1 where it is not there."""
    return (tag[0] if tag else 1) if isinstance(tag, tuple) else tag or 1


def _transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _eight_bits(image: Image.Image, facts: _Facts, channels: int) -> Image.Image:
    """ "L" for one channel, "RGB" for three."""
    wanted = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        grey = _scaled(values, facts.top)
        if facts.inverted:
            grey = 255 - grey
        if facts.transparent is not None:
            grey[values == facts.transparent] = 255
        return Image.fromarray(grey).convert(wanted)
    if image.mode == "F":
        raise BadImage("a float picture has no defined range of values: save it as 8 or 16 bits")
    if facts.transparent is not None:
        image.info["transparency"] = facts.transparent
    if _transparent(image):
        image = image.convert("RGBA")
        # Not in one line: the picture without white is let go before the next copy is made.
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image if image.mode == wanted else image.convert(wanted)


def _scaled(values: np.ndarray, top: int) -> np.ndarray:
    """0..top to 0..255, rounded."""
    if values.min() < 0 or values.max() > top:
        raise BadImage("a 32-bit integer picture has no defined range of values: save it as 8 or 16 bits")
    return ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
