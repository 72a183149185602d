"""Seeded pictures; scripts/make_transform_fixtures.py draws the same ones."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

#: name: height, width, channels, resize, size.
CASES = {
    "landscape": (47, 71, 3, 32, 24),
    "portrait": (71, 47, 3, 32, 24),
    "square": (50, 50, 3, 32, 24),
    "an odd margin": (33, 35, 3, 32, 27),
    "an odd margin of 5": (38, 40, 3, 32, 27),
    "a margin of 7": (33, 35, 3, 32, 25),
    "a margin of 7 in a tall picture": (40, 38, 3, 32, 25),
    "upscaled": (9, 13, 3, 32, 24),
    "upscaled portrait": (13, 9, 3, 31, 31),
    "not resized": (32, 45, 3, 32, 32),
    "nothing to do": (24, 24, 3, 24, 24),
    "a crop larger than the picture": (40, 46, 3, 16, 25),
    "a crop larger than the short side": (40, 60, 3, 20, 25),
    "a crop larger than a tall picture": (61, 40, 3, 17, 24),
    "a strip": (200, 7, 3, 24, 24),
    "a line": (1, 5, 3, 12, 10),
    "grey": (47, 71, 1, 32, 24),
}
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
#: Of the size of photographs: the fixtures hold a hash of what becomes of them at 256 and 224.
LARGE = {"large landscape": (427, 640, 3, 256, 224), "large portrait": (500, 375, 3, 256, 224)}

#: name: height, width, scale, ratio of a random resized crop.
CROPS = {
    "usual": (400, 600, (0.08, 1.0), (3 / 4, 4 / 3)),
    "mild": (500, 375, (0.5, 1.0), (3 / 4, 4 / 3)),
    "narrow ratio": (300, 300, (0.7, 1.0), (0.9, 1 / 0.9)),
    "a wide strip": (40, 400, (0.08, 1.0), (3 / 4, 4 / 3)),
    "a tall strip": (400, 40, (0.5, 1.0), (3 / 4, 4 / 3)),
}
SHARES = np.linspace(0.01, 0.99, 99)


def picture(name, height, width, channels):
    """Soft stripes below strong noise, uint8 [H, W, C]."""
    rng = np.random.default_rng([*name.encode()])
    y, x = np.mgrid[:height, :width]
    stripes = 90 + 60 * np.sign((x + 2 * y) % 17 - 8)[..., None]
    return np.clip(stripes + rng.integers(-120, 121, (height, width, channels)), 0, 255).astype(np.uint8)


def smooth(height, width, channels=3):
    """Soft waves without noise, which lossy formats keep well: uint8 [H, W, C]. No symmetry maps it to itself."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 60 * np.sin((x + c) / 9) + 50 * np.cos((y + x * c / 4) / 7) for c in range(channels)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def encode(image, kind, **options):
    """A picture (Pillow's, or pixels) as the bytes of a file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[-1] == 1 else image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_file(width, height, depth, kind, rows, extra=b""):
    """A PNG by hand, for what Pillow does not write."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff_file(width, height, bits, photometric, data, tags=(), *, fmt=None):
    """A TIFF of one strip by hand; `bits` of each channel, `tags` more short ones by number."""
    bits = (bits,) if isinstance(bits, int) else bits
    entries = {256: width, 257: height, 258: bits[0], 259: 1, 262: photometric, 273: 0, 277: len(bits), 278: height}
    entries |= {279: len(data), **({} if fmt is None else {339: fmt}), **dict(tags)}
    end = 8 + 2 + 12 * len(entries) + 4
    entries[273] = end + 2 * len(bits)
    rows = b""
    for tag, value in sorted(entries.items()):
        if tag == 258 and len(bits) > 1:
            rows += struct.pack("<HHII", tag, 3, len(bits), end)
        else:
            rows += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4) + struct.pack(f"<{len(bits)}H", *bits) + data


def crop_figures(boxes, height, width):
    """What is compared of many crops (left, top, width, height): [5, N]."""
    left, top, w, h = np.asarray(boxes, float).T
    return np.stack([w * h / (height * width), w / h, left / width, top / height, w / width])
