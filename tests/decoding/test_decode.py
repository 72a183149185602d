"""Pictures of every kind, and damaged ones: the right pixels or a BadImage with a reason, never anything else."""

import importlib
import io
import random
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, png_file, smooth
from PIL import Image

from jaxft.data import BadImage, decode

# What Pillow says of damaged metadata: here pytest's own filters stand in the place of the module's.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# The package's name `decode` is the function.
MODULE = importlib.import_module("jaxft.decoding.decode")
PIXELS = smooth(21, 30)
ORIENTATION = 0x0112
MUTANTS = 300


def exif(orientation, *more):
    """EXIF bytes with an orientation and further (tag, kind, count, value) entries, which may be as odd as need be."""
    entries = sorted([(ORIENTATION, 3, 1, orientation), *more])
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(64)


def on_white(pixels, alpha):
    return pixels * (alpha / 255) + 255 * (1 - alpha / 255)


def refused(image, reason, channels=3):
    with pytest.raises(BadImage, match=reason) as caught:
        decode(image, channels)
    assert "\n" not in str(caught.value)


# What every format makes of the same picture, and how far from it a lossy one may be.
FILES = {
    "jpeg": (encode(PIXELS, "JPEG", quality=95), 8),
    "progressive jpeg": (encode(PIXELS, "JPEG", quality=95, progressive=True), 8),
    "jpeg of several": (
        encode(PIXELS, "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (30, 21))]),
        8,
    ),
    "png": (encode(PIXELS, "PNG"), 0),
    "gif": (encode(PIXELS, "GIF"), 24),
    "webp": (encode(PIXELS, "WEBP", quality=95), 12),
    "lossless webp": (encode(PIXELS, "WEBP", lossless=True), 0),
    "bmp": (encode(PIXELS, "BMP"), 0),
    "ppm": (encode(PIXELS, "PPM"), 0),
    "tiff": (encode(PIXELS, "TIFF"), 0),
    "tiff lzw": (encode(PIXELS, "TIFF", compression="tiff_lzw"), 0),
    "tiff deflate": (encode(PIXELS, "TIFF", compression="tiff_adobe_deflate"), 0),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_picture(kind, tmp_path):
    data, tolerance = FILES[kind]
    found = decode(data)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), PIXELS, atol=tolerance)
    # A file is told by what it holds, not by its name.
    (tmp_path / "x.jpg").write_bytes(data)
    np.testing.assert_array_equal(decode(tmp_path / "x.jpg"), found)


@pytest.mark.parametrize("kind", FILES)
def test_one_channel_is_the_luminance(kind):
    data, tolerance = FILES[kind]
    found = decode(data, 1)
    assert found.shape == (21, 30, 1)
    np.testing.assert_allclose(found[..., 0], PIXELS @ [0.299, 0.587, 0.114], atol=tolerance + 1)


def test_the_pixels_of_a_file_can_be_written():
    decode(FILES["png"][0])[:] = 0
    grey = decode(encode(np.full((3, 3), 999, np.uint16), "PNG"))
    grey[:] = 0


def test_what_is_no_picture_says_what_it_is(tmp_path):
    refused(b"", "the file is empty")
    refused(b"path,label\n1.png,cat\n", "not a picture in a known format")
    refused(b"GIF89a", "cannot be decoded|not a picture")
    refused(tmp_path / "no.png", "the file does not exist")
    refused(tmp_path, "is a directory")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "the file is empty")
    (tmp_path / "notes.png").write_text("not yet\n")
    refused(tmp_path / "notes.png", "not a picture in a known format")


