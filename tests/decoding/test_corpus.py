"""A corpus of odd and bad pictures: for each kind the pixels it must give, worked out by hand, or the reason it is refused."""

import base64
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from pictures import encode, png_chunk, png_file, smooth, tiff_file
from PIL import Image

from jaxft.data import BadImage, decode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PIXELS = smooth(21, 30)
GREY = PIXELS[..., 1]
KINDS = {}


def kind(name, data, expected, tolerance=0):
    """Registers a kind: `expected` is pixels, [H, W, 3] or [H, W] of grey, or the reason of a refusal."""
    assert name not in KINDS
    KINDS[name] = (data, expected, tolerance)


def packed(*rows):
    """Rows of bytes as a PNG has them."""
    return zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))


def jpeg(pixels=PIXELS, **options):
    return encode(pixels, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def patched(data, place, new):
    return data[:place] + new + data[place + len(new) :]


def interlaced(pixels):
    """Adam7: seven small pictures in one."""
    rows = b""
    for y, x, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::right])
    data = png_file(pixels.shape[1], pixels.shape[0], 8, 2, zlib.compress(rows))
    head = patched(data[12:29], 16, b"\1")
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def transparent(pixels, alpha):
    share = np.asarray(alpha)[..., None] / 255
    return np.asarray(pixels) * share + 255 * (1 - share)


def ycck():
    """Stored are luma and chroma of the inks, and black, as Adobe writes them: turned over."""
    inks = np.asarray(Image.fromarray(255 - PIXELS).convert("YCbCr"))
    stored = np.concatenate([255 - inks, np.zeros_like(inks[..., :1])], axis=-1)
    data = jpeg(Image.fromarray(stored, "CMYK"))
    return patched(data, data.index(b"Adobe") + 11, b"\2")


SIXTEEN = np.array([[0, 128, 129, 30000], [65407, 65535, 257, 999]], np.uint16)
EIGHT = np.round(SIXTEEN / 257).astype(np.uint8)
LITTLE, BIG = SIXTEEN.astype("<u2").tobytes(), SIXTEEN.astype(">u2").tobytes()
BIG_ROWS = [row.astype(">u2").tobytes() for row in SIXTEEN]
PALETTE = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 200, 0, 9, 9, 90]))
INKS = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [10, 20, 30, 128]]], np.uint8).repeat(8, 0).repeat(8, 1)
OF_INKS = (255.0 - INKS[..., :3]) * (255.0 - INKS[..., 3:]) / 255
ALPHA = np.broadcast_to(np.linspace(0, 255, 30).astype(np.uint8), (21, 30))
RGBA = Image.fromarray(np.dstack([PIXELS, ALPHA]))
FRAMES = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (40, 120, 200)]
FIRST = np.full((8, 9), 40)
MANY = {"save_all": True, "append_images": FRAMES[1:]}
SEVERAL = {"save_all": True, "append_images": [Image.fromarray(GREY)]}
BOMB = zlib.compress(bytes(50 << 20))
FLOATS = np.array([[0, 0.5]], np.float32)
HIGH = [bytes([0, 1, 2, 128, 200, 255])]

# More bits than eight.
kind("16-bit grey PNG", png_file(4, 2, 16, 0, packed(*BIG_ROWS)), EIGHT)
kind("16-bit grey PNG, a grey transparent", png_file(4, 2, 16, 0, packed(*BIG_ROWS), png_chunk(b"tRNS", b"\x75\x30")), [
    [0, 0, 1, 255], [255, 255, 1, 4]
])  # fmt: skip
kind("16-bit grey PNG with alpha", png_file(2, 1, 16, 4, packed(b"\x75\x30\xff\xff\x00\x00\x80\x80")), [[117, 127]], 1)
kind("16-bit RGB PNG", png_file(2, 1, 16, 2, packed(b"\x00\x80\x75\x30\xff\xff\xff\x7f\x01\x01\x00\x00")), [
    [[0, 117, 255], [255, 1, 0]]
], 1)  # fmt: skip
kind("16-bit RGB PNG with alpha", png_file(1, 1, 16, 6, packed(b"\x75\x30\x00\x00\xff\xff\x80\x80")), [[[186, 127, 255]]], 1)
kind("16-bit RGB PNG, a colour transparent", png_file(1, 1, 16, 2, packed(bytes(6)), png_chunk(b"tRNS", bytes(6))),
     "16 bits with a transparent colour are not read")  # fmt: skip
