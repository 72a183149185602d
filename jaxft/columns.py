"""Rows as aligned text for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """One line a row, two spaces between columns; those in `right` are flush right. A short row ends early."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max(len(row[column]) for row in rows if len(row) > column) for column in range(columns)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