def test_a_postscript_program_is_not_a_picture_whatever_it_is_called(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    refused(path, "not a picture in a known format")


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_short_is_refused(kind):
    data = FILES[kind][0]
    whole = decode(data)
    refused(data[: len(data) // 2], ".")
    for length in range(len(data)):
        try:
            found = decode(data[:length])
        except BadImage:
            continue
        # Only what comes after the last pixel may be missing.
        np.testing.assert_array_equal(found, whole)
        assert len(data) - length < 16 or "several" in kind


@pytest.mark.parametrize("pixels", [smooth(12, 12), np.tile(np.arange(40, dtype=np.uint8)[:, None, None], (1, 40, 3))])
def test_a_flipped_byte_anywhere_in_the_pixels_of_a_png_is_found(pixels):
    # In well compressed pixels a flipped byte often inflates to other pixels without an error of Pillow's.
    data = encode(pixels, "PNG")
    for place in range(data.index(b"IDAT"), data.index(b"IEND") - 4):
        for flip in (1, 16, 255):
            refused(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :], ".")


MUTATED = {
    **{kind: data for kind, (data, _) in FILES.items()},
    "jpeg with exif": encode(PIXELS, "JPEG", exif=exif(6, (0x010F, 2, 1, 0x41424300), (0x011A, 5, 1, 20))),
    "webp with exif": encode(PIXELS, "WEBP", exif=exif(6, (0x010F, 2, 1, 0x41424300), (0x011A, 5, 1, 20))),
    "tiff of 16 bits": encode(np.arange(99, dtype=np.uint16).reshape(9, 11) * 600, "TIFF"),
    "png of a palette": encode(Image.fromarray(PIXELS).quantize(16), "PNG", transparency=3),
    "cmyk jpeg": encode(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("kind", MUTATED)
def test_flipped_bytes_never_escape_as_another_error(kind, monkeypatch):
    monkeypatch.setattr(MODULE, "MAX_PIXELS", 1_000_000)  # a flipped size would be decoded, and take its time
    data, rng = MUTATED[kind], random.Random(kind)
    bad = 0
    for _ in range(MUTANTS):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 4, 16))):
            mutant[rng.randrange(len(mutant))] = rng.choice((0, 255, rng.randrange(256)))
        mutant = bytes(mutant[: rng.choice((len(mutant), len(mutant), rng.randrange(len(mutant))))])
        channels = rng.choice((1, 3))
        found, reason = None, "read"
        try:
            found = decode(mutant, channels)
        except BadImage as error:
            reason = str(error)
        assert reason
        assert "\n" not in reason
        assert len(reason) < 200
        if found is not None:
            assert found.dtype == np.uint8
            assert found.ndim == 3
            assert found.shape[2] == channels
        bad += found is None
    assert 0 < bad < MUTANTS


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF big endian", "PGM"])
def test_sixteen_bits_are_scaled_exactly(kind):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    if kind == "PGM":
        data = b"P5 256 256 65535 " + values.astype(">u2").tobytes()
    elif kind == "TIFF big endian":
        data = encode(Image.frombytes("I;16B", (256, 256), values.astype(">u2").tobytes()), "TIFF")
    else:
        data = encode(values, kind)
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(data, 1)[..., 0], expected)
    np.testing.assert_array_equal(decode(data), np.repeat(expected[..., None], 3, axis=2))
    assert len(np.unique(expected)) == 256


def test_sixteen_bits_of_colours_and_of_alpha_lie_within_one():
    values = np.array([0, 1000, 30000, 65535, 128, 65407], ">u2")
    colours = decode(png_file(2, 1, 16, 2, zlib.compress(b"\0" + values.tobytes())))
    np.testing.assert_allclose(colours.reshape(6).astype(int), values / 257, atol=1)
    grey_alpha = decode(png_file(3, 1, 16, 4, zlib.compress(b"\0" + values.tobytes())))
    np.testing.assert_allclose(grey_alpha[0, :, 0], on_white(values[::2] / 257, values[1::2] / 257), atol=2)


def test_integers_of_32_bits_are_taken_only_where_they_are_16_bits():
    inside = np.array([[0, 40000, 65535]], np.int32)
    np.testing.assert_array_equal(decode(encode(inside, "TIFF"), 1)[..., 0], [[0, 156, 255]])
    for outside in (70000, -1):
        refused(encode(np.array([[0, outside]], np.int32), "TIFF"), "32-bit integer picture")


