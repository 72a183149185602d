"""Curves over a logarithmic axis, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxft.files import open_whole
from jaxft.report.grid import GREEN, INK, RED

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 700, 40, 390
_FAINT, _LINE = (222, 222, 222), (30, 90, 170)
#: Of the curves in turn, and of the marks.
_CURVES, _MARKS = ((176, 190, 206), _LINE), (RED, GREEN, (150, 90, 0))
_TICKS = 5


def draw_curve(
    path: Path, x: np.ndarray, curves: Mapping[str, np.ndarray], *, marks: Mapping[str, float], title: str, top: float
) -> None:
    """Writes curves of a positive `x`, which rises, on a logarithmic axis.

    Args:
      path: the PNG.
      x: [N].
      curves: at most two, name -> [N]; what is no number is left out.
      marks: at most three, name -> x, shown as upright lines.
      title: above the picture.
      top: the largest value there is room for; what is higher leaves the picture.
    """
    low = min(float(np.nanmin(np.where(np.isfinite(values), values, np.nan))) for values in curves.values())
    low, high = min(low, top - 1e-9), top
    first, last = math.log10(x[0]), math.log10(x[-1])

    def place(at: float, value: float) -> tuple[float, float]:
        across = (math.log10(at) - first) / (last - first)
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP)

    image = Image.new("RGB", (_WIDTH, _HEIGHT), (255, 255, 255))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1):
        across, _ = place(10.0**power, low)
        draw.line((across, _TOP, across, _BOTTOM), fill=_FAINT)
        draw.text((across, _BOTTOM + 6), f"1e{power}", fill=INK, font=font, anchor="mt")
    for tick in range(_TICKS):
        value = low + (high - low) * tick / (_TICKS - 1)
        _, down = place(x[0], value)
        draw.line((_LEFT, down, _RIGHT, down), fill=_FAINT)
        draw.text((_LEFT - 6, down), f"{value:.3g}", fill=INK, font=font, anchor="rm")
    legend = []
    for (name, values), ink in zip(curves.items(), _CURVES, strict=False):
        points = [place(at, value) for at, value in zip(x, values, strict=True) if math.isfinite(value)]
        draw.line(_inside(points), fill=ink, width=2)
        legend.append((name, ink))
    for (name, at), ink in zip(marks.items(), _MARKS, strict=False):
        across, _ = place(at, low)
        draw.line((across, _TOP, across, _BOTTOM), fill=ink, width=1)
        legend.append((name, ink))
    draw.rectangle((_LEFT, _TOP, _RIGHT, _BOTTOM), outline=INK)
    draw.text((_LEFT, 8), title, fill=INK, font=font)
    across = float(_LEFT)
    for name, ink in legend:
        draw.text((across, 23), name, fill=ink, font=font)
        across += font.getlength(name) + 18
    with open_whole(path) as file:
        image.save(file, "PNG")


def _inside(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, up to the first that is above the picture; that one at its upper edge."""
    found: list[tuple[float, float]] = []
    for across, down in points:
        found.append((across, max(down, _TOP)))
        if down < _TOP and len(found) > 1:
            break
    return found
