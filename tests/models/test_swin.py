"""Swin's windows: what is cut is put together again, and only windows that wrap around the map are parted."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxft.models.swin import windowed


@pytest.mark.parametrize("shape", [(8, 8), (4, 4), (9, 6), (3, 10), (1, 1)])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_come_back_where_they_were_and_attention_goes_only_to_neighbours(shape, shifted):
    height, width = shape
    # Every token is its place; padding is 0.
    place = jnp.stack(jnp.meshgrid(jnp.arange(1, height + 1), jnp.arange(1, width + 1), indexing="ij"), -1)[None]
    spans = height <= 4 and width <= 4

    def attend(x, regions):
        assert (regions is None) == (spans or not shifted)
        for number, tokens in enumerate(np.asarray(x[0])):
            for part in [...] if regions is None else [regions[number] == region for region in np.unique(regions[number])]:
                real = tokens[part][tokens[part].min(-1) > 0]
                assert len(real) == 0 or np.ptp(real, axis=0).max() < 4
        return x

    np.testing.assert_array_equal(windowed(place, 4, shifted, attend), place)
