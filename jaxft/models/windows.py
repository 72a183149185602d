"""Windows of a map: which tokens attend to one another in a Swin Transformer, and where they stand."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def offsets(window: int) -> np.ndarray:
    """For each pair of tokens of a window, the row of a table [(2 window - 1)^2, ...] that is of their offset: int32 [N, N]."""
    row, column = np.divmod(np.arange(window * window, dtype=np.int32), window)
    down, across = row[:, None] - row[None, :], column[:, None] - column[None, :]
    return (down + window - 1) * (2 * window - 1) + across + window - 1


@functools.cache
def coordinates(window: int) -> np.ndarray:
    """The offset of every row of such a table, down and across, on the second version's logarithmic scale.

    sign(x) log2(1 + |x|) / 3 with x from -8 to 8: f64 [(2 window - 1)^2, 2].
    """
    line = np.arange(1 - window, window) * (8 / max(window - 1, 1))
    line = np.sign(line) * np.log2(1 + np.abs(line)) / 3
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def _regions(rows: int, columns: int, window: int, shifts: tuple[int, int]) -> np.ndarray:
    """Which part of the unshifted map each token of rows x columns shifted windows is of: int32 [rows * columns, N].

    The shift brings the map's first rows behind its last; attention must not go between the two.
    """
    lines = []
    for count, shift in zip((rows, columns), shifts, strict=True):
        place = np.arange(count * window, dtype=np.int32)
        after = (place >= (count - 1) * window).astype(np.int32) + (place >= count * window - shift)
        lines.append(after if shift else 0 * place)
    whole = 3 * lines[0][:, None] + lines[1][None, :]
    return whole.reshape(rows, window, columns, window).swapaxes(1, 2).reshape(rows * columns, -1)


def windowed(
    x: jax.Array, window: int, shifted: bool, attend: Callable[[jax.Array, np.ndarray | None], jax.Array]
) -> jax.Array:
    """Runs `attend` on the windows of a map [B, H, W, C].

    Args:
      x: the map.
      window: side of a window.
      shifted: whether windows lie half a window further right and down, where there are several.
      attend: takes tokens [B, windows, N, C] and, where shifted, the part of the map each is of [windows, N].
    """
    batch, height, width, channels = x.shape
    rows, columns = -(-height // window), -(-width // window)
    shifts = (window // 2 * (shifted and rows > 1), window // 2 * (shifted and columns > 1))
    x = jnp.pad(x, ((0, 0), (0, rows * window - height), (0, columns * window - width), (0, 0)))
    if any(shifts):
        x = jnp.roll(x, (-shifts[0], -shifts[1]), (1, 2))
    x = x.reshape(batch, rows, window, columns, window, channels).swapaxes(2, 3)
    x = attend(
        x.reshape(batch, rows * columns, window * window, channels),
        _regions(rows, columns, window, shifts) if any(shifts) else None,
    )
    x = x.reshape(batch, rows, columns, window, window, channels).swapaxes(2, 3)
    x = x.reshape(batch, rows * window, columns * window, channels)
    if any(shifts):
        x = jnp.roll(x, shifts, (1, 2))
    return x[:, :height, :width]