def test_floats_are_refused():
    refused(encode(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "TIFF"), "float picture has no defined range")


def test_cmyk_is_converted_as_pillow_does_and_not_inverted():
    data = encode(Image.fromarray(PIXELS).convert("CMYK"), "JPEG", quality=95)
    found = decode(data)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "CMYK"
        np.testing.assert_array_equal(found, np.asarray(opened.convert("RGB")))
    np.testing.assert_allclose(found.astype(int), PIXELS, atol=12)


def test_a_palette_gives_its_colours():
    palette = np.array([[255, 0, 0], [0, 200, 0], [9, 9, 90]], np.uint8)
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decode(encode(image, "PNG")), palette[[[0, 1], [2, 0]]])
    np.testing.assert_array_equal(decode(encode(image, "GIF")), palette[[[0, 1], [2, 0]]])
    # One colour is transparent, or each has its own alpha.
    np.testing.assert_array_equal(decode(encode(image, "PNG", transparency=0))[0], [[255, 255, 255], [0, 200, 0]])
    np.testing.assert_array_equal(decode(encode(image, "GIF", transparency=1))[0], [[255, 0, 0], [255, 255, 255]])
    alpha = np.array([0, 128, 255])
    found = decode(encode(image, "PNG", transparency=bytes(alpha.tolist())))
    expected = on_white(palette, alpha[:, None])
    np.testing.assert_allclose(found, expected[[[0, 1], [2, 0]]], atol=1)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("LA", "PNG"), ("LA", "TIFF")])
def test_transparent_pixels_lie_on_white(mode, kind):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (16, 16, len(mode)), dtype=np.uint8)
    pixels[:4, :, -1], pixels[4:8, :, -1] = 0, 255
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(pixels, mode), kind, **options)
    expected = np.broadcast_to(on_white(pixels[..., :-1], pixels[..., -1:]), (16, 16, 3))
    found = decode(data)
    np.testing.assert_allclose(found, expected, atol=1)
    assert (found[:4] == 255).all()
    np.testing.assert_array_equal(found[4:8], np.broadcast_to(pixels[4:8, :, :-1], (4, 16, 3)))
    np.testing.assert_allclose(decode(data, 1)[..., 0], expected @ [0.299, 0.587, 0.114], atol=2)


def test_a_palette_with_an_alpha_channel_lies_on_white():
    image = Image.fromarray(np.array([[0, 1, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 0])
    image = image.convert("PA")
    image.putalpha(Image.fromarray(np.array([[255, 255, 0]], np.uint8)))
    assert image.mode == "PA"
    found = decode(encode(image, "TIFF"))
    np.testing.assert_array_equal(found, [[[10, 20, 30], [200, 100, 0], [255, 255, 255]]])


def test_a_transparent_colour_lies_on_white():
    pixels = np.array([[[1, 2, 3], [200, 100, 0]]], np.uint8)
    np.testing.assert_array_equal(decode(encode(pixels, "PNG", transparency=(200, 100, 0))), [[[1, 2, 3], [255, 255, 255]]])
    np.testing.assert_array_equal(decode(encode(pixels[..., 0], "PNG", transparency=1), 1)[..., 0], [[255, 200]])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_or_white(kind):
    bits = np.random.default_rng(2).integers(0, 2, (9, 13)).astype(bool)
    for channels in (1, 3):
        found = decode(encode(Image.fromarray(bits), kind), channels)
        np.testing.assert_array_equal(found, np.repeat(bits[..., None] * np.uint8(255), channels, axis=2))


# How a camera that was held so stores the upright picture.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 8),
        ("AVIF", {"quality": 95}, 10),
    ],
)
def test_every_exif_orientation_is_turned_upright(orientation, kind, options, tolerance):
    stored = np.ascontiguousarray(STORED[orientation](PIXELS))
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    found = decode(encode(stored, kind, exif=tags, **options))
    np.testing.assert_allclose(found.astype(int), PIXELS, atol=tolerance)


