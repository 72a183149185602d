"""A survey as one page of HTML with pictures in it: no scripts, nothing fetched, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxft.data.sources import Source
from jaxft.data.survey import Group, SplitSurvey, Survey, table_of
from jaxft.decoding.decode import decode
from jaxft.errors import JaxftError
from jaxft.files import write_whole

#: Pixels of a thumbnail's long side.
THUMBNAIL = 96
#: Bytes of a thumbnail above which it is saved again, coarser; most take three kilobytes.
MOST_BYTES = 5000
#: Thumbnails of all classes together, and of one class.
MOST_THUMBNAILS = 1200
MOST_OF_A_CLASS = 10
#: Classes, groups of duplicates and unreadable files that are shown.
MOST_CLASSES = 1000
MOST_GROUPS = 60
MOST_BAD = 500

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1b1f24; --soft: #667; --line: #d9dde3; --card: #f5f6f8; --bar: #3b6fd4;
  --warn: #fff4d6; --warn-line: #d9a400; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --ink: #e4e7eb; --soft: #9aa3ad; --line: #30363d;
  --card: #1d2126; --bar: #6d9bf1; --warn: #33290c; --warn-line: #b58900; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .95rem; margin: 1.1rem 0 .3rem; overflow-wrap: anywhere; }
h3 small, .soft { color: var(--soft); font-weight: 400; } p { margin: .3rem 0; }
.warn { background: var(--warn); border-left: 4px solid var(--warn-line); padding: .5rem .8rem; margin: .4rem 0;
  border-radius: 0 6px 6px 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td { font-variant-numeric: tabular-nums; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; }
figure { margin: 0; max-width: 96px; font-size: 11px; line-height: 1.3; color: var(--soft); overflow-wrap: anywhere;
  white-space: pre-line; }
figure img { display: block; max-width: 96px; background: var(--card); border-radius: 4px; margin-bottom: 2px; }
.pair { display: inline-flex; gap: .5rem; padding: .6rem; margin: 0 .5rem .5rem 0; background: var(--card); border-radius: 8px;
  border: 1px solid var(--line); vertical-align: top; } .pair.bad { border-color: var(--warn-line); }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg rect { fill: var(--bar); }
"""


def write_sheet(path: Path, survey: Survey, found: Mapping[str, Source]) -> None:
    """Writes the page, under 10 megabytes however large the data set.

    Args:
      path: of the file.
      survey: of `found`, the splits by name.

    Raises:
      JaxftError: the file cannot be written.
    """
    parts = [
        _head(survey),
        _section("Splits", "splits", _splits(survey)),
        _section("Sizes", "sizes", "".join(_histogram(name, split) for name, split in survey.splits.items())),
        _section("Same picture", "same", _groups(survey.same, found)),
        _section("Nearly the same", "near", _groups(survey.near, found)),
        _section("Unreadable", "bad", _bad(survey)),
        _section("Unusual shapes", "shapes", _shapes(survey, found)),
        _section("Values" if survey.task == "regression" else "Classes", "classes", _classes(survey, found)),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_text(survey.source)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    try:
        write_whole(path, page)
    except OSError as error:
        raise JaxftError(f"cannot write the sheet {path}: {error.strerror}") from error


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, name: str, body: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>' if body else ""


def _head(survey: Survey) -> str:
    total = sum(split.count for split in survey.splits.values())
    kinds = "" if survey.task in ("regression", "unlabelled") else f", {len(survey.class_names):,} classes"
    warnings = "".join(f'<p class="warn">{_text(warning)}</p>' for warning in survey.warnings) or "<p>No warnings.</p>"
    return f'<h1>{_text(survey.source)}</h1><p class="soft">{total:,} pictures{kinds}</p>{warnings}'


def _splits(survey: Survey) -> str:
    rows = [["", *survey.splits], *table_of(survey.splits)]
    lines = ""
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        lines += f"<tr><th>{_text(row[0])}</th>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in row[1:]) + "</tr>"
    return f'<div class="wide"><table>{lines}</table></div>'


def _histogram(name: str, split: SplitSurvey) -> str:
    """Bars of how many pictures have a short side of so many pixels."""
    if not split.sides:
        return ""
    top, bars = max(split.sides.values()), []
    powers = range(min(split.sides).bit_length() - 1, max(split.sides).bit_length())
    for place, power in enumerate(powers):
        count = split.sides.get(1 << power, 0)
        tall, left = 90 * count / top, 8 + 78 * place
        bars.append(
            f'<rect x="{left}" y="{112 - tall:.1f}" width="62" height="{tall:.1f}" rx="2"/>'
            f'<text x="{left + 31}" y="{106 - tall:.1f}" text-anchor="middle">{count:,}</text>'
            f'<text x="{left + 31}" y="128" text-anchor="middle">{1 << power}-{(2 << power) - 1}</text>'
        )
    width = 16 + 78 * len(powers)
    drawn = f'<svg width="{width}" height="134" role="img" aria-label="sizes of {_text(name)}">{"".join(bars)}</svg>'
    return f'<h3>{_text(name)} <small>pixels of the short side</small></h3><div class="wide">{drawn}</div>'


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _figure(source: Source, number: int, name: str, caption: str) -> str:
    """A thumbnail; where the picture cannot be read, or no longer, its caption alone."""
    try:
        image = source[number][0]
        channels = image.shape[2] if isinstance(image, np.ndarray) and image.ndim == 3 else 3
        pixels = decode(image, channels, shrink=lambda height, width: max(height, width) / THUMBNAIL)
    except (JaxftError, OSError):
        return f"<figure>{_text(caption)} (unreadable)</figure>"
    thumbnail = Image.fromarray(pixels if channels == 3 else np.repeat(pixels[:, :, :1], 3, axis=2))
    share = min(1.0, THUMBNAIL / max(thumbnail.size))
    width, height = (max(1, round(side * share)) for side in thumbnail.size)
    small = thumbnail.resize((width, height), Image.Resampling.BOX if share < 1 else Image.Resampling.NEAREST)
    saved = _jpeg(small, 75)
    data = base64.b64encode(saved if len(saved) <= MOST_BYTES else _jpeg(small, 30)).decode()
    # Small pictures are shown larger, as they are: in squares.
    zoom = max(1, THUMBNAIL // max(width, height))
    style = ' style="image-rendering: pixelated"' if zoom > 1 else ""
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width * zoom}" height="{height * zoom}" alt=""{style}'
        f' title="{_text(name)}">{_text(caption)}</figure>'
    )


