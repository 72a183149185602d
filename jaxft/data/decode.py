"""From a picture's bytes to uint8 pixels: never silently wrong.

Pillow alone clips 16-bit greys at 255, turns float images to zero, ignores EXIF rotation, drops alpha, decodes a small
file into gigabytes and does not look at a PNG's checksums. Here: 16 bits are scaled, rotation is applied, transparent
pixels lie on white, and what is too large, cut short, damaged or of an unknown kind is a `BadImage` with a reason.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from jaxft.errors import JaxftError

#: Pixels beyond which a picture is refused before it is decoded (JPEGs are first halved as far as their format allows).
MAX_PIXELS = 100_000_000
#: Pillow's guard against bombs is replaced by ours, which needs no warning.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False
#: Pillow warns of metadata it repairs. `catch_warnings` in many threads would in the end silence everybody's warnings.
warnings.filterwarnings("ignore", module=r"PIL\.")
#: What is opened, whatever a file is called: Pillow would start Ghostscript for a PostScript file named .jpg.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
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


def decode(image: bytes | Path | np.ndarray, channels: int = 3) -> np.ndarray:
    """Decodes a picture.

    Args:
      image: a file's bytes or path; or pixels, uint8 [H, W] or [H, W, C].
      channels: 3 gives RGB, 1 grey; another number only takes pixels that have it.

    Returns:
      uint8 [H, W, channels].

    Raises:
      BadImage: with the reason.
    """
    if isinstance(image, np.ndarray):
        return _pixels(image, channels)
    if channels not in (1, 3):
        raise BadImage(f"a picture file gives 1 or 3 channels, not {channels}: pass arrays")
    try:
        with _open(image) as opened:
            if opened.format != "PNG":
                return _decode(opened, channels)
            opened.verify()  # the checksums of its chunks; the file must then be opened anew
        with _open(image) as opened:
            return _decode(opened, channels)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        size = image.stat().st_size if isinstance(image, Path) else len(image)
        raise BadImage("the file is empty" if size == 0 else "not a picture in a known format") from error
    except FileNotFoundError as error:
        raise BadImage("the file does not exist") from error
    except Exception as error:  # whatever Pillow stumbles over: struct.error, SyntaxError, OSError, MemoryError, ...
        raise BadImage(f"cannot be decoded ({str(error)[:100] or type(error).__name__})") from error


def _open(image: bytes | Path) -> Image.Image:
    return Image.open(image if isinstance(image, Path) else io.BytesIO(image), formats=_FORMATS)


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


def _decode(opened: Image.Image, channels: int) -> np.ndarray:
    width, height = opened.size
    if width * height > MAX_PIXELS and opened.format in ("JPEG", "MPO"):
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 for a fraction of the memory; Pillow goes no lower than it is asked.
        by = next((by for by in (2, 4) if -(-width // by) * -(-height // by) <= MAX_PIXELS), 8)
        opened.draft(opened.mode, (width // by, height // by))
        width, height = opened.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width}x{height} pixels are more than {MAX_PIXELS:,}")
    opened.load()
    turn = _UPRIGHT.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    image = opened if turn is None else opened.transpose(turn)
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = _sixteen_bits(np.asarray(image))
    elif image.mode == "F":
        raise BadImage("a float picture has no defined range of values: save it as 8 or 16 bits")
    else:
        return np.array(_flatten(image).convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, -1)
    return np.repeat(grey[:, :, None], channels, axis=2)


def _sixteen_bits(values: np.ndarray) -> np.ndarray:
    """0..65535 to 0..255, rounded: 65535 / 255 is 257."""
    if values.min() < 0 or values.max() > 65535:
        raise BadImage("a 32-bit integer picture has no defined range of values: save it as 8 or 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _flatten(image: Image.Image) -> Image.Image:
    """Lays transparent pictures on white."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image)
    return image