kind("16-bit grey TIFF", tiff_file(4, 2, 16, 1, LITTLE), EIGHT)
kind("16-bit grey TIFF, big endian", encode(Image.frombytes("I;16B", (4, 2), BIG), "TIFF"), EIGHT)
kind("16-bit grey TIFF, white is zero", tiff_file(4, 2, 16, 0, LITTLE), 255 - EIGHT)
kind("12-bit grey TIFF", tiff_file(2, 1, 12, 1, b"\xff\xf8\x00"), [[255, 128]], 1)
kind("16-bit grey PGM", b"P5 4 2 65535\n" + BIG, EIGHT)
kind("10-bit grey PGM", b"P5 2 1 1023\n" + struct.pack(">HH", 512, 1023), [[128, 255]])
kind("16-bit RGB PPM", b"P6 1 1 65535\n" + struct.pack(">HHH", 0, 30000, 65535), [[[0, 117, 255]]], 1)
kind("16-bit signed TIFF", tiff_file(2, 1, 16, 1, struct.pack("<hh", 0, 9), fmt=2), "signed integers have no defined range")
kind("32-bit integer TIFF within 16 bits", tiff_file(2, 1, 32, 1, struct.pack("<II", 0, 65535)), [[0, 255]])
kind("32-bit integer TIFF", tiff_file(2, 1, 32, 1, struct.pack("<II", 0, 65536)), "32-bit integer picture has no defined range")
kind("float TIFF", encode(FLOATS, "TIFF"), "float picture has no defined range")
kind("float TIFF with NaN", encode(FLOATS * np.nan, "TIFF"), "float picture has no defined range")
kind("half float TIFF", tiff_file(2, 1, 16, 1, bytes(4), fmt=3), "the header of the TIFF is damaged, or of a rare kind")
# Fewer bits, palettes, transparency.
kind("1-bit PNG", png_file(8, 1, 1, 0, packed(b"\xa5")), [[255, 0, 255, 0, 0, 255, 0, 255]])
kind("1-bit PNG, black transparent", png_file(2, 1, 1, 0, packed(b"\x40"), png_chunk(b"tRNS", b"\0\0")), [[255, 255]])
kind("2-bit PNG, a grey transparent", png_file(4, 1, 2, 0, packed(b"\x1b"), png_chunk(b"tRNS", b"\0\2")), [[0, 85, 255, 255]])
kind("4-bit PNG, a grey transparent", png_file(2, 1, 4, 0, packed(b"\x5a"), png_chunk(b"tRNS", b"\0\5")), [[255, 170]])
kind("8-bit PNG, a colour transparent", encode(PIXELS, "PNG", transparency=tuple(PIXELS[3, 4].tolist())),
     np.where((PIXELS[3, 4] == PIXELS).all(-1, keepdims=True), 255, PIXELS))  # fmt: skip
