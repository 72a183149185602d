"""What a file that cannot be opened as a picture is, by its first bytes."""

from __future__ import annotations

#: What files called .jpg turn out to be, by their first bytes.
_OTHERS = (
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "XML"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"version https://git-lfs", "a pointer of Git LFS: run git lfs pull"),
)
#: Formats whose header did not pass, though the first bytes are theirs.
_KNOWN = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def what_else(head: bytes) -> str:
    """Why a file is not read as a picture, from its first 64 bytes."""
    if not head:
        return "the file is empty"
    if not head.strip(b"\0"):
        return "not a picture: the file begins with zeros, as after a crash or an interrupted copy"
    if known := [name for magic, name in _KNOWN if head.startswith(magic)]:
        return f"cannot be decoded (the header of the {known[0]} is damaged, or of a rare kind that is not read)"
    if head[4:8] == b"ftyp":
        kind = "HEIC: convert it to JPEG" if head[8:12] in _HEIC else "a video, or a damaged AVIF"
        return f"not a picture in a known format (it looks like {kind})"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kinds = [name for magic, name in _OTHERS if head.startswith(magic) or text.startswith(magic.lower())]
    return "not a picture in a known format" + (f" (it looks like {kinds[0]})" if kinds else "")