def test_sixteen_bits_are_turned_upright_too():
    upright = np.arange(12, dtype=np.uint16).reshape(3, 4) * 257
    found = decode(encode(np.ascontiguousarray(np.rot90(upright)), "PNG", exif=exif(6)), 1)
    np.testing.assert_array_equal(found[..., 0], upright // 257)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_unknown_orientation_turns_nothing(orientation):
    np.testing.assert_array_equal(decode(encode(PIXELS, "PNG", exif=exif(orientation))), PIXELS)


@pytest.mark.parametrize(("tag", "kind"), [(0x0100, 5), (0x0128, 2), (0x0128, 12), (0x010F, 5), (0x011A, 7), (0x0132, 11)])
def test_an_odd_tag_beside_the_orientation_harms_nothing(tag, kind):
    # The width as a fraction, a resolution unit in letters, ...: cameras and editors write such things.
    data = encode(np.ascontiguousarray(np.rot90(PIXELS)), "PNG", exif=exif(6, (tag, kind, 1, 40)))
    np.testing.assert_array_equal(decode(data), PIXELS)


def test_decoding_in_threads_leaves_the_warnings_of_others_alone():
    # `warnings.catch_warnings` in threads puts back the wrong filters now and then.
    before = list(warnings.filters)
    data = encode(smooth(200, 200), "JPEG")
    for _ in range(10):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(decode, [data] * 200))
    assert warnings.filters == before


def test_metadata_that_pillow_repairs_is_no_warning(tmp_path):
    data = encode(PIXELS, "PNG", exif=exif(1, (0x010F, 2, 9999, 50)))
    with Image.open(io.BytesIO(data)) as opened, pytest.warns(UserWarning, match="Skipping tag|Truncated"):
        opened.getexif().get(ORIENTATION)
    (tmp_path / "odd.png").write_bytes(data)
    code = "from pathlib import Path; from jaxft.data import decode; print(decode(Path('odd.png')).shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(21, 30, 3)\n", "")


def test_an_animation_gives_its_first_frame():
    frames = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (40, 120, 200)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.n_frames == 3
        np.testing.assert_array_equal(decode(data), np.asarray(frames[0]))


@pytest.mark.parametrize(
    ("size", "shape"),
    # Just too large, four times as large, and as small as the format allows.
    [
        ((100, 100), (100, 100)),
        ((101, 100), (50, 51)),
        ((200, 200), (100, 100)),
        ((201, 200), (50, 51)),
        ((700, 800), (100, 88)),
    ],
)
def test_an_oversized_jpeg_is_halved_until_it_fits(size, shape, monkeypatch):
    monkeypatch.setattr(MODULE, "MAX_PIXELS", 10_000)
    pixels = smooth(size[1], size[0])
    for kind in ("JPEG", "MPO"):
        found = decode(encode(pixels, kind, quality=95))
        assert found.shape == (*shape, 3)
        np.testing.assert_allclose(found.mean((0, 1)), pixels.mean((0, 1)), atol=2)
    turned = decode(encode(pixels, "JPEG", quality=95, exif=exif(6)))
    assert turned.shape == (shape[1], shape[0], 3)


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_of_one_pixel_too_many_is_refused(kind, monkeypatch):
    monkeypatch.setattr(MODULE, "MAX_PIXELS", 30 * 21)
    assert decode(FILES[kind][0]).shape == (21, 30, 3)
    if "jpeg" not in kind:
        monkeypatch.setattr(MODULE, "MAX_PIXELS", 30 * 21 - 1)
        refused(FILES[kind][0], "30x21 pixels are more than 629")