kind("palette PNG", png_file(3, 1, 8, 3, packed(b"\0\1\2"), PALETTE), [[[255, 0, 0], [0, 200, 0], [9, 9, 90]]])
kind("palette PNG, each colour with alpha", png_file(3, 1, 8, 3, packed(b"\0\1\2"), PALETTE + png_chunk(b"tRNS", b"\0\x80")), [
    [[255, 255, 255], [127, 227, 127], [9, 9, 90]]
], 1)  # fmt: skip
kind("grey with alpha PNG", png_file(2, 1, 8, 4, packed([100, 255, 0, 128])), [[100, 127]], 1)
kind("RGBA PNG", encode(RGBA, "PNG"), transparent(PIXELS, ALPHA), 1)
kind("RGBA WebP, lossless", encode(RGBA, "WEBP", lossless=True, exact=True), transparent(PIXELS, ALPHA), 1)
kind("RGBA TIFF", encode(RGBA, "TIFF"), transparent(PIXELS, ALPHA), 1)
kind("premultiplied RGBA TIFF", tiff_file(2, 1, (8,) * 4, 2, bytes([10, 20, 30, 255, 25, 50, 0, 128]), {338: 1}), [
    [[10, 20, 30], [152, 177, 127]]
], 2)  # fmt: skip
kind("RGBA AVIF", encode(RGBA, "AVIF", quality=100, subsampling="4:4:4"), transparent(PIXELS, ALPHA), 5)
# JPEGs.
kind("JPEG", jpeg(), PIXELS, 8)
kind("grey JPEG", jpeg(GREY), GREY, 6)
kind("progressive JPEG", jpeg(progressive=True), PIXELS, 8)
kind("RGB JPEG without chroma", jpeg(keep_rgb=True), PIXELS, 8)
kind("arithmetic-coded JPEG", base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsKDAkKCgr/"
    "yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wDoQo6hqH5QG6QibHB72t5Bn1aG89yi/9k="
), np.tile(np.arange(16) * 12 + 30, (16, 1)), 3)  # fmt: skip
kind("12-bit JPEG", patched(jpeg(), jpeg().index(b"\xff\xc0") + 4, b"\x0c"), "the header of the JPEG is damaged, or of a rare")
kind("lossless JPEG", patched(jpeg(), jpeg().index(b"\xff\xc0") + 1, b"\xc3"), "cannot be decoded")
kind("CMYK JPEG, inverted as Adobe writes it", jpeg(Image.fromarray(INKS, "CMYK")), OF_INKS, 6)
kind("YCCK JPEG", ycck(), PIXELS, 10)
kind(
    "JPEG of several pictures (MPO)",
    encode(PIXELS, "MPO", quality=95, **SEVERAL),
    PIXELS,
    24,
)
kind("JPEG with restart markers", jpeg(restart_marker_blocks=1), PIXELS, 8)
kind("JPEG with rubbish behind", jpeg() + b"rubbish" * 99, PIXELS, 8)
kind("JPEG with a wide-gamut profile", jpeg(icc_profile=b"\0" * 128), PIXELS, 8)
kind("JPEG with a broken EXIF block", jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), PIXELS, 8)
kind("JPEG that ends in the pixels", jpeg()[:-40], "image file is truncated")
kind("progressive JPEG that ends in its last scan", jpeg(progressive=True)[:-12], "image file is truncated")
kind("JPEG of its header alone", jpeg()[:200], "cannot be decoded .*runcated")
kind("JPEG without height", patched(jpeg(), jpeg().index(b"\xff\xc0") + 5, b"\0\0"), "the header of the JPEG is damaged")
# PNGs, damaged and hostile.
kind("interlaced PNG", interlaced(PIXELS), PIXELS)
kind("PNG with a wrong checksum", patched(encode(PIXELS, "PNG"), 60, b"\0"), "broken PNG file")
kind("PNG cut short", encode(PIXELS, "PNG")[:300], "cannot be decoded")
kind("PNG of a huge header", png_file(2**31 - 1, 2**31 - 1, 8, 2, packed(b"")), "pixels are more than 100,000,000")
kind("PNG with a text bomb", png_file(1, 1, 8, 0, packed(b"\7"), png_chunk(b"zTXt", b"k\0\0" + BOMB)), "data too large")
kind("PNG with a profile bomb", png_file(1, 1, 8, 0, packed(b"\7"), png_chunk(b"iCCP", b"k\0\0" + BOMB)), "data too large")
kind("PNG without width", png_file(0, 5, 8, 0, packed(b"")), "the header of the PNG is damaged")
kind("PNG with rubbish behind", encode(PIXELS, "PNG") + b"rubbish" * 99, PIXELS)
kind("PNG one pixel wide", png_file(1, 6, 8, 0, packed(*([value] for value in HIGH[0]))), np.array([*HIGH[0]])[:, None])
kind("PNG of a million by one", encode(np.full((1, 1_000_000), 7, np.uint8), "PNG"), np.full((1, 1_000_000), 7))
kind("PNG of one pixel", png_file(1, 1, 8, 2, packed([1, 2, 3])), [[[1, 2, 3]]])
# Other formats.
kind("animated GIF", encode(FRAMES[0], "GIF", **MANY), FIRST)
kind("animated WebP", encode(FRAMES[0], "WEBP", lossless=True, **MANY), FIRST)
kind("animated PNG", encode(FRAMES[0], "PNG", **MANY), FIRST)
kind("animated AVIF", encode(FRAMES[0], "AVIF", quality=100, **MANY), FIRST, 2)
kind("TIFF of several pages", encode(FRAMES[0], "TIFF", **MANY), FIRST)
kind("TIFF by LZMA", encode(PIXELS, "TIFF", compression="lzma"), PIXELS)
kind("TIFF by Zstandard", encode(PIXELS, "TIFF", compression="zstd"), PIXELS)
kind("TIFF by CCITT group 4", encode(Image.fromarray(GREY > 127), "TIFF", compression="group4"), (GREY > 127) * 255)
kind("TIFF of an unknown compression", tiff_file(2, 1, 8, 1, bytes(2), {259: 60000}), "cannot be decoded")
kind("BMP from the top down", patched(encode(PIXELS, "BMP"), 22, struct.pack("<i", -21)), PIXELS[::-1])
kind("WebP", encode(PIXELS, "WEBP", quality=95), PIXELS, 12)
kind("AVIF", encode(PIXELS, "AVIF", quality=95), PIXELS, 8)
for name in ("GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"):
    whole = encode(PIXELS, name)
    kind(f"{name} cut in the middle", whole[: len(whole) // 2], "a damaged AVIF" if name == "AVIF" else "cannot be decoded")
# No pictures.
kind("empty file", b"", "the file is empty")
kind("file of zeros", bytes(5000), "the file begins with zeros")
kind("text", b"path,label\n1.png,cat\n", "not a picture in a known format$")
kind("web page", b"\xef\xbb\xbf\n<!DOCTYPE HTML><html>404</html>", r"known format \(it looks like a web page\)")
kind("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"known format \(it looks like PostScript\)")
kind("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), r"it looks like HEIC: convert it to JPEG")
kind("JPEG 2000", encode(PIXELS, "JPEG2000"), r"it looks like JPEG 2000")
kind("JPEG XL", b"\xff\x0a" + bytes(99), "it looks like JPEG XL")
kind("video", b"\0\0\0\x18ftypisom" + bytes(99), "it looks like a video")
kind("Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull")


def test_the_corpus_has_many_kinds():
    refusals = sum(isinstance(expected, str) for _, expected, _ in KINDS.values())
    assert len(KINDS) >= 80
    assert refusals >= 30


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_gives_its_pixels_or_its_reason(name, tmp_path):
    data, expected, tolerance = KINDS[name]
    path = tmp_path / "x.jpg"  # whatever it is
    path.write_bytes(data)
    for image in (data, path):
        if isinstance(expected, str):
            with pytest.raises(BadImage, match=expected):
                decode(image)
            continue
        wanted = np.asarray(expected, float)
        wanted = wanted if wanted.ndim == 3 else np.repeat(wanted[..., None], 3, axis=2)
        found = decode(image)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found.astype(float), wanted, atol=tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_shrinking_changes_no_reason_and_asks_once(name):
    data, expected, _ = KINDS[name]
    asked = []

    def shrink(height, width):
        asked.append((height, width))
        return 2

    if isinstance(expected, str):
        with pytest.raises(BadImage, match=expected):
            decode(data, shrink=shrink)
        return
    height, width = np.shape(expected)[:2]
    shape = decode(data, shrink=shrink).shape
    assert asked == [(height, width)]
    assert shape[:2] in ((height, width), (-(-height // 2), -(-width // 2)))
    assert (shape[:2] != (height, width)) == (data[:2] == b"\xff\xd8")


def test_only_what_is_no_regular_file_is_told_apart_by_the_folder(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tmp_path / "s.jpg"))
        reasons = {
            "folder.jpg": "is a directory",
            "loop.jpg": "cannot be read .*symbolic links",
            "gone.jpg": "does not exist",
            "pipe.jpg": "no regular file",
            "s.jpg": "no regular file",
        }
        for name, reason in reasons.items():
            with pytest.raises(BadImage, match=reason):
                decode(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encode(PIXELS, "PNG"))
    path.chmod(0)
    with pytest.raises(BadImage, match=r"cannot be read \(Permission denied\)"):
        decode(path)


def test_a_png_that_ends_its_pixels_early_and_properly_is_black_from_there():
    # Its checksums hold and its stream ends as it should: Pillow does not count the rows.
    found = decode(png_file(4, 3, 8, 0, packed([9] * 4)), 1)[..., 0]
    np.testing.assert_array_equal(found, [[9] * 4, [0] * 4, [0] * 4])


def test_what_cannot_be_told_of_a_damaged_jpeg():
    # The compressed pixels of a JPEG have no checksum: a flipped byte gives other pixels, of the same size.
    data = jpeg()
    scan = data.index(b"\xff\xda") + 20
    wrong = [decode(patched(data, place, bytes([data[place] ^ 4]))) for place in range(scan, scan + 40, 8)]
    assert any(np.abs(pixels.astype(int) - PIXELS).max() > 30 for pixels in wrong)
    assert all(pixels.shape == PIXELS.shape for pixels in wrong)
    # A restart marker that lies about its number is passed over.
    marked = jpeg(restart_marker_blocks=1)
    decode(patched(marked, marked.index(b"\xff\xd2"), b"\xff\xd5"))
