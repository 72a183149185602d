"""Pictures in rows, with a line or two of text below each, as a PNG."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxft.files import open_whole

GREEN, RED, INK = (24, 112, 60), (190, 30, 40), (40, 40, 40)
_PAPER = (255, 255, 255)
_SIDE, _LINE, _GAP = 112, 14, 8

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A picture, uint8 [H, W, 1 or 3], lines of text with their colours, and a frame in a colour, or none."""

    image: np.ndarray
    lines: tuple[tuple[str, Colour], ...] = ()
    frame: Colour | None = None


def draw_grid(path: Path, rows: Sequence[Sequence[Cell]], *, columns: int, lines: int = 1, heads: Sequence[str] = ()) -> None:
    """Writes a PNG.

    Args:
      path: the PNG.
      rows: of cells.
      columns: there is room for; the last rows may have fewer cells.
      lines: of text there is room for below each picture.
      heads: a line above each column.
    """
    high, above = _SIDE + lines * _LINE + _GAP + 2, _LINE + _GAP if heads else 0
    width = columns * (_SIDE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * high + above + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for column, head in enumerate(heads):
        draw.text((_GAP + column * (_SIDE + _GAP), _GAP // 2), _fit(head, font), fill=INK, font=font)
    for number, row in enumerate(rows):
        top = above + _GAP + number * high
        for column, cell in enumerate(row):
            left = _GAP + column * (_SIDE + _GAP)
            pixels = np.repeat(cell.image, 3, axis=2) if cell.image.shape[2] == 1 else cell.image[:, :, :3]
            sheet.paste(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), (left, top))
            for place, (text, ink) in enumerate(cell.lines):
                draw.text((left, top + _SIDE + 1 + place * _LINE), _fit(text, font), fill=ink, font=font)
            if cell.frame is not None:
                draw.rectangle((left - 2, top - 2, left + _SIDE + 1, top + _SIDE + 1), outline=cell.frame, width=2)
    with open_whole(path) as file:
        sheet.save(file, "PNG")


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shortens a text to the width of a cell."""
    if font.getlength(text) <= _SIDE:
        return text
    while text and font.getlength(text + "…") > _SIDE:
        text = text[:-1]
    return text + "…"