def test_a_jpeg_that_is_too_large_even_at_an_eighth_is_refused(monkeypatch):
    monkeypatch.setattr(MODULE, "MAX_PIXELS", 10_000)
    refused(encode(smooth(900, 900), "JPEG"), "113x113 pixels are more than 10,000")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_oversized_pictures_take_little_memory(tmp_path):
    # 144 million pixels each, a few hundred kilobytes as files.
    packer = zlib.compressobj(1)
    row = bytes(12_001)
    rows = b"".join([packer.compress(row) for _ in range(12_000)] + [packer.flush()])
    (tmp_path / "large.png").write_bytes(png_file(12_000, 12_000, 8, 0, rows))
    (tmp_path / "large.jpg").write_bytes(encode(Image.new("L", (12_000, 12_000), 77), "JPEG"))
    assert all(path.stat().st_size < 3 << 20 for path in tmp_path.iterdir())
    code = """
from pathlib import Path
from jaxft.data import BadImage, decode
def peak():  # megabytes; of this process alone, where getrusage begins with its parent's
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
before = peak()
try:
    decode(Path("large.png"))
except BadImage as error:
    print(error)
refused = peak()
found = decode(Path("large.jpg"), 1)
print(found.shape, found.min(), found.max())
print(refused - before, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    reason, picture, growth = done.stdout.splitlines()
    assert reason == "12000x12000 pixels are more than 100,000,000"
    assert picture == "(6000, 6000, 1) 77 77"
    of_png, of_both = map(float, growth.split())
    assert of_png < 20
    assert of_both < 200


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_of_grey_and_colour_give_one_another(shape, channels):
    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    found = decode(pixels, channels)
    assert found.shape == (4, 5, channels)
    assert found.dtype == np.uint8
    three = np.broadcast_to(pixels.reshape(4, 5, -1), (4, 5, 3))
    np.testing.assert_allclose(found, three if channels == 3 else (three @ [0.299, 0.587, 0.114])[..., None], atol=1)
    if channels == 3 or shape[-1] != 3:
        np.testing.assert_array_equal(found, three[..., :channels])


def test_arrays_of_other_channels_are_taken_only_where_they_fit():
    for channels in (2, 4, 7):
        pixels = np.random.default_rng(4).integers(0, 256, (3, 4, channels), dtype=np.uint8)
        np.testing.assert_array_equal(decode(pixels, channels), pixels)
        refused(pixels, f"{channels} channels where 3 are wanted")
        refused(pixels, f"{channels} channels where 1 are wanted", channels=1)
    refused(np.zeros((3, 4, 3), np.uint8), "3 channels where 5 are wanted", channels=5)
    refused(np.zeros((3, 4), np.uint8), "1 channels where 5 are wanted", channels=5)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), object),
        np.zeros(4, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((4, 4, 0), np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype}-{pixels.shape}",
)
def test_arrays_of_another_type_or_shape_are_refused(pixels):
    refused(pixels, r"pixels must be uint8 \[H, W\] or \[H, W, C\], not " + str(pixels.dtype))


def test_views_of_arrays_are_decoded_as_they_look():
    pixels = smooth(6, 8)
    np.testing.assert_array_equal(decode(pixels[:, ::-1]), pixels[:, ::-1])
    np.testing.assert_array_equal(decode(pixels[::2, ::-1], 1), decode(np.ascontiguousarray(pixels[::2, ::-1]), 1))


def test_a_file_gives_no_other_number_of_channels():
    for channels in (0, 2, 4):
        refused(FILES["png"][0], f"1 or 3 channels, not {channels}", channels=channels)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("asked", [0, 1, 1.9, 2, 3.9, 4, 7, 8, 1000])
def test_a_jpeg_is_decoded_at_the_scale_below_what_is_asked(orientation, asked):
    upright = smooth(83, 61)
    data = encode(np.ascontiguousarray(STORED[orientation](upright)), "JPEG", quality=95, exif=exif(orientation))
    sizes = []
    found = decode(data, shrink=lambda *size: sizes.append(size) or asked)
    by = max(by for by in (1, 2, 4, 8) if by <= max(asked, 1))
    assert sizes == [(83, 61)]
    assert found.shape == (-(-83 // by), -(-61 // by), 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 9), (8, 8), (15, 17), (3, 300)])
@pytest.mark.parametrize("by", [2, 4, 8])
def test_small_and_odd_jpegs_are_shrunk_to_the_rounded_up_size(size, by):
    found = decode(encode(smooth(*size), "JPEG"), 1, shrink=lambda height, width: by)
    assert found.shape == (-(-size[0] // by), -(-size[1] // by), 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("by", [2, 4, 8])
def test_a_shrunk_jpeg_is_close_to_the_full_one_averaged_over_squares(by, options):
    # libjpeg leaves out the high frequencies of each 8x8 block, not quite an average: within 4 of 255 on soft pictures.
    data = encode(smooth(64, 96), "JPEG", quality=95, **options)
    averaged = decode(data).reshape(64 // by, by, 96 // by, by, 3).mean((1, 3))
    found = decode(data, shrink=lambda height, width: by)
    assert np.abs(found - averaged).max() < 4
    assert np.abs(found - averaged).mean() < 1


def test_shrinking_leaves_other_files_and_arrays_as_they_are():
    sizes = []

    def shrink(*size):
        sizes.append(size)
        return 8

    upright = smooth(20, 31)
    turned = np.ascontiguousarray(np.rot90(upright))
    for image in (
        upright,
        upright[..., 0],
        encode(upright, "PNG"),
        encode(turned, "PNG", exif=exif(6)),
        encode(turned, "TIFF", exif=exif(6)),
        encode(turned, "WEBP", lossless=True, exif=exif(6)),
    ):
        np.testing.assert_array_equal(decode(image, shrink=shrink), decode(image))
    assert sizes == [(20, 31)] * 6


def test_a_shrunk_oversized_jpeg_is_shrunk_by_the_larger_of_both(monkeypatch):
    data = encode(smooth(200, 200), "JPEG")
    monkeypatch.setattr(MODULE, "MAX_PIXELS", 10_000)
    assert decode(data, shrink=lambda height, width: 1).shape == (100, 100, 3)
    assert decode(data, shrink=lambda height, width: 4).shape == (50, 50, 3)


def test_a_progressive_jpeg_that_would_be_held_whole_is_refused(monkeypatch):
    # All its coefficients are in memory, however small it is decoded.
    monkeypatch.setattr(MODULE, "MAX_PIXELS", 100)
    assert decode(encode(smooth(20, 20), "JPEG", progressive=True)).shape == (10, 10, 3)
    refused(encode(smooth(20, 21), "JPEG", progressive=True), "21x20 pixels are too many for a progressive JPEG")
    assert decode(encode(smooth(20, 21), "JPEG")).shape == (5, 6, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_short_is_refused_shrunk_or_not(progressive):
    data = encode(smooth(64, 64), "JPEG", progressive=progressive)
    for length in range(len(data) - 20, 200, -37):
        with pytest.raises(BadImage):
            decode(data[:length], shrink=lambda height, width: 8)


def test_a_picture_says_what_its_file_says():
    for name, options in (("JPEG", {}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = encode(np.ascontiguousarray(np.rot90(PIXELS)), name, exif=exif(6), **options)
        found = MODULE.read_picture(data, shrink=lambda height, width: 2)
        assert (found.kind, found.mode, found.height, found.width, found.orientation) == (name, "RGB", 21, 30, 6)
    found = MODULE.read_picture(PIXELS[..., 0])
    assert (found.kind, found.mode, found.height, found.width, found.orientation) == ("array", "L", 21, 30, 1)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_too_large_to_be_read_at_once_gives_the_same_pixels_and_reasons(kind, tmp_path, monkeypatch):
    file = tmp_path / "picture"
    content, _ = FILES[kind]
    file.write_bytes(content)
    expected = decode(file)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadImage) as before:
        decode(damaged)
    monkeypatch.setattr(importlib.import_module("jaxft.decoding.decode"), "_AT_ONCE", 0)
    np.testing.assert_array_equal(decode(file), expected)
    with pytest.raises(BadImage) as after:
        decode(damaged)
    assert str(after.value) == str(before.value)
