"""A contact sheet: what the network saw, what it said, what was right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxft.data import Source, decode
from jaxft.evaluate import Evaluation, scores
from jaxft.files import open_whole
from jaxft.tasks import Task

_CELL, _TEXT, _GAP = 112, 30, 8
_RIGHT, _WRONG, _INK, _PAPER = (24, 112, 60), (190, 30, 40), (40, 40, 40), (255, 255, 255)


def write_samples(
    path: Path, evaluation: Evaluation, source: Source, task: Task, class_names: Sequence[str], *, count: int = 24
) -> None:
    """Draws evenly spaced examples of a split with the network's answers (single-label tasks only)."""
    if task.name not in ("classify", "soft"):
        return
    chosen = np.unique(np.linspace(0, evaluation.count - 1, min(count, evaluation.count)).astype(int))
    probability = scores.softmax(evaluation.logits[chosen])
    labels = evaluation.labels[chosen]
    truths = labels.argmax(-1) if labels.ndim == 2 else labels  # of soft labels, the largest share
    guesses = probability.argmax(-1)
    draw_samples(
        path,
        [decode(source[int(evaluation.index[row])][0], 3) for row in chosen],
        [class_names[int(truth)] for truth in truths],
        [class_names[int(guess)] for guess in guesses],
        [float(value) for value in probability.max(-1)],
    )


def draw_samples(
    path: Path,
    images: Sequence[np.ndarray],
    truths: Sequence[str],
    guesses: Sequence[str],
    probabilities: Sequence[float],
    *,
    columns: int = 6,
) -> None:
    """Writes a PNG with one cell an image: prediction and probability below it, the truth too where they differ.

    Args:
      path: the PNG.
      images: uint8 [H, W, 1 or 3] each.
      truths, guesses: class names.
      probabilities: of the guesses, 0..1.
      columns: cells in a row.
    """
    rows = -(-len(images) // columns)
    width = columns * (_CELL + _GAP) + _GAP
    height = rows * (_CELL + _TEXT + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for index, (image, truth, guess, probability) in enumerate(zip(images, truths, guesses, probabilities, strict=True)):
        row, column = divmod(index, columns)
        left, top = _GAP + column * (_CELL + _GAP), _GAP + row * (_CELL + _TEXT + _GAP)
        pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]
        sheet.paste(Image.fromarray(pixels).resize((_CELL, _CELL), Image.Resampling.BILINEAR), (left, top))
        right = truth == guess
        draw.text(
            (left, top + _CELL + 1), _fit(f"{guess} {probability:.0%}", font), fill=_RIGHT if right else _WRONG, font=font
        )
        if not right:
            draw.text((left, top + _CELL + 15), _fit(f"is {truth}", font), fill=_INK, font=font)
            draw.rectangle((left - 2, top - 2, left + _CELL + 1, top + _CELL + 1), outline=_WRONG, width=2)
    with open_whole(path) as file:
        sheet.save(file, "PNG")


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shortens a text to the width of a cell."""
    if font.getlength(text) <= _CELL:
        return text
    while text and font.getlength(text + "…") > _CELL:
        text = text[:-1]
    return text + "…"