def _groups(groups: Sequence[Group], found: Mapping[str, Source]) -> str:
    """Two of each group side by side: of different labels or splits, where it has them."""
    cards = []
    for group in groups[:MOST_GROUPS]:
        first = group.members[0]
        others = sorted(group.members[1:], key=lambda member: (member.label == first.label, member.split == first.split))
        pair = [
            _figure(
                found[member.split], member.number, member.name, f"{member.split}: {member.label}\n{Path(member.name).name}"
            )
            for member in (first, others[0])
        ]
        more = f"<figure>and {len(group.members) - 2:,} more</figure>" if len(group.members) > 2 else ""
        mark = " bad" if group.across or group.labels_differ else ""
        cards.append(f'<div class="pair{mark}">{"".join(pair)}{more}</div>')
    if not cards:
        return ""
    left = f'<p class="soft">{len(groups):,} groups, the first {MOST_GROUPS}.</p>' if len(groups) > MOST_GROUPS else ""
    return f'<p class="soft">Marked: with different labels, or in more than one split.</p>{left}{"".join(cards)}'


def _bad(survey: Survey) -> str:
    rows = [(name, *entry) for name, split in survey.splits.items() for entry in split.bad]
    lines = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows[:MOST_BAD])
    left = f'<p class="soft">{len(rows):,}, the first {MOST_BAD}.</p>' if len(rows) > MOST_BAD else ""
    return f'{left}<div class="wide"><table>{lines}</table></div>' if rows else ""


def _shapes(survey: Survey, found: Mapping[str, Source]) -> str:
    rows = []
    for title, entries in survey.shapes.items():
        figures = "".join(
            _figure(found[split], number, name, f"{width}x{height}\n{Path(name).name}")
            for split, number, name, height, width in entries
        )
        rows.append(f'<h3>{title.capitalize()}</h3><div class="row">{figures}</div>')
    return "".join(rows)


def _classes(survey: Survey, found: Mapping[str, Source]) -> str:
    if survey.task == "regression":
        return "".join(
            _row(name, "from low to high", _even(np.argsort(part.labels), MOST_OF_A_CLASS), part, part.names)
            for name, part in found.items()
        )
    shown = survey.class_names[:MOST_CLASSES]
    each = max(1, min(MOST_OF_A_CLASS, MOST_THUMBNAILS // max(1, len(shown))))
    part = next(iter(found.values()))
    names = part.names  # once: some sources make them anew
    rows = []
    for number, name in enumerate(shown):
        chosen = np.flatnonzero(part.labels == number if part.labels.ndim == 1 else part.labels[:, number])
        counts = ", ".join(f"{of.classes[name]:,} {where}" for where, of in survey.splits.items())
        rows.append(_row(name, counts, _even(chosen, each), part, names))
    left = f'<p class="soft">The first {MOST_CLASSES:,} classes.</p>' if len(shown) < len(survey.class_names) else ""
    return left + "".join(rows)


def _even(chosen: np.ndarray, count: int) -> Iterable[int]:
    """`count` of them, evenly spaced."""
    places = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return chosen[places].tolist() if len(chosen) else []


def _row(title: str, note: str, numbers: Iterable[int], part: Source, names: Sequence[str]) -> str:
    values = part.labels.ndim == 1 and part.labels.dtype.kind == "f"
    figures = "".join(
        _figure(part, number, names[number], f"{float(part.labels[number]):.4g}" if values else "") for number in numbers
    )
    return f'<h3>{_text(title)} <small>{_text(note)}</small></h3><div class="row">{figures}</div>'
